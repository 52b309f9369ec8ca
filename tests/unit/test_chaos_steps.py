"""What is a step, and who dies before it."""

import math
from pathlib import Path

import pytest
from chaos import results
from chaos.steps import Session, Step, Steps, Trials, points_that_matter


def message(session: Session, kind: bytes, *parts: str) -> Step | None:
    return session.step_of(kind, b"".join(part.encode() + b"\0" for part in parts) + b"\0\0")


def test_who_is_dead_takes_no_steps() -> None:
    counted, killed = Steps(), []
    counted.count(last=1, kill=lambda: killed.append("now"))
    first, second = Step("first", True), Step("second", True)
    assert counted.take(first, 0)
    assert not killed
    assert not counted.take(second, 0)
    assert (counted.taken, counted.fatal, killed) == ([first], second, ["now"])
    # Not even when others are counted; a connection of the next life does.
    counted.count()
    assert not counted.take(first, 0)
    assert counted.take(second, 1)
    assert counted.stop() == ([second], None)
    # Nobody is killed when nobody counts.
    counted.count(last=0)
    counted.stop()
    assert counted.take(first, 1)


@pytest.mark.parametrize(
    ("statement", "lasts"),
    [
        ("select 1", False),
        ("-- A comment; update it\nSELECT 1", False),
        ("SET lock_timeout = 1", False),
        ("update t set a = 1", True),
        ("-- why\ngrant a to b;", True),
        ("create database a", True),
    ],
)
def test_what_lasts_by_itself(statement: str, lasts: bool) -> None:
    assert message(Session(), b"Q", statement) == Step(statement.rsplit("\n", maxsplit=1)[-1], lasts)


def test_a_transaction_lasts_by_its_end() -> None:
    session = Session()
    assert message(session, b"Q", "BEGIN;") == Step("BEGIN;", False)
    session.ready(b"T")
    assert message(session, b"P", "", "update t set a = $1") is None
    assert message(session, b"B", "", "") is None
    assert message(session, b"E", "") == Step("update t set a = $1", False)
    assert message(session, b"Q", "COMMIT;") == Step("COMMIT;", True)
    session.ready(b"I")
    assert message(session, b"Q", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;") == Step(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", False
    )
    session.ready(b"T")
    assert message(session, b"Q", "COMMIT;") == Step("COMMIT;", False)


TAKEN = [Step(str(number), number in (1, 3, 5, 7, 13)) for number in range(20)]


def test_where_it_matters_most() -> None:
    assert points_that_matter(TAKEN, 100) == [0, 2, 4, 6, 8, 11, 14]
    assert points_that_matter(TAKEN, 4) == [0, 4, 11, 14]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(results, "_FILE", str(tmp_path / "results"))
    return tmp_path / "results"


def test_every_step_is_tried_where_there_is_time(monkeypatch: pytest.MonkeyPatch, written: Path) -> None:
    monkeypatch.setattr(results, "SECONDS", math.inf)
    tried = []
    with Trials("suite", "scenario", TAKEN, [4, 0]) as trials:
        for point in trials:
            tried.append(point)
            # The last run was over sooner.
            trials.came_to("", TAKEN[:point], TAKEN[point] if point < 19 else None)
    assert tried[:2] == [4, 0]
    assert sorted(tried) == list(range(20))
    assert results.read(written) == [results.Killed("suite", "scenario", 20, 5, 19, 19)]


def try_all(scenario: str, points: list[int], differences: list[str]) -> None:
    with Trials("suite", scenario, TAKEN, points) as trials:
        for point, differs in zip(trials, differences, strict=True):
            trials.came_to(differs, TAKEN[:point], TAKEN[point])


def test_one_that_ends_otherwise_is_written_down(monkeypatch: pytest.MonkeyPatch, written: Path) -> None:
    monkeypatch.setattr(results, "SECONDS", 0.0)
    try_all("scenario", [0], [""])
    with pytest.raises(AssertionError, match="log: 1 instead of 2"):
        try_all("another", [0, 1], ["", "log: 1 instead of 2"])
    first, second = results.read(written)
    assert first
    assert second == results.Killed("suite", "another", 20, 5, 2, 1)
    assert not second
