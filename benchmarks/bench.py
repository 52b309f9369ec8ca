"""What a scenario is given: the servers, processes, where to write figures, and how long to measure."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.errors import BenchmarkError
from benchmarks.fleet import Fleet
from benchmarks.results import Measurement, Results
from benchmarks.statistics import number
from benchmarks.world import World

Length = TypeVar("Length")


def say(text: str) -> None:
    """A line for whoever waits: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Bench:
    """One run.

    Attributes:
        world: The servers.
        results: Where figures go.
        quick: Whether to measure briefly.
        log: Where the processes' output goes.
    """

    world: World
    results: Results
    quick: bool
    log: Path
    scenario: str = ""
    round: int = 0

    def pick(self, full: Length, quick: Length) -> Length:
        """How long, how often, how many."""
        return quick if self.quick else full

    def fleet(self) -> Fleet:
        """Processes for one measurement."""
        return Fleet(self.log)

    def record(self, case: dict[str, str | int], figures: dict[str, float]) -> None:
        """Keep the figures of one case, and show them."""
        self.results.measurements.append(Measurement(self.scenario, self.round, case, figures))
        shown = "  ".join(f"{name}={number(value)}" for name, value in figures.items())
        say(f"    {' '.join(map(str, case.values())):32s} {shown}")

    def rotated(self, systems: list[str]) -> list[str]:
        """Another order in each round, so that nobody is always first."""
        shift = (self.round - 1) % len(systems)
        return systems[shift:] + systems[:shift]

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Let the others be measured when one cannot be, whatever the reason: a run takes long."""
        try:
            yield
        except Exception as exc:
            reason = str(exc) if isinstance(exc, BenchmarkError) else traceback.format_exc()
            self.results.failures[f"{self.scenario}: {what}"] = reason
            say(f"    {what}: could not be measured: {reason}")


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long ago."""
        return time.monotonic() - self._began
