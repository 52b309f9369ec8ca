"""The table of what busctl takes."""

from benchmarks.busctl.commands import Cost
from benchmarks.busctl.report import Measured, table


def costs(*walls: float) -> list[Cost]:
    return [Cost(wall, wall / 2, {"PostgreSQL": wall / 4, "API server": 0.01}) for wall in walls]


def test_a_line_has_medians_and_extremes() -> None:
    measured = [Measured("status", "database", costs(0.4, 0.2, 0.3)), Measured("doctor", "cluster", costs(1.2))]
    assert table(measured).splitlines()[2:] == [
        "| `status` | database | 0.3 (0.2, 0.4) | 0.15 | PostgreSQL 0.075, API server 0.01 |",
        "| `doctor` | cluster | 1.2 (1.2, 1.2) | 0.6 | PostgreSQL 0.3, API server 0.01 |",
    ]
    assert [item.as_json["met"] for item in measured] == [True, False]
