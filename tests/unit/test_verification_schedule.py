"""Which channels are verified when, and what becomes of the answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus_operator import sql, tallies
from bus_operator.inventory import Inventory, Resource
from bus_operator.probes import REFUSED, SUCCEEDED, Probe, Subject, Verdict, attempts, judge
from bus_operator.status import ready, timestamp
from bus_operator.verification_schedule import VerificationSchedule, condition

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
SUBJECT = Subject("orders", "bus_1", "bus_channel_1", "bus_2", "bus_channel_2", "admin", "app", True)
VERIFIED = Verdict(refused=3)
READ = Probe("read_peers", "read the positions of all peers", "select 1")


def channel(name: str, minutes: int | None = None, **status: Any) -> Resource:
    """One that was verified so many minutes ago."""
    verified = {"lastVerifiedTime": timestamp(NOW - timedelta(minutes=minutes))} if minutes is not None else {}
    metadata = {"namespace": "shop", "name": name, "uid": name}
    return Resource.from_body(
        {"kind": "BusChannel", "metadata": metadata, "status": {"credentialGeneration": 1} | verified | status}
    )


def with_condition(state: str, reason: str) -> Resource:
    return channel(
        "orders", conditions=[{"type": "IsolationVerified", "status": state, "reason": reason, "message": "m"}]
    )


def schedule(*channels: Resource, now: list[datetime] | None = None) -> VerificationSchedule:
    inventory = Inventory()
    for resource in channels:
        inventory.put(resource)
    times = now or [NOW]
    return VerificationSchedule(inventory, lambda kind, key: None, interval=3600, clock=lambda: times[0])


def names(made: VerificationSchedule) -> list[str]:
    return [name for _, name in made.whose_turn()]


def test_the_longest_ago_comes_first() -> None:
    assert names(schedule(channel("a", 61), channel("b", 90), channel("c", 59), channel("d", 60))) == ["b", "a", "d"]


def test_thousands_take_their_turn_in_parts() -> None:
    assert len(names(schedule(*(channel(f"c{n}", 100) for n in range(5000))))) == 30


def test_those_that_never_were_verified_come_before_all_others() -> None:
    some = [channel(f"new{n}") for n in range(1000)]
    assert all(name.startswith("new") for name in names(schedule(*some, channel("old", 100))))
    assert len(names(schedule(*some))) == 300


def test_a_channel_without_a_credential_has_no_turn() -> None:
    assert names(schedule(channel("a", credentialGeneration=None), channel("b"))) == ["a", "b"]
    without = Resource.from_body({"kind": "BusChannel", "metadata": {"namespace": "s", "name": "a", "uid": "a"}})
    assert names(schedule(without)) == []


def test_what_has_shown_nothing_is_tried_again_after_a_while() -> None:
    now = [NOW]
    one = channel("a", 100)
    made = schedule(one, now=now)
    made.done(one, Verdict(unclear="no connection left"))
    assert names(made) == []
    now[0] += timedelta(minutes=5)
    assert names(made) == ["a"]


def test_a_clock_that_was_set_back_puts_off_nothing() -> None:
    now = [NOW + timedelta(days=365)]
    tried, told = channel("tried", 100), channel("told", -365 * 24 * 60)
    made = schedule(tried, told, now=now)
    made.done(tried, Verdict(unclear="no connection left"))
    now[0] = NOW
    assert names(made) == ["tried", "told"]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [(VERIFIED, "verified"), (Verdict(unclear="busy"), "unclear"), (Verdict(succeeded=(READ,)), "failed")],
)
def test_what_came_of_it_is_counted(verdict: Verdict, outcome: str) -> None:
    def count() -> float:
        return tallies.REGISTRY.get_sample_value("pgmq_bus_verifications_total", {"outcome": outcome}) or 0.0

    before = count()
    schedule().done(channel("a"), verdict)
    assert count() == before + 1


def test_what_is_due_at_once() -> None:
    made = schedule()
    sound = with_condition("True", "Verified")
    assert not made.is_due(sound, 1)
    assert made.is_due(sound, 2)
    assert made.is_due(with_condition("False", "MayReadPeers"), 1)
    made.ask(sound.key)
    assert made.is_due(sound, 1)
    made.done(sound, VERIFIED)
    assert not made.is_due(sound, 1)


@pytest.mark.parametrize("verdict", [None, Verdict(unclear="too many connections")])
@pytest.mark.parametrize(("state", "reason"), [("True", "Verified"), ("False", "MayReadPeers")])
def test_what_was_found_out_stands(verdict: Verdict | None, state: str, reason: str) -> None:
    kept = condition(with_condition(state, reason), verdict)
    assert (kept.status, kept.reason, kept.message) == (state, reason, "m")


def test_before_the_first_verification_nobody_waits() -> None:
    unknown = condition(channel("a"), None)
    assert (unknown.status, unknown.reason) == ("Unknown", "NotVerifiedYet")
    assert ready([unknown]).status == "True"


def test_a_hole_makes_the_channel_not_ready() -> None:
    found = condition(channel("a"), Verdict(refused=2, succeeded=(READ,)))
    assert (found.status, found.reason) == ("False", "MayReadPeers")
    assert "could read the positions of all peers" in found.message
    assert ready([found]).reason == "MayReadPeers"


def test_answers() -> None:
    denied = (REFUSED, "permission denied")
    assert judge([READ, READ], [denied, denied], (SUCCEEDED, "")) == Verdict(refused=2)
    assert judge([READ], [(SUCCEEDED, "")], None).succeeded == (READ,)
    assert judge([READ], [denied], ("42501", "bus: access denied")).reason == "AllowedCallFailed"
    for passing in ("55P03", "54000", "57014", "53300"):
        assert judge([READ], [denied], (passing, "busy")).reason == "Unclear"
    odd = judge([READ], [("42P01", "relation does not exist")], (SUCCEEDED, ""))
    assert odd.reason == "Unclear"
    assert "cannot read the positions of all peers: relation does not exist (SQLSTATE 42P01)" in (odd.unclear or "")


def test_no_attempt_names_another_channel() -> None:
    """Whoever has the login may see what its sessions run, and another channel's name is not his to know."""
    assert {field for field in Subject.__dataclass_fields__ if field.startswith("other")} == {
        "other_queue",
        "other_role",
    }
    for probe in attempts(SUBJECT, "bus_login_1_g1"):
        assert "{{" not in probe.statement
        assert probe.title[0].islower()
    assert len(attempts(SUBJECT, "bus_login_1_g1")) == len(sql.denied_probes())
