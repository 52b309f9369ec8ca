"""Which channels need no look of their own, and what ends that; and what a watch of Secrets makes of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from virtual_time import run

from bus_operator.binding_watch import BindingWatch
from bus_operator.catalog import ObservedChannel
from bus_operator.errors import SecretError, TransientError
from bus_operator.inventory import Key, Resource
from bus_operator.kube import Kube
from bus_operator.kube_objects import BindingVersion
from bus_operator.ledger import Ledger

KEY = ("shop", "orders")
SEEN = ObservedChannel(
    id=1, name="shop.orders", queue="bus_1", role="bus_channel_1", owner_uid="uid-1", owner_reference="shop/orders@c",
    durability="Sync", self_delivery=True, max_peers=10, max_message_bytes=1024, max_connections=10,
    peer_timeout=timedelta(minutes=10), max_age=None, max_messages=None, max_bytes=None, log_exists=True,
    log_unlogged=False, role_exists=True, role_is_client=True, installed_fingerprint="a:b", actual_fingerprint="b",
    observed_at=datetime(2026, 1, 1, tzinfo=UTC), logins=(),
)  # fmt: skip


def resource(**changes: Any) -> Resource:
    metadata = {"namespace": "shop", "name": "orders", "uid": "uid-1", "generation": 1, "resourceVersion": "5"}
    return Resource.from_body({"kind": "BusChannel", "metadata": metadata | changes, "spec": {}, "status": {}})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    made = Ledger(clock)
    made.note(resource(), SEEN, secret="orders-bus", secret_version="7", look_again=100)
    return made


def test_what_looks_as_it_did_is_right_whenever_that_is_seen(ledger: Ledger) -> None:
    assert ledger.agrees(resource(resourceVersion="9"), SEEN)
    assert ledger.agrees(resource(), replace(SEEN, observed_at=datetime(2026, 1, 2, tzinfo=UTC)))


@pytest.mark.parametrize(
    "changes",
    [{"generation": 2}, {"uid": "uid-2"}, {"name": "another"}, {"annotations": {"pgmqbus.dev/rotate": "now"}}],
)
def test_another_manifest_is_not(ledger: Ledger, changes: dict[str, Any]) -> None:
    assert not ledger.agrees(resource(**changes), SEEN)


@pytest.mark.parametrize("changes", [{"max_peers": 11}, {"role_exists": False}, {"owner_uid": None}])
def test_nor_is_what_was_changed_in_the_database(ledger: Ledger, changes: dict[str, Any]) -> None:
    assert not ledger.agrees(resource(), replace(SEEN, **changes))


def test_nor_what_is_due_or_was_asked_for(ledger: Ledger, clock: Clock) -> None:
    clock.now = 100
    assert not ledger.agrees(resource(), SEEN)
    clock.now = 0
    ledger.forget(KEY)
    assert not ledger.is_settled(KEY)
    assert not ledger.agrees(resource(), SEEN)


def test_what_is_not_at_rest_is_not_settled_but_its_secret_is_known(ledger: Ledger) -> None:
    ledger.note(resource(), None, secret="orders-bus", secret_version="8")
    assert ledger.holds(KEY)
    assert not ledger.is_settled(KEY)
    assert not ledger.agrees(resource(), SEEN)
    assert ledger.holds_secret(KEY, "orders-bus", "8")
    assert not ledger.holds_secret(KEY, "orders-bus", "9")


class Secrets:
    """The API server's part: what a test says happens to the Secrets of a namespace."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[BindingVersion | Exception] = asyncio.Queue()

    async def watch_bindings(self, _: str) -> AsyncIterator[BindingVersion]:
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
async def watch(secrets: Secrets, woken: list[Key], clock: Clock) -> AsyncIterator[tuple[BindingWatch, Ledger]]:
    ledger = Ledger(clock)
    ledger.note(resource(), SEEN, secret="orders-bus", secret_version="7")
    made = BindingWatch(cast(Kube, secrets), ledger, woken.append)
    made.cover("shop")
    yield made, ledger
    made.stop()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def version(number: str, *, name: str = "orders-bus", deleted: bool = False) -> BindingVersion:
    return BindingVersion(name, "orders", number, deleted)


async def test_an_edit_and_a_deletion_wake_the_channel_and_its_own_writes_do_not(
    watch: tuple[BindingWatch, Ledger], secrets: Secrets, woken: list[Key]
) -> None:
    bindings, _ = watch
    assert not bindings.covers("shop")
    secrets.events.put_nowait(version("6"))
    secrets.events.put_nowait(version("7"))
    secrets.events.put_nowait(version("99", name="of-somebody-with-our-label"))
    await settle()
    assert woken == []
    assert bindings.covers("shop")
    secrets.events.put_nowait(version("8"))
    await settle()
    assert woken == [KEY]
    assert bindings.is_outdated("shop", "orders-bus", "7")
    assert not bindings.is_outdated("shop", "orders-bus", "8")
    secrets.events.put_nowait(version("8", deleted=True))
    await settle()
    assert woken == [KEY, KEY]


@pytest.mark.parametrize("deleted", [False, True])
async def test_what_happens_during_a_look_is_known_at_its_end(
    watch: tuple[BindingWatch, Ledger], secrets: Secrets, woken: list[Key], deleted: bool
) -> None:
    bindings, ledger = watch
    secrets.events.put_nowait(version("7"))
    await settle()
    ledger.forget(KEY)
    secrets.events.put_nowait(version("8", deleted=deleted))
    await settle()
    assert woken == []
    assert bindings.is_outdated("shop", "orders-bus", "7")
    # Made anew, by whoever looked.
    assert not bindings.is_outdated("shop", "orders-bus", "9")


async def test_a_watch_that_fails_covers_nothing(watch: tuple[BindingWatch, Ledger], secrets: Secrets) -> None:
    bindings, _ = watch
    secrets.events.put_nowait(version("7"))
    await settle()
    assert bindings.covers("shop")
    secrets.events.put_nowait(SecretError("the operator may not use Secrets in namespace shop"))
    await settle()
    assert not bindings.covers("shop")


def test_a_watch_that_broke_is_soon_back() -> None:
    """Unlike one that was refused: that takes somebody who grants the right to it."""

    async def seconds_after(failure: Exception) -> float:
        secrets, ledger = Secrets(), Ledger(Clock())
        ledger.note(resource(), SEEN, secret="orders-bus", secret_version="7")
        bindings = BindingWatch(cast(Kube, secrets), ledger, lambda _: None)
        bindings.cover("shop")
        for event in (version("7"), failure, version("7")):
            secrets.events.put_nowait(event)
        await settle()
        assert not bindings.covers("shop")
        begun = asyncio.get_running_loop().time()
        while not bindings.covers("shop"):
            await asyncio.sleep(0.1)
        bindings.stop()
        return asyncio.get_running_loop().time() - begun

    assert run(seconds_after(TransientError("the API server went away"))) < 5
    assert run(seconds_after(SecretError("the operator may not use Secrets in namespace shop"))) > 20


async def test_what_was_deleted_while_nobody_watched_is_noticed(
    watch: tuple[BindingWatch, Ledger], secrets: Secrets, woken: list[Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus_operator.binding_watch.ALL_SEEN", 0.0)
    secrets.events.put_nowait(version("3", name="another"))
    for _ in range(1000):
        await asyncio.sleep(0)
        if woken:
            break
    assert woken == [KEY]
