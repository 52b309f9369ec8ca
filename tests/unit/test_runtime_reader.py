"""The reader's calls: cursor, acknowledgement, heartbeat, outages. Scripted where a fault must be exact."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from recorder import eventually

from bus_runtime import (
    AccessDeniedError,
    BackendError,
    JoinOptions,
    LogRecord,
    PeerRefusedError,
    UnavailableError,
    Waker,
)
from bus_runtime.reader import LogReader, ReaderSettings
from bus_runtime.session import Session
from bus_runtime.stats import Counters
from bus_runtime.testing import InMemoryBackend, InMemoryBroker
from bus_runtime.waking import PollWaker


class Scripted(InMemoryBackend):
    """Records reads and fails them as told; wakes nobody, so that the reader's own timing shows."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__(broker)
        self.reads: list[tuple[int, int | None, int]] = []
        self.failures: list[BaseException] = []
        self.answers: list[list[LogRecord]] = []

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, visibility_timeout: int, limit: int
    ) -> list[LogRecord]:
        self.reads.append((after, acknowledge, limit))
        if self.failures:
            raise self.failures.pop(0)
        records = await super().read_after(
            channel, queue, after=after, acknowledge=acknowledge, visibility_timeout=visibility_timeout, limit=limit
        )
        return self.answers.pop(0) if self.answers else records

    def waker(self, membership: object) -> Waker:
        return PollWaker()


class Harness:
    """A reader whose messages are handled when the test says so."""

    def __init__(self, **settings: float) -> None:
        self.broker = InMemoryBroker()
        self.backend = Scripted(self.broker)
        self.options = JoinOptions()
        self.settings = ReaderSettings(**({"poll_interval": 0.002, "max_poll": 0.01} | settings))  # type: ignore[arg-type]
        self.received: list[int] = []
        self.lost: list[int] = []
        self.handled: dict[int, Callable[[], None]] = {}
        self.counters = Counters()

    async def start(self) -> None:
        self.session = Session(self.backend, "orders", self.options)
        await self.session.join(0)
        self.reader = LogReader(
            self.backend,
            self.session,
            self.settings,
            receive=self.receive,
            on_lost=self.lost.append,
            counters=self.counters,
        )
        self.task = asyncio.create_task(self.reader.run())

    def receive(self, msg_id: int, payload: bytes, handled: Callable[[], None]) -> None:
        self.received.append(msg_id)
        self.handled[msg_id] = handled

    async def publish(self, count: int) -> None:
        await self.backend.publish_many("orders", self.session.membership.queue, [b"{}"] * count)

    async def stop(self) -> None:
        self.reader.stop()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.reader.close(acknowledge=True)


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_batches_follow_each_other_without_waiting() -> None:
    harness = Harness(batch_size=10, poll_interval=30.0, max_poll=30.0)
    await harness.start()
    await harness.publish(35)
    harness.backend.reads.clear()
    await eventually(lambda: len(harness.received) == 35)
    assert harness.received == list(range(1, 36))
    await harness.stop()


async def test_a_batch_of_nothing_but_own_messages_is_followed_by_another_read() -> None:
    harness = Harness(poll_interval=30.0, max_poll=30.0)
    # The server left out ten own messages and says how far it looked.
    harness.backend.answers = [[LogRecord(10, None)], [LogRecord(11, b"{}")]]
    await harness.start()
    await eventually(lambda: harness.received == [11])
    assert [after for after, _, _ in harness.backend.reads] == [0, 10]
    assert harness.counters.lost == 0
    await harness.stop()


async def test_each_read_carries_what_was_handled_and_only_news(harness: Harness) -> None:
    await harness.start()
    await harness.publish(3)
    await eventually(lambda: len(harness.received) == 3)
    harness.handled[2]()
    assert harness.reader.acknowledged == 0
    harness.handled[1]()
    await eventually(lambda: harness.reader.acknowledged == 2)
    acknowledged = [a for _, a, _ in harness.backend.reads if a is not None]
    assert acknowledged == [2]
    harness.handled[3]()
    await eventually(lambda: harness.broker.backlog("orders") == 0)
    await harness.stop()


async def test_handled_messages_are_acknowledged_soon_without_new_ones() -> None:
    harness = Harness(poll_interval=30.0, max_poll=30.0, visibility_timeout=3600)
    await harness.start()
    await harness.publish(1)
    await eventually(lambda: harness.received == [1])
    harness.handled[1]()
    await eventually(lambda: harness.reader.acknowledged == 1, seconds=2)
    await harness.stop()


async def test_the_server_hears_of_a_reader_that_has_work_within_the_visibility_timeout() -> None:
    harness = Harness(poll_interval=30.0, max_poll=30.0, visibility_timeout=1)
    await harness.start()
    await harness.publish(1)
    await eventually(lambda: harness.received == [1])
    reads = len(harness.backend.reads)
    await eventually(lambda: len(harness.backend.reads) >= reads + 2, seconds=1.5)
    harness.handled[1]()
    await harness.stop()


async def test_polling_slows_down_while_nothing_comes_and_is_quick_again_afterwards() -> None:
    harness = Harness(poll_interval=0.001, max_poll=0.2)
    await harness.start()
    await eventually(lambda: harness.reader._idle_polls >= 9)
    await harness.publish(1)
    await eventually(lambda: harness.received == [1])
    assert harness.reader._idle_polls <= 1
    await harness.stop()


async def test_an_outage_is_logged_once_per_kind_and_nothing_is_lost_or_repeated(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await harness.start()
    await harness.publish(2)
    await eventually(lambda: len(harness.received) == 2)
    harness.backend.failures = [
        UnavailableError("down"),
        UnavailableError("down"),
        RuntimeError("foreign"),
        BackendError("odd", sqlstate="XX000"),
    ]
    await harness.publish(2)
    await eventually(lambda: len(harness.received) == 4)
    assert harness.received == [1, 2, 3, 4]
    assert harness.counters.reconnects == 1
    texts = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert [text.partition(":")[2].split(":")[0].strip() for text in texts[:3]] == [
        "UnavailableError",
        "RuntimeError",
        "BackendError",
    ]
    assert len(texts) == 4
    assert "works again" in texts[3]
    await harness.stop()


async def test_an_answer_that_got_lost_is_asked_for_again(harness: Harness) -> None:
    await harness.start()
    await eventually(lambda: harness.backend.reads)

    # The server delivered, the connection broke before the answer came.
    original = harness.backend.read_after
    broken = asyncio.Event()

    async def lose_answer(*args: object, **kwargs: object) -> list[LogRecord]:
        records = await original(*args, **kwargs)  # type: ignore[arg-type]
        if records and not broken.is_set():
            broken.set()
            raise UnavailableError("broke")
        return records

    harness.backend.read_after = lose_answer  # type: ignore[assignment]
    await harness.publish(3)
    await eventually(lambda: harness.received == [1, 2, 3])
    assert broken.is_set()
    await harness.stop()


async def test_one_refusal_may_be_a_rotated_login(harness: Harness) -> None:
    await harness.start()
    harness.backend.failures = [AccessDeniedError("bus: access denied", sqlstate="42501")]
    await harness.publish(1)
    await eventually(lambda: harness.received == [1])
    assert harness.counters.rejoined == 0
    await harness.stop()


async def test_joining_anew_is_tried_until_it_works(harness: Harness) -> None:
    await harness.start()
    await harness.publish(1)
    await eventually(lambda: harness.received == [1])
    original, attempts = harness.backend.join_channel, 0

    async def join_late(*args: object) -> object:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise AccessDeniedError("bus: access denied", sqlstate="42501")
        return await original(*args)  # type: ignore[arg-type]

    harness.backend.join_channel = join_late  # type: ignore[method-assign,assignment]
    harness.broker.drop_peers("orders")
    await eventually(lambda: harness.counters.rejoined == 1)
    # The completion of a message of the former membership means nothing to the new one.
    harness.handled[1]()
    await harness.publish(1)
    await eventually(lambda: harness.received == [1, 2])
    assert harness.reader.in_flight == 1
    await harness.stop()


async def test_a_durable_peer_that_is_refused_ends(harness: Harness) -> None:
    harness.options = JoinOptions(peer="ledger")
    await harness.start()
    await eventually(lambda: harness.backend.reads)
    harness.broker.drop_peers("orders")
    with pytest.raises(PeerRefusedError, match="joined under the same name"):
        await asyncio.wait_for(harness.task, 10)


async def test_draining_keeps_the_heartbeat_and_acknowledges_at_the_end() -> None:
    harness = Harness(visibility_timeout=1)
    harness.options = JoinOptions(peer="ledger")
    await harness.start()
    await harness.publish(2)
    await eventually(lambda: len(harness.received) == 2)
    harness.reader.stop()
    await harness.task
    harness.backend.reads.clear()
    draining = asyncio.create_task(harness.reader.drain(10))
    await eventually(lambda: len(harness.backend.reads) >= 2)
    assert all(limit == 0 for _, _, limit in harness.backend.reads)
    harness.handled[1]()
    harness.handled[2]()
    assert await draining
    await harness.reader.close(acknowledge=True)
    assert harness.broker.backlog("orders") == 0


async def test_draining_gives_up_when_the_time_is_over(harness: Harness) -> None:
    await harness.start()
    await harness.publish(1)
    await eventually(lambda: harness.received)
    harness.reader.stop()
    await harness.task
    assert not await harness.reader.drain(0.01)
    assert not await harness.reader.drain(-1)


async def test_joining_waits_for_the_server_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    backend = InMemoryBackend(InMemoryBroker())
    original, attempts = backend.join_channel, 0

    async def join_late(*args: object) -> object:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise UnavailableError("not yet")
        return await original(*args)  # type: ignore[arg-type]

    backend.join_channel = join_late  # type: ignore[method-assign,assignment]
    session = Session(backend, "orders", JoinOptions())
    await session.join(5)
    assert attempts == 3
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    attempts = -100
    with pytest.raises(UnavailableError, match="not yet"):
        await session.join(0.2)
