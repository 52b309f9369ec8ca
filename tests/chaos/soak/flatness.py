"""Whether something grows: the slope of Theil and Sen, with an interval, over the second half of a series.

The slope is the median of the slopes between all pairs of points: a quarter of them may be anything before it says
something else. The interval is Sen's, from Kendall's statistic (P. K. Sen, "Estimates of the regression coefficient
based on Kendall's tau", 1968). It takes points as independent, which samples of a process's memory are not: each point
is the median of a minute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist, median

MEBIBYTE = 1 << 20

#: Seconds of which one point is made, and points without which nothing is said.
BLOCK, LEAST = 60.0, 8

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may come on top in the time that is looked at: the larger of a share and an amount."""

    share: float
    amount: float

    def of(self, level: float) -> float:
        """How much that is where there is so much."""
        return max(self.share * level, self.amount)


#: Of the memory of a process, in bytes. What the allocator and caches of a size take still comes within it.
MEMORY = Allowance(0.05, 4 * MEBIBYTE)


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of something in the second half of the time.

    Attributes:
        seconds: How long that is.
        level: The median.
        growth: How much more it was at its end than at its beginning, and between which bounds that is in 95 of 100
            cases.
        low: The lower one.
        high: The upper one.
        allowed: How much it may be.
    """

    seconds: float
    level: float
    growth: float
    low: float
    high: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it certainly grew by no more than it may: what cannot be told is not flat."""
        return self.high <= self.allowed


def slope(times: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """The slope of a series, and the bounds of its interval.

    Raises:
        ValueError: There are fewer than two points.
    """
    slopes = sorted(
        (later - earlier) / (end - begin)
        for (begin, earlier), (end, later) in combinations(zip(times, values, strict=True), 2)
    )
    if not slopes:
        raise ValueError("a slope takes two points")
    count = len(times)
    # How far from the middle, in ranks, the bounds are.
    spread = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = math.floor((len(slopes) - spread) / 2)
    high = math.ceil((len(slopes) + spread) / 2)
    return median(slopes), slopes[max(low, 0)], slopes[min(high, len(slopes) - 1)]


def trend(
    times: Sequence[float], values: Sequence[float], allowance: Allowance = MEMORY, block: float = BLOCK
) -> Trend | None:
    """What became of something; None: it was looked at for too short a time to tell.

    Args:
        times: When it was looked at, in seconds, ascending.
        values: What it was.
        allowance: How much it may grow in the second half.
        block: Seconds of which one point is made.
    """
    if not times:
        return None
    middle = (times[0] + times[-1]) / 2
    blocks: dict[int, list[tuple[float, float]]] = {}
    for time, value in zip(times, values, strict=True):
        if time >= middle:
            blocks.setdefault(int((time - middle) / block), []).append((time, value))
    if len(blocks) < LEAST:
        return None
    points = [(median(time for time, _ in each), median(value for _, value in each)) for each in blocks.values()]
    whens, levels = [time for time, _ in points], [value for _, value in points]
    seconds = times[-1] - middle
    middle_slope, low, high = slope(whens, levels)
    level = median(levels)
    return Trend(seconds, level, middle_slope * seconds, low * seconds, high * seconds, allowance.of(level))
