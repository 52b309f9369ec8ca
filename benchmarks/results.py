"""What was measured: one record for each case and round, and the summaries over rounds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.statistics import Spread

#: What was varied, such as `{"system": "redis", "subscribers": 8}`.
Case = Mapping[str, str | int]


@dataclass(frozen=True)
class Measurement:
    """The figures of one case in one round; their units are in their names."""

    scenario: str
    round: int
    case: Case
    figures: Mapping[str, float]


@dataclass
class Results:
    """All measurements of a run, with what they were made on.

    Attributes:
        machine: Where and with what.
        settings: How long and how often.
        series: Figures over time, by name: rows of named columns.
        failures: Scenarios that could not be measured, and why.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    series: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def by_round(self, scenario: str, figure: str, **case: str | int) -> dict[int, float]:
        """A figure of one case in each round that has it."""
        return {
            m.round: m.figures[figure]
            for m in self.measurements
            if m.scenario == scenario and dict(m.case) == case and figure in m.figures
        }

    def cases(self, scenario: str) -> Iterator[Case]:
        """The cases of a scenario, in the order of their first measurement."""
        seen: list[Case] = []
        for m in self.measurements:
            if m.scenario == scenario and m.case not in seen:
                seen.append(m.case)
        return iter(seen)

    def spread(self, scenario: str, figure: str, case: Case) -> Spread | None:
        """A figure over all rounds; None when it was not measured."""
        values = list(self.by_round(scenario, figure, **case).values())
        return Spread.of(values) if values else None

    def scenarios(self) -> list[str]:
        """Those that were measured, in order."""
        return list(dict.fromkeys(m.scenario for m in self.measurements))

    def figures(self, scenario: str) -> list[str]:
        """The names of a scenario's figures, in order."""
        return list(dict.fromkeys(name for m in self.measurements if m.scenario == scenario for name in m.figures))
