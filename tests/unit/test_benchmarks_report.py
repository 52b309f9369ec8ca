"""Whether goals are met, and how that is told."""

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.goals import GOALS, Goal, Verdict, evaluate
from benchmarks.results import Measurement, Results
from benchmarks.statistics import Spread


def latency(results: Results, round_number: int, **p50: float) -> None:
    for system, value in p50.items():
        results.measurements.append(
            Measurement(
                "latency", round_number, {"system": system.replace("_", "-")}, {"p50_ms": value, "p99_ms": value}
            )
        )


@pytest.fixture
def results() -> Results:
    """Two rounds, the second on a machine half as fast; and one round of Redis alone."""
    results = Results(
        machine={
            "date": "2026-01-01", "commit": "abc", "cores": 2, "processor": "some", "memory_gib": 4.0, "kernel": "6",
            "python": "3.11", "file_system": "ext4", "flush_ms": {"p50": 0.1, "p99": 0.2},
        },
        settings={"quick": True},
    )  # fmt: skip
    latency(results, 1, ours_async=1.0, redis=2.0)
    latency(results, 2, ours_async=2.0, redis=4.0)
    latency(results, 3, redis=100.0)
    return results


def test_ratios_are_made_within_rounds(results: Results) -> None:
    verdict = next(v for v in evaluate(results) if v.goal.figure == "p50 / RedisBus' p50")
    assert verdict.measured == Spread(0.5, 0.5, 0.5, 2)
    assert (verdict.met, verdict.text) == (True, "met")


def test_what_was_not_measured_is_neither_met_nor_missed(results: Results) -> None:
    verdict = next(v for v in evaluate(results) if v.goal.what == "1,000 idle peers")
    assert (verdict.met, verdict.text) == (None, "not measured")


@pytest.mark.parametrize(
    ("direction", "bound", "measured", "text"),
    [
        ("at least", 3.0, 3.0, "met"),
        ("at least", 3.0, 2.4, "missed by 20%"),
        ("at most", 1.5, 1.5, "met"),
        ("at most", 1.5, 1.8, "missed by 20%"),
        ("at most", 0.0, 0.0, "met"),
        ("at most", 0.0, 7.0, "missed by 7 joins"),
    ],
)
def test_a_goal_says_by_how_much_it_is_missed(direction: str, bound: float, measured: float, text: str) -> None:
    goal = Goal("what", "figure", direction, bound, " joins", lambda _: [])  # type: ignore[arg-type]
    verdict = Verdict(goal, Spread.of([measured]))
    assert verdict.text == text
    assert verdict.met is (text == "met")


def test_goals_are_told_apart() -> None:
    assert len({(goal.what, goal.figure) for goal in GOALS}) == len(GOALS)


def test_the_files_hold_figures_goals_and_what_failed(results: Results, tmp_path: Path) -> None:
    results.failures["soak: round"] = "Traceback\nValueError: no"
    report.write(results, evaluate(results), tmp_path)
    document = json.loads((tmp_path / "results.json").read_text())
    assert len(document["measurements"]) == 5
    assert document["summary"][0]["median"] == 1.5
    goal = document["goals"][0]
    assert (goal["bound"], goal["rounds"], goal["met"]) == (1.0, [0.5, 0.5], True)
    text = (tmp_path / "results.md").read_text()
    assert "A quick run" in text
    assert "| pipecat RedisBus | 4 (2 .. 100)" in text
    assert "- soak: round: ValueError: no" in text


def test_tables_are_aligned() -> None:
    assert report.table(["a", "bb"], [["1", "2"], ["333", ""]]).splitlines() == [
        "| a   | bb |",
        "|-----|----|",
        "| 1   | 2  |",
        "| 333 |    |",
    ]
