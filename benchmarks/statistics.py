"""Percentiles of samples, and medians with spread over rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NS_PER_MS = 1e6


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed (nearest rank); `ordered` ascends.

    Raises:
        ValueError: There are no samples.
    """
    if not ordered:
        raise ValueError("no samples")
    rank = -int(-share * len(ordered) // 1)
    return ordered[min(len(ordered), max(1, rank)) - 1]


def milliseconds(latencies: Sequence[int]) -> dict[str, float]:
    """p50, p99 and the largest of latencies in nanoseconds, as figures in milliseconds."""
    ordered = sorted(latencies)
    return {
        "p50_ms": percentile(ordered, 0.50) / NS_PER_MS,
        "p99_ms": percentile(ordered, 0.99) / NS_PER_MS,
        "max_ms": ordered[-1] / NS_PER_MS,
    }


def number(value: float) -> str:
    """For people: three digits are more than such a measurement can tell."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Spread:
    """What rounds gave: the median, and the extremes."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("no rounds")
        return cls(statistics.median(values), min(values), max(values), len(values))
