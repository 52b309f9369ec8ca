"""Which way of waking is in use when, and what the server is told of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from recorder import eventually

from bus_runtime import AccessDeniedError, UnavailableError
from bus_runtime import waking as module
from bus_runtime.waking import PollWaker, Waking

ADDRESS = "10.0.0.1:4711"


class FakeListener:
    """Listens at once, unless the test says otherwise."""

    works = True

    def __init__(
        self, connect: object, name: str, *, notify: object, wake: Callable[[], None], on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self.wake = wake
        self._on_change = on_change
        self.listening = self.deaf = self.closed = False
        self.suspicions = 0

    def start(self) -> None:
        asyncio.get_running_loop().call_soon(self.become, type(self).works)

    def become(self, listening: bool) -> None:
        self.listening, self.deaf = listening, not listening
        self._on_change()

    def lose(self) -> None:
        self.listening = False
        self._on_change()

    def suspect(self) -> None:
        self.suspicions += 1

    async def close(self) -> None:
        self.listening, self.closed = False, True


class Scene:
    """A peer's waking, and what it does to its surroundings."""

    spares_a_connection = True
    connection = None
    address = ADDRESS

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.renewals = 0
        self.on_renewed: set[Callable[[], None]] = set()
        self.told: list[tuple[str | None, bool]] = []
        self.failures: list[Exception] = []
        self.wakes: list[int | None] = []
        self.offers: list[tuple[int, list[bytes | None]]] = []
        self.listeners: list[FakeListener] = []
        scene = self

        class Listener(FakeListener):
            works = True

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                scene.listeners.append(self)

        self.listener_class = Listener
        monkeypatch.setattr(module, "Listener", Listener)
        monkeypatch.setattr(module, "_SETTLING", 0.01)

    async def start(self, *, doorbell: bool = True) -> None:
        stand_in: Any = self
        self.waking = Waking(
            stand_in if doorbell else None,
            stand_in,
            "name-1",
            notify=self.notify,
            wake_by=self.wake_by,
            clock=lambda: self.now,
        )
        await self.waking.start(self.wake, self.offer)

    async def notify(self) -> None:
        raise AssertionError("only the listener notifies")

    async def wake_by(self, address: str | None, listens: bool) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.told.append((address, listens))

    def wake(self, up_to: int | None = None) -> None:
        self.wakes.append(up_to)

    def offer(self, first_id: int, payloads: Sequence[bytes | None]) -> None:
        self.offers.append((first_id, list(payloads)))

    @property
    def listening(self) -> bool:
        return any(listener.listening for listener in self.listeners)

    def prove(self) -> None:
        """Doorbells ring for long enough to be relied on again."""
        for msg_id in range(1, 200):
            self.now += 1
            self.waking.rang(msg_id, 1, None)

    def update(self, *, wake: str = "name-1", foreign: bool = False, watches: bool = False, peers: int = 2) -> None:
        self.waking.update(wake=wake, foreign=foreign, watches=watches, peers=peers)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    scene = Scene(monkeypatch)
    yield scene
    await scene.waking.close()
    assert not scene.listening


async def test_doorbells_need_neither_listening_nor_telling(scene: Scene) -> None:
    await scene.start()
    assert scene.waking.mode == "doorbell"
    scene.waking.rang(7, 2, None)
    scene.waking.rang(9, 1, [b"{}"])
    scene.waking.published(10, [None])
    scene.waking.knocked()
    await asyncio.sleep(0)
    assert scene.wakes == [8, None]
    assert scene.offers == [(9, [b"{}"]), (10, [None])]
    assert scene.listeners == []
    assert scene.told == []


async def test_without_a_doorbell_it_listens_and_says_so(scene: Scene) -> None:
    await scene.start(doorbell=False)
    await eventually(lambda: scene.told)
    assert scene.told == [(None, True)]
    assert scene.waking.mode == "listen"
    scene.listeners[0].wake()
    assert scene.wakes[-1] is None


async def test_without_either_it_polls(scene: Scene) -> None:
    scene.spares_a_connection = False
    await scene.start(doorbell=False)
    for _ in range(5):
        await asyncio.sleep(0)
    assert scene.waking.mode == "poll"
    scene.waking.overlooked()
    assert scene.told == []
    assert scene.listeners == []


async def test_where_listening_does_not_work_the_server_is_not_asked_to_notify(scene: Scene) -> None:
    scene.listener_class.works = False
    await scene.start(doorbell=False)
    await eventually(lambda: scene.listeners and scene.listeners[0].deaf)
    for _ in range(5):
        await asyncio.sleep(0)
    assert scene.waking.mode == "poll"
    assert scene.told == []


async def test_doorbells_that_do_not_arrive_are_replaced_by_listening_until_they_do(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await scene.start()
    scene.waking.overlooked()
    assert scene.waking.mode == "poll"
    await eventually(lambda: scene.told == [(ADDRESS, True)])
    assert scene.waking.mode == "listen"
    assert scene.wakes, "the reader looks at once"
    await eventually(lambda: "noticed by listen" in caplog.text)
    scene.prove()
    assert scene.waking.mode == "doorbell"
    await eventually(lambda: scene.told == [(ADDRESS, True), (ADDRESS, False)])
    await eventually(lambda: scene.listeners[0].closed)
    await eventually(lambda: "noticed by doorbell" in caplog.text)
    assert len(caplog.records) == 2


async def test_what_listening_overlooks_makes_it_doubtful(scene: Scene) -> None:
    await scene.start(doorbell=False)
    await eventually(lambda: scene.waking.mode == "listen")
    scene.waking.overlooked()
    assert scene.listeners[0].suspicions == 1
    scene.listeners[0].become(False)
    assert scene.waking.mode == "poll"
    await eventually(lambda: scene.told == [(None, True), (None, False)])
    scene.listeners[0].become(True)
    await eventually(lambda: len(scene.told) == 3)


async def test_a_lost_connection_is_no_news_for_the_server(scene: Scene) -> None:
    await scene.start(doorbell=False)
    await eventually(lambda: scene.told)
    before = len(scene.wakes)
    scene.listeners[0].lose()
    assert scene.waking.mode == "poll"
    assert len(scene.wakes) == before + 1
    for _ in range(5):
        await asyncio.sleep(0)
    scene.listeners[0].become(True)
    assert scene.waking.mode == "listen"
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(scene.told) == 1


async def test_who_watches_listens_besides(scene: Scene) -> None:
    await scene.start()
    scene.update(watches=True, foreign=True)
    assert scene.waking.mode == "poll", "not yet"
    await eventually(lambda: scene.waking.mode == "doorbell")
    assert scene.listening
    scene.update(foreign=True)
    await eventually(lambda: scene.listeners[0].closed)
    assert scene.waking.mode == "doorbell"
    assert scene.told == []


async def test_who_cannot_listen_polls_while_somebody_rings_nobody(scene: Scene) -> None:
    scene.spares_a_connection = False
    await scene.start()
    scene.update(watches=True)
    assert scene.waking.mode == "doorbell"
    scene.update(watches=True, foreign=True)
    assert scene.waking.mode == "poll"
    scene.waking.overlooked()
    scene.update(watches=True)
    assert scene.waking.mode == "doorbell", "it was not the doorbells' fault"


async def test_who_watches_relays_while_somebody_may_ring_nobody(scene: Scene) -> None:
    await scene.start()
    scene.update(foreign=True)
    assert not scene.waking.relays, "another one does"
    scene.update(watches=True, foreign=True)
    assert scene.waking.relays
    scene.update(watches=True)
    assert not scene.waking.relays
    await eventually(lambda: scene.listening)
    scene.listeners[0].wake()
    assert scene.waking.relays, "the roster will tell who notified"
    scene.now += 5
    assert not scene.waking.relays


async def test_a_new_name_is_listened_to(scene: Scene) -> None:
    await scene.start(doorbell=False)
    await eventually(lambda: scene.told)
    scene.update(wake="name-2")
    await eventually(lambda: len(scene.listeners) == 2 and scene.waking.mode == "listen")
    assert scene.listeners[0].closed
    assert scene.listeners[1].name == "name-2"
    assert len(scene.told) == 1


async def test_new_credentials_are_listened_with(scene: Scene) -> None:
    await scene.start(doorbell=False)
    await eventually(lambda: scene.told)
    scene.renewals += 1
    for tell in scene.on_renewed:
        tell()
    await eventually(lambda: len(scene.listeners) == 2)
    assert scene.listeners[0].closed
    assert not scene.listeners[1].closed
    await eventually(lambda: scene.waking.mode == "listen")
    assert scene.told == [(None, True)], "nothing that the server must know has changed"
    await scene.waking.close()
    assert not scene.on_renewed


async def test_the_audience_is_never_nobody(scene: Scene) -> None:
    await scene.start()
    assert scene.waking.audience == 1
    scene.update(peers=17)
    assert scene.waking.audience == 17
    scene.update(peers=0)
    assert scene.waking.audience == 1


async def test_telling_is_tried_again(scene: Scene) -> None:
    scene.failures = [UnavailableError("away"), UnavailableError("away")]
    await scene.start(doorbell=False)
    await eventually(lambda: scene.told == [(None, True)])


async def test_a_membership_that_is_over_tells_nothing_more(scene: Scene) -> None:
    scene.failures = [AccessDeniedError("gone")]
    await scene.start(doorbell=False)
    await eventually(lambda: not scene.failures)
    for _ in range(5):
        await asyncio.sleep(0)
    assert scene.told == []


async def test_nothing_is_passed_on_after_closing(scene: Scene) -> None:
    await scene.start()
    await scene.waking.close()
    scene.waking.rang(1, 1, None)
    scene.waking.rang(1, 1, [b"{}"])
    scene.waking.published(1, [b"{}"])
    scene.waking.overlooked()
    assert scene.wakes == []
    assert scene.offers == []


async def test_a_waker_that_only_polls() -> None:
    waker = PollWaker()
    await waker.start(lambda up_to=None: None, lambda first_id, payloads: None)
    waker.overlooked()
    await waker.close()
    assert (waker.mode, waker.audience) == ("poll", 1)
