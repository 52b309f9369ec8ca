"""Conditions: summary, transition times, generations."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bus_operator import status
from bus_operator.status import Condition

NOW = datetime(2026, 5, 4, 3, 2, 1, 999, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
GOOD = Condition.true("Reachable", "Connected", "connected")
BAD = Condition.false("Installed", "UnsupportedServer", "too old: use 15 or newer")
UNSURE = Condition.unknown("CredentialsCurrent", "Waiting", "the channel is not provisioned")


def test_times_are_utc_with_seconds() -> None:
    assert status.timestamp(NOW) == "2026-05-04T03:02:01Z"
    assert status.timestamp(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-05-04T03:02:01Z"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([GOOD], ("True", "Ready", "everything is in place")),
        ([GOOD, BAD, UNSURE], ("False", "UnsupportedServer", "too old: use 15 or newer")),
        ([UNSURE, BAD], ("False", "Waiting", "the channel is not provisioned")),
    ],
)
def test_ready_is_the_first_that_does_not_hold(conditions: list[Condition], expected: tuple[str, str, str]) -> None:
    ready = status.ready(conditions)
    assert (ready.type, ready.status, ready.reason, ready.message) == ("Ready", *expected)


def test_the_first_conditions() -> None:
    assert status.merge([], [GOOD, BAD], generation=3, now=NOW) == [
        {
            "type": "Reachable",
            "status": "True",
            "reason": "Connected",
            "message": "connected",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-05-04T03:02:01Z",
        },
        {
            "type": "Installed",
            "status": "False",
            "reason": "UnsupportedServer",
            "message": "too old: use 15 or newer",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-05-04T03:02:01Z",
        },
    ]


def test_what_a_server_says_commands_no_terminal() -> None:
    said = Condition.false("Reachable", "ConnectionFailed", "it says \x1b[2J\n, \x9b and ü")
    (merged,) = status.merge([], [said], generation=1, now=NOW)
    assert merged["message"] == r"it says \x1b[2J\n, \x9b and ü"


def test_the_transition_time_moves_with_the_status_alone() -> None:
    before = status.merge([], [GOOD, BAD], generation=1, now=NOW)
    other_reason = Condition.false("Installed", "InsufficientPrivilege", "no CREATEROLE")
    after = status.merge(before, [GOOD, other_reason], generation=2, now=LATER)
    assert [item["lastTransitionTime"] for item in after] == ["2026-05-04T03:02:01Z", "2026-05-04T03:02:01Z"]
    assert (after[1]["reason"], after[1]["observedGeneration"]) == ("InsufficientPrivilege", 2)
    turned = status.merge(after, [Condition.unknown("Reachable", "Waiting", ""), other_reason], generation=2, now=LATER)
    assert [item["lastTransitionTime"] for item in turned] == ["2026-05-04T04:02:01Z", "2026-05-04T03:02:01Z"]


def test_merging_what_did_not_change_changes_nothing() -> None:
    before = status.merge([], [GOOD, BAD], generation=1, now=NOW)
    assert status.merge(before, [GOOD, BAD], generation=1, now=LATER) == before


def test_conditions_of_others_and_malformed_ones_do_no_harm() -> None:
    before = [{"type": "Foreign", "status": "True"}, {"type": "Reachable", "status": "True"}, {}]
    merged = status.merge(before, [GOOD], generation=1, now=NOW)
    assert [(item["type"], item["lastTransitionTime"]) for item in merged] == [("Reachable", "2026-05-04T03:02:01Z")]


def test_a_message_fits_into_what_the_api_server_accepts() -> None:
    (merged,) = status.merge([], [Condition.false("Ready", "Long", "x" * 100_000)], generation=1, now=NOW)
    assert len(merged["message"]) <= 32_768


def test_find() -> None:
    merged = status.merge([], [GOOD, BAD], generation=1, now=NOW)
    assert status.find(merged, "Installed") == merged[1]
    assert status.find(merged, "Ready") is None
