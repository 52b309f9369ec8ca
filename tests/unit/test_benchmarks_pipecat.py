"""What the page for users of pipecat says of the figures, whatever they are."""

from collections.abc import Mapping

import pytest

from benchmarks.pipecat.report import ROWS, Row, document, table
from benchmarks.results import Measurement, Results
from benchmarks.systems import PIPECAT

LATENCY, THROUGHPUT = ROWS[0], ROWS[-1]


@pytest.fixture
def results() -> Results:
    """Three rounds, the second on a machine half as fast, the third without the system before the change."""
    results = Results(
        machine={
            "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "cores": 2, "processor": "some",
            "packages": {"pipecat-ai": "1.2"},
        },
        settings={"rounds": 3, "postgresql": "18.6"},
    )  # fmt: skip
    note(results, 1, LATENCY, {"redis": 1, "isolated": 50, "pipecat-sync": 2})
    note(results, 2, LATENCY, {"redis": 2, "isolated": 100, "pipecat-sync": 4})
    note(results, 3, LATENCY, {"redis": 1, "pipecat-sync": 2})
    note(results, 1, THROUGHPUT, {"redis": 100, "isolated": 400, "pipecat-sync": 200})
    return results


def note(results: Results, round_number: int, row: Row, figures: Mapping[str, float]) -> None:
    for system, value in figures.items():
        case = {"system": system, **row.case}
        results.measurements.append(Measurement(row.scenario, round_number, case, {row.figure: value}))


def test_the_gain_is_how_many_times_better_within_a_round(results: Results) -> None:
    less, more = LATENCY.gain(results), THROUGHPUT.gain(results)
    assert less is not None
    assert (less.median, less.rounds) == (25, 2)
    assert more is not None
    assert more.median == 0.5


def test_the_table_has_what_was_measured_and_where_redis_is_ahead(results: Results) -> None:
    lines = table(results).splitlines()
    assert lines[0].startswith(
        "Medians of 3 rounds, the extremes in parentheses; 2026-01-02, commit abc, 2 cores (some)"
    )
    assert lines[2].split(" | ")[1:4] == [PIPECAT[system] for system in ("redis", "isolated", "pipecat-sync")]
    assert lines[4:6] == [
        f"| {LATENCY.what} | 1 (1 .. 2) | 75 (50 .. 100) | 2 (2 .. 4) | 25x (25 .. 25) |",
        f"| {THROUGHPUT.what} | 100 | 400 | 200 | 0.5x |",
    ]
    assert lines[7] == f"Where `RedisBus` is ahead of pipecat's `PgmqBus` on a `Sync` channel of ours: {LATENCY.what}."


def test_redis_may_be_ahead_everywhere_or_nowhere(results: Results) -> None:
    results.measurements = [m for m in results.measurements if m.scenario == LATENCY.scenario]
    assert table(results).endswith(": everywhere.")
    results.measurements = []
    note(results, 1, LATENCY, {"redis": 3, "pipecat-sync": 2})
    assert table(results).endswith(": nowhere.")


def test_a_quick_run_says_so(results: Results) -> None:
    results.settings |= {"quick": True, "rounds": 1}
    assert table(results).startswith("**A quick run**, too short to judge by: one round; 2026-01-02")


def test_redis_that_was_not_measured_is_not_spoken_of(results: Results) -> None:
    results.measurements = [m for m in results.measurements if m.case["system"] != "redis"]
    assert "RedisBus" not in table(results)


def test_nothing_is_divided_by_nothing(results: Results) -> None:
    idle = next(row for row in ROWS if row.figure == "idle_cpu_percent")
    note(results, 1, idle, {"isolated": 5, "pipecat-sync": 0})
    assert idle.gain(results) is None
    assert f"| {idle.what} |  | 5 | 0 |  |" in table(results)


def test_the_file_has_every_gain_and_every_figure(results: Results) -> None:
    written = document(results)
    assert set(written["gain"]) == {row.what for row in ROWS}
    assert written["gain"][LATENCY.what]["median"] == 25
    assert len(written["measurements"]) == 11
