"""Stopping a bus: what was accepted is sent, what was received is handled, within the time that is given."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from recorder import Recorder, eventually, note

from bus_runtime import BackendMessage, BusMessage, PgmqBus, PublishError, SerializationError, UnavailableError
from bus_runtime.backend import JoinOptions, LogRecord
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


class Sluggish(InMemoryBackend):
    """Takes messages when the test says so."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__(broker)
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = 0
        self.calls: list[int] = []
        self.failures: list[Exception] = []

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        self.entered += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(len(payloads))
        return await super().publish_many(channel, queue, payloads)


async def start_bus(backend: Any, *subscribers: Recorder, **options: Any) -> PgmqBus:
    bus = PgmqBus(backend=backend, channel="orders", **({"stop_timeout": 5.0} | options))
    for subscriber in subscribers:
        await bus.subscribe(subscriber)
    await bus.start()
    return bus


async def publish_all(bus: PgmqBus, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(bus.publish(note(number), raise_on_error=True)) for number in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_publishes_that_were_accepted_are_sent(broker: InMemoryBroker) -> None:
    backend, reader = Sluggish(broker), Recorder()
    other = await start_bus(InMemoryBackend(broker), reader)
    bus = await start_bus(backend)
    backend.gate.clear()
    published = await publish_all(bus, 700)
    await eventually(lambda: backend.entered == 1)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    backend.failures = [UnavailableError("for a moment")]
    backend.gate.set()
    await asyncio.wait_for(stopping, 10)
    assert all(task.done() for task in published)
    await asyncio.gather(*published)
    await eventually(lambda: reader.numbers == list(range(700)))
    assert bus.stats().published == 700
    assert len(backend.calls) < 10
    await other.stop()


async def test_a_server_that_does_not_answer_is_given_up(broker: InMemoryBroker) -> None:
    backend = Sluggish(broker)
    bus = await start_bus(backend, stop_timeout=0.05)
    backend.gate.clear()
    published = await publish_all(bus, 3)
    await eventually(lambda: backend.entered == 1)
    begun = time.monotonic()
    await bus.stop()
    assert time.monotonic() - begun < 10
    outcomes = await asyncio.gather(*published, return_exceptions=True)
    assert all(isinstance(outcome, PublishError) for outcome in outcomes)
    assert [outcome.outcome_unknown for outcome in outcomes] == [True, False, False]  # type: ignore[union-attr]
    assert bus.stats().publish_errors == 3


async def test_nothing_is_accepted_any_more(broker: InMemoryBroker) -> None:
    backend = Sluggish(broker)
    bus = await start_bus(backend)
    backend.gate.clear()
    (first,) = await publish_all(bus, 1)
    await eventually(lambda: backend.entered == 1)
    stopping = asyncio.create_task(bus.stop())
    # Until the handlers are through they may still publish; then the bus takes leave.
    await eventually(lambda: bus.stats().state == "stopped")
    with pytest.raises(PublishError, match="is not running"):
        await bus.publish(note(2), raise_on_error=True)
    backend.gate.set()
    await stopping
    await first
    assert backend.calls == [1]


async def test_what_was_received_is_handled_and_answered(broker: InMemoryBroker) -> None:
    gate = asyncio.Event()
    answers = Recorder("answers")
    other = await start_bus(InMemoryBackend(broker), answers)

    async def answer(message: BusMessage) -> None:
        await gate.wait()
        if message.source == "test":
            await bus.publish(note(100 + message.number, source="answer"), raise_on_error=True)  # type: ignore[attr-defined]

    worker = Recorder("worker", answer)
    bus = await start_bus(InMemoryBackend(broker), worker, peer="worker")
    for number in range(20):
        await bus.publish(note(number))
    await eventually(lambda: bus.stats().in_flight == 20)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.wait_for(stopping, 5)
    assert worker.numbers == list(range(20))
    await eventually(lambda: answers.numbers == [*range(20), *range(100, 120)])
    # The answers came too late to be received here: they are the first that the next start gets.
    again = Recorder("again")
    bus = await start_bus(InMemoryBackend(broker), again, peer="worker")
    await eventually(lambda: again.numbers == list(range(100, 120)))
    await bus.stop()
    await other.stop()


async def test_what_is_set_aside_is_waited_for(broker: InMemoryBroker) -> None:
    gate, kept = asyncio.Event(), []

    async def keep(msg_id: int, payload: bytes, error: SerializationError) -> None:
        await gate.wait()
        kept.append(msg_id)

    bus = await start_bus(InMemoryBackend(broker), on_undecodable=keep, peer="worker")
    backend = InMemoryBackend(broker)
    membership = await backend.join_channel("orders", JoinOptions())
    await backend.publish_many("orders", membership.queue, [b"{}"])
    await backend.leave_channel("orders", membership.queue, forget=True)
    await eventually(lambda: bus.stats().in_flight == 1)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.01)
    gate.set()
    await stopping
    assert kept == [1]
    assert broker.backlog("orders") == 0


async def test_what_is_set_aside_is_acknowledged_where_the_callback_waits_for_what_is_cancelled(
    broker: InMemoryBroker,
) -> None:
    async def keep(msg_id: int, payload: bytes, error: SerializationError) -> None:
        upload = asyncio.get_running_loop().create_future()
        upload.cancel()
        await upload

    bus = await start_bus(InMemoryBackend(broker), on_undecodable=keep, peer="worker")
    backend = InMemoryBackend(broker)
    membership = await backend.join_channel("orders", JoinOptions())
    await backend.publish_many("orders", membership.queue, [b"{}"])
    await backend.leave_channel("orders", membership.queue, forget=True)
    await eventually(lambda: broker.backlog("orders") == 0)
    assert bus.stats().handler_errors == 1
    await bus.stop()


class Hung(InMemoryBackend):
    """Does not answer any more, from when the test says so."""

    hangs = False

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        await self._answer()
        return await super().read_after(channel, queue, after=after, acknowledge=acknowledge, limit=limit)

    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        await self._answer()
        await super().leave_channel(channel, queue, forget=forget)

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()


@pytest.mark.parametrize("peer", [None, "worker"])
async def test_a_server_that_hangs_keeps_nobody(
    broker: InMemoryBroker, peer: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    backend, recorder = Hung(broker), Recorder(handler=wait)
    bus = await start_bus(backend, recorder, peer=peer, stop_timeout=0.1)
    await bus.publish(note(1))
    await eventually(lambda: recorder.begun)
    backend.hangs = True
    gate.set()
    await eventually(lambda: recorder.messages)
    await asyncio.wait_for(bus.stop(), 20)
    assert bus.stats().state == "stopped"
    assert "leaving failed: the server does not answer" in caplog.text


async def test_handlers_that_take_too_long_are_cancelled_and_their_messages_come_again(broker: InMemoryBroker) -> None:
    cancelled = []

    async def hang(message: BusMessage) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(message)
            raise

    hanging = Recorder(handler=hang)
    bus = await start_bus(InMemoryBackend(broker), hanging, peer="worker", stop_timeout=0.05)
    for number in range(3):
        await bus.publish(note(number))
    await eventually(lambda: hanging.begun)
    await bus.stop()
    assert len(cancelled) == 1
    again = Recorder()
    bus = await start_bus(InMemoryBackend(broker), again, peer="worker")
    await eventually(lambda: again.numbers == [0, 1, 2])
    await bus.stop()


class SluggishQueue:
    """A backend of five methods whose `publish` takes its time."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.log: list[str] = []

    async def join(self, channel: str) -> str:
        return "queue"

    async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
        await self.gate.wait()
        self.log.append("published")

    async def read(self, queue: str, **options: Any) -> list[BackendMessage]:
        await asyncio.Event().wait()
        return []

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        return True

    async def leave(self, queue: str, *, channel: str) -> None:
        self.log.append("left")


async def test_over_other_backends_publishes_are_sent_before_leaving() -> None:
    backend = SluggishQueue()
    bus = await start_bus(backend)
    published = await publish_all(bus, 3)
    stopping = asyncio.create_task(bus.stop())
    await eventually(lambda: bus.stats().state == "stopped")
    assert backend.log == []
    backend.gate.set()
    await stopping
    await asyncio.gather(*published)
    assert backend.log == ["published", "published", "published", "left"]


async def test_over_other_backends_stopping_ends_as_well() -> None:
    backend = SluggishQueue()
    bus = await start_bus(backend, stop_timeout=0.05)
    published = await publish_all(bus, 1)
    await asyncio.wait_for(bus.stop(), 2)
    assert backend.log == ["left"]
    backend.gate.set()
    await asyncio.gather(*published)
