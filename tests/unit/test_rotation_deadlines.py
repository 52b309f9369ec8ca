"""Whose rotation is overdue: by what was noted at the last look, and by what the status says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus_operator.inventory import Inventory, Resource
from bus_operator.rotation_deadlines import RotationDeadlines

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = ("shop", "orders")


class World:
    """One BusChannel, and clocks that a test turns."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.inventory = Inventory()
        self.deadlines = RotationDeadlines(
            self.inventory, lambda: 1000 + self.passed, lambda: NOW + timedelta(seconds=self.passed)
        )
        self.put()

    def put(self, status: str = "True", reason: str = "Current", since: datetime = NOW, **more: Any) -> None:
        """The channel, with this condition CredentialsCurrent."""
        transition = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "CredentialsCurrent", "status": status, "reason": reason, "lastTransitionTime": transition}
        fields = {"conditions": [condition], "credentialGeneration": 1} | more
        metadata = {"namespace": KEY[0], "name": KEY[1], "uid": "uid"}
        body = {"kind": "BusChannel", "metadata": metadata, "spec": {}, "status": fields}
        self.inventory.put(Resource.from_body(body))

    @property
    def overdue(self) -> dict[tuple[str, str], float]:
        return {resource.key: seconds for resource, seconds in self.deadlines.overdue()}


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_expected(world: World) -> None:
    world.passed = 1e9
    assert world.overdue == {}


def test_the_time_has_come_and_nobody_looks(world: World) -> None:
    world.deadlines.note(KEY, 60)
    world.passed = 60
    assert world.overdue == {}
    world.passed = 90
    assert world.overdue == {KEY: 30}
    # It was looked at, and the step was taken.
    world.deadlines.note(KEY, 3600)
    assert world.overdue == {}
    world.deadlines.note(KEY, None)
    world.passed = 1e9
    assert world.overdue == {}


def test_what_was_overdue_when_it_was_seen_first(world: World) -> None:
    """By another leader's doing, or after the operator was away."""
    world.deadlines.note(KEY, -7200)
    assert world.overdue == {KEY: 7200}


def test_it_is_gone(world: World) -> None:
    world.deadlines.note(KEY, 0)
    world.passed = 5
    world.inventory.remove(world.inventory.channels[KEY])
    assert world.overdue == {}


@pytest.mark.parametrize("reason", ["VerificationFailed", "SecretContested"])
def test_a_credential_that_cannot_be_published(world: World, reason: str) -> None:
    """Of this the status knows, whoever leads."""
    world.put("False", reason, since=NOW - timedelta(minutes=40))
    assert world.overdue == {KEY: 2400}
    world.deadlines.note(KEY, -3600)
    assert world.overdue == {KEY: 3600}, "the longer one counts"


@pytest.mark.parametrize(
    ("status", "reason", "more"),
    [
        ("False", "SecretAccessDenied", {}),
        ("Unknown", "Waiting", {}),
        ("True", "Rotating", {}),
        ("False", "VerificationFailed", {"credentialGeneration": None}),
    ],
    ids=["not of the rotation", "not looked at", "as it should be", "its first credential"],
)
def test_other_conditions(world: World, status: str, reason: str, more: dict[str, Any]) -> None:
    world.put(status, reason, since=NOW - timedelta(hours=5), **more)
    assert world.overdue == {}
