"""What is a step, and who dies before it."""

import pytest
from chaos import steps
from chaos.steps import Session, Step, Steps, fatal_points


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
    assert (counted.taken, counted.fatal) == ([second], None)


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


def test_where_it_matters_most(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [Step(str(number), number in (1, 3, 5, 7, 13)) for number in range(20)]
    monkeypatch.setattr(steps, "EVERY_STEP", False)
    assert fatal_points(taken, 100) == [0, 2, 4, 6, 8, 11, 14]
    assert fatal_points(taken, 4) == [0, 4, 11, 14]
    monkeypatch.setattr(steps, "EVERY_STEP", True)
    assert fatal_points(taken, 4) == list(range(20))
