"""Who is told of a publish: the peers that are known at once, newcomers as soon as they are, listeners together."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest
from log_reader import settle
from recorder import eventually

from bus_runtime import AccessDeniedError, ConnectionLostError, TransientError, UnavailableError
from bus_runtime import announcer as module
from bus_runtime.announcer import Announcer, Roster

KEY = b"k" * 32


class FakeDoorbell:
    """Notes what is rung, and at which addresses."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.key: bytes | None = None
        self.rings: list[tuple[tuple[str, ...], int, int, list[bytes] | None]] = []

    def set_roster(self, key: bytes, addresses: Iterable[str]) -> None:
        self.key, self.addresses = key, tuple(addresses)

    def ring(self, first_id: int, count: int, payloads: Sequence[bytes] | None = None) -> None:
        self.rings.append((self.addresses, first_id, count, None if payloads is None else list(payloads)))


def roster(version: int, *addresses: str, **changes: Any) -> Roster:
    defaults: dict[str, Any] = {
        "version": version,
        "key": KEY,
        "wake": "w",
        "peers": len(addresses) + 1,
        "foreign": False,
        "watches": False,
        "listeners": False,
        "addresses": addresses,
    }
    return Roster(**(defaults | changes))


class Scene:
    """A server with a roster, and an announcer that asks it."""

    def __init__(self, *, doorbell: bool = True) -> None:
        self.roster = roster(1, "a:1")
        self.failures: list[Exception] = []
        self.looks: list[float] = []
        self.looking = asyncio.Event()
        self.looking.set()
        self.notifications = 0
        self.notified = 0
        self.notifying = asyncio.Event()
        self.notifying.set()
        self.notify_failures: list[Exception] = []
        self.rosters: list[Roster] = []
        self.doorbell = FakeDoorbell()
        self.announcer = Announcer(
            self.fetch,
            self.notify,
            self.doorbell if doorbell else None,  # type: ignore[arg-type]
            self.rosters.append,
        )

    async def fetch(self) -> Roster:
        self.looks.append(time.monotonic())
        answer = self.roster
        if self.failures:
            raise self.failures.pop(0)
        await self.looking.wait()
        return answer

    async def notify(self) -> None:
        self.notifications += 1
        await self.notifying.wait()
        if self.notify_failures:
            raise self.notify_failures.pop(0)
        self.notified += 1

    async def know(self) -> None:
        """Let it learn the present roster."""
        self.announcer.refresh()
        await eventually(lambda: self.rosters and self.rosters[-1] is self.roster)

    def announce(self, first_id: int, *payloads: bytes, version: int = 1) -> None:
        self.announcer.announce(first_id, payloads or [b"{}"], version)

    @property
    def rang(self) -> list[tuple[str, int, int]]:
        """Each address that was rung, and for which ids."""
        return [
            (address, first_id, first_id + count - 1)
            for addresses, first_id, count, _ in self.doorbell.rings
            for address in addresses
        ]


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(module, "_REFRESH_INTERVAL", 0.01)
    made = Scene()
    yield made
    await made.announcer.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("bus_")]


# --- rings ---


async def test_known_peers_are_rung_at_once_and_nobody_is_looked_up(scene: Scene) -> None:
    await scene.know()
    scene.announce(7, b"1", b"2")
    assert scene.doorbell.rings == [(("a:1",), 7, 2, [b"1", b"2"])]
    assert scene.doorbell.key == KEY
    await settle()
    assert len(scene.looks) == 1
    assert scene.notifications == 0


async def test_a_lone_peer_rings_nobody(scene: Scene) -> None:
    scene.roster = roster(1)
    await scene.know()
    scene.announce(7)
    assert scene.doorbell.rings == []


async def test_newcomers_are_rung_once_they_are_known(scene: Scene) -> None:
    await scene.know()
    scene.roster = roster(2, "a:1", "b:1")
    scene.announce(7, b"1", b"2", version=2)
    assert scene.rang == [("a:1", 7, 8)]
    await eventually(lambda: ("b:1", 7, 8) in scene.rang)
    assert scene.doorbell.rings[-1][3] is None, "ids are enough: most have the messages already"
    scene.announce(9, version=2)
    assert [ring for ring in scene.rang if ring[0] == "b:1"] == [("b:1", 7, 8), ("b:1", 9, 9)]
    assert len(scene.looks) == 2
    # That is done with: whoever comes later begins later.
    scene.roster = roster(3, "a:1", "b:1", "c:1")
    rung = len(scene.rang)
    await scene.know()
    assert len(scene.rang) == rung


async def test_the_first_publish_is_announced_as_soon_as_the_roster_is_there(scene: Scene) -> None:
    scene.announce(1)
    scene.announce(2)
    assert scene.rang == []
    await eventually(lambda: scene.rang)
    assert scene.rang == [("a:1", 1, 2)]
    assert len(scene.looks) == 1


async def test_many_publishes_meanwhile_are_one_look(scene: Scene) -> None:
    await scene.know()
    scene.roster = roster(5, "a:1", "b:1")
    scene.looking.clear()
    for first_id in range(10, 110):
        scene.announce(first_id, version=5)
        scene.announcer.learn(5)
        scene.announcer.refresh()
    await eventually(lambda: len(scene.looks) == 2)
    scene.looking.set()
    await eventually(lambda: ("b:1", 10, 109) in scene.rang)
    await settle()
    assert len(scene.looks) == 2


async def test_who_joins_while_the_roster_is_on_its_way_is_rung_as_well(scene: Scene) -> None:
    await scene.know()
    scene.roster = roster(2, "a:1", "b:1")
    scene.looking.clear()
    scene.announce(7, version=2)
    await eventually(lambda: len(scene.looks) == 2)
    # The answer with version 2 is under way when c joins, and the next message is committed.
    scene.roster = roster(3, "a:1", "b:1", "c:1")
    scene.announce(8, version=3)
    scene.looking.set()
    await eventually(lambda: ("c:1", 7, 8) in scene.rang)
    assert ("b:1", 7, 8) in scene.rang
    await settle()
    scene.announce(9, version=3)
    assert scene.rang[-3:] == [("a:1", 9, 9), ("b:1", 9, 9), ("c:1", 9, 9)]
    assert len(scene.looks) == 3


async def test_an_outdated_version_is_no_reason_to_look(scene: Scene) -> None:
    scene.roster = roster(5, "a:1")
    await scene.know()
    scene.announcer.learn(4)
    scene.announcer.learn(5)
    scene.announce(7, version=4)
    await settle()
    assert len(scene.looks) == 1
    # Answers may overtake each other.
    scene.looking.clear()
    scene.roster = roster(6, "a:1")
    scene.announcer.learn(7)
    scene.announcer.learn(6)
    await eventually(lambda: len(scene.looks) == 2)
    scene.roster = roster(7, "a:1")
    scene.looking.set()
    await eventually(lambda: scene.rosters[-1].version == 7)


async def test_looks_are_some_time_apart(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_INTERVAL", 0.05)
    scene.roster = roster(1, "a:1", peers=10**9)
    await scene.know()
    for version in range(2, 5):
        scene.roster = roster(version, "a:1", peers=10**9)
        scene.announce(version, version=version)
        await eventually(lambda version=version: len(scene.looks) == version)
    assert scene.looks[-1] - scene.looks[0] >= 3 * 0.05 * 0.99


async def test_looks_at_a_small_roster_may_follow_each_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_INTERVAL", 60.0)
    await scene.know()
    scene.roster = roster(2, "b:1")
    scene.announce(7, version=2)
    await eventually(lambda: ("b:1", 7, 7) in scene.rang)


async def test_each_roster_is_told(scene: Scene) -> None:
    scene.roster = roster(1, peers=0)
    await scene.know()
    scene.roster = roster(2, "b:1", peers=17)
    scene.announcer.learn(2)
    await eventually(lambda: len(scene.rosters) == 2)


async def test_what_joining_told_is_used_at_once_and_the_rest_is_looked_at_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_LEISURE", 3600.0)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    scene.announcer.begin(KEY, 1_000_000, foreign=False)
    assert scene.doorbell is not None
    assert scene.doorbell.addresses == ()
    scene.announcer.learn(7)
    await asyncio.sleep(0)
    assert scene.looks == [], "nothing depends on it yet"
    scene.announce(1)
    await eventually(lambda: len(scene.looks) == 1)


async def test_where_somebody_speaks_the_reference_protocol_joining_is_followed_by_a_look(scene: Scene) -> None:
    scene.announcer.begin(KEY, 1, foreign=True)
    await eventually(lambda: len(scene.looks) == 1)


async def test_a_change_is_looked_at_sooner_than_what_joining_left_for_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_LEISURE", 3600.0)
    scene.announcer.begin(KEY, 1, foreign=False)
    await asyncio.sleep(0.05)
    assert scene.looks == []
    scene.announcer.learn(2)
    await eventually(lambda: len(scene.looks) == 1)


async def test_without_a_doorbell_the_others_are_notified_all_the_same() -> None:
    scene = Scene(doorbell=False)
    scene.roster = roster(1, "a:1", listeners=True)
    scene.announce(1)
    await eventually(lambda: scene.notified == 1)
    scene.announce(2)
    await eventually(lambda: scene.notified == 2)
    await scene.announcer.close()
    assert scene.doorbell.rings == []


# --- looks that fail ---


async def test_a_look_that_fails_is_repeated_ever_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing()
    monkeypatch.setattr(module.Backoff, "next_delay", growing.next_delay)
    monkeypatch.setattr(module.Backoff, "reset", growing.reset)
    scene.failures = [UnavailableError("down"), TransientError("busy"), UnavailableError("down")]
    scene.announce(7, version=1)
    await eventually(lambda: scene.rang == [("a:1", 7, 7)])
    assert len(scene.looks) == 4
    assert growing.calls == 3
    assert growing.resets == 1
    assert scene.looks[-1] - scene.looks[0] >= (0.01 + 0.02 + 0.03) * 0.99


class Growing:
    """A backoff whose delays the test knows."""

    def __init__(self) -> None:
        self.calls = self.resets = 0

    def next_delay(self) -> float:
        self.calls += 1
        return self.calls * 0.01

    def reset(self) -> None:
        self.resets += 1


@pytest.mark.parametrize(
    "error",
    [AccessDeniedError("bus: access denied", sqlstate="42501"), ConnectionLostError("connection lost")],
    ids=["refused", "lost"],
)
async def test_what_is_not_worth_repeating_waits_for_the_servers_next_answer(
    scene: Scene, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough to see that it does wait.
    monkeypatch.setattr(module, "_LEISURE_PER_PEER", 0.2)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    await scene.know()
    scene.roster = roster(2, "a:1", "b:1")
    scene.failures = [error]
    scene.announce(7, version=2)
    await eventually(lambda: not scene.failures)
    await eventually(lambda: scene.announcer._refreshing is None)
    await settle()
    assert len(scene.looks) == 2
    assert scene.rang == [("a:1", 7, 7)]
    # The version it names is the same, and still not known here.
    scene.announcer.learn(2)
    await eventually(lambda: ("b:1", 7, 7) in scene.rang)


async def test_failing_looks_are_some_time_apart_whatever_asks_for_them(scene: Scene) -> None:
    scene.failures = [AccessDeniedError("bus: access denied", sqlstate="42501") for _ in range(3)]

    async def keep_publishing() -> None:
        while True:
            scene.announce(1)
            await asyncio.sleep(0)

    publishing = asyncio.create_task(keep_publishing())
    await eventually(lambda: len(scene.looks) == 4)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    # Half of what backing off comes to.
    assert scene.looks[-1] - scene.looks[0] >= 3 * 0.005 * 0.99


# --- notifications ---


async def test_listeners_are_notified_once_for_all_that_comes_meanwhile(scene: Scene) -> None:
    scene.roster = roster(1, "a:1", listeners=True)
    await scene.know()
    scene.notifying.clear()
    for first_id in range(1, 101):
        scene.announce(first_id)
        await asyncio.sleep(0)
    assert scene.notifications == 1
    scene.notifying.set()
    await eventually(lambda: scene.notified == 2)
    await settle()
    assert scene.notifications == 2
    scene.announce(101)
    await eventually(lambda: scene.notified == 3)


async def test_listeners_that_are_new_are_notified_once_they_are_known(scene: Scene) -> None:
    await scene.know()
    scene.roster = roster(2, "a:1", listeners=True)
    scene.announce(7, version=2)
    await eventually(lambda: scene.notified == 1)
    await settle()
    assert scene.notifications == 1


async def test_a_roster_alone_notifies_nobody(scene: Scene) -> None:
    scene.roster = roster(1, "a:1", listeners=True)
    await scene.know()
    await settle()
    assert scene.notifications == 0
    assert scene.doorbell.rings == []


async def test_a_notification_that_fails_does_not_keep_the_next_from_going_out(scene: Scene) -> None:
    scene.roster = roster(1, listeners=True)
    await scene.know()
    scene.notify_failures = [UnavailableError("down"), ConnectionLostError("lost")]
    for expected in (1, 2, 3):
        scene.announce(expected)
        await eventually(lambda expected=expected: scene.notifications == expected)
        await settle()
    assert scene.notified == 1


# --- the end ---


async def test_closing_gives_up_what_is_under_way(scene: Scene) -> None:
    scene.roster = roster(1, listeners=True)
    await scene.know()
    scene.notifying.clear()
    scene.looking.clear()
    scene.announce(1)
    scene.announce(2)
    scene.announce(3, version=2)
    await eventually(lambda: scene.notifications == 1 and len(scene.looks) == 2)
    await scene.announcer.close()
    scene.announce(4)
    scene.announce(5, version=3)
    scene.announcer.refresh()
    await settle()
    assert (scene.notifications, scene.notified, len(scene.looks)) == (1, 0, 2)
    assert len(scene.rosters) == 1
    await scene.announcer.close()


async def test_closing_at_once_is_in_time(scene: Scene) -> None:
    scene.announce(1)
    await scene.announcer.close()
    assert scene.looks == []


async def test_closing_ends_the_wait_for_the_next_look(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Backoff, "next_delay", lambda _: 600.0)
    scene.failures = [UnavailableError("down")]
    scene.announce(1)
    await eventually(lambda: not scene.failures)
    await asyncio.wait_for(scene.announcer.close(), 5)
    assert len(scene.looks) == 1


def test_a_roster_does_not_show_its_secrets() -> None:
    text = repr(roster(1, "a:1", key=b"hush" * 8, wake="hush"))
    assert "hush" not in text
