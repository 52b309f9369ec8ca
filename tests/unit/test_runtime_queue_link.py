"""`PgmqBus` over a plain backend of five methods, as third parties write them for the reference client."""

import asyncio
import itertools
import logging
from collections import defaultdict
from typing import Any

import pytest
from recorder import Recorder, eventually, note

from bus_runtime import BackendMessage, BusMessage, PgmqBackend, PgmqBus
from bus_runtime.backend import LogBackend


class Queues:
    """A queue per peer in memory, with visibility in units of reads, and faults on demand."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[int, dict[str, Any]]] = {}
        self.in_hand: defaultdict[str, set[int]] = defaultdict(set)
        self.archived: list[int] = []
        self.ids = itertools.count(1)
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        self.arrived = asyncio.Condition()

    def _maybe_fail(self, operation: str) -> None:
        if self.failures[operation]:
            raise self.failures[operation].pop(0)

    async def join(self, channel: str) -> str:
        queue = f"{channel}_{next(self.ids)}"
        self.queues[queue] = {}
        return queue

    async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
        self._maybe_fail("publish")
        for queue in self.queues.values():
            queue[next(self.ids)] = payload
        async with self.arrived:
            self.arrived.notify_all()

    async def read(
        self, queue: str, *, channel: str, vt: int, qty: int, max_poll_seconds: int, poll_interval_ms: int
    ) -> list[BackendMessage]:
        self._maybe_fail("read")
        async with self.arrived:
            await asyncio.wait_for(
                self.arrived.wait_for(lambda: self.queues[queue].keys() - self.in_hand[queue]), max_poll_seconds
            )
        ids = sorted(self.queues[queue].keys() - self.in_hand[queue])[:qty]
        self.in_hand[queue].update(ids)
        return [BackendMessage(i, self.queues[queue][i]) for i in ids]

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        self._maybe_fail("archive")
        self.archived.append(msg_id)
        return self.queues[queue].pop(msg_id, None) is not None

    async def leave(self, queue: str, *, channel: str) -> None:
        self._maybe_fail("leave")
        del self.queues[queue]

    async def expire(self) -> None:
        """Let the visibility timeout of everything pass."""
        self.in_hand.clear()
        async with self.arrived:
            self.arrived.notify_all()


@pytest.fixture
def queues() -> Queues:
    return Queues()


def test_it_is_a_plain_backend(queues: Queues) -> None:
    assert isinstance(queues, PgmqBackend)
    assert not isinstance(queues, LogBackend)
    with pytest.raises(ValueError, match="peer= needs a backend with durable peers; Queues has none"):
        PgmqBus(backend=queues, peer="ledger")


async def test_messages_go_both_ways_and_are_archived_after_handling(queues: Queues) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    one, two = PgmqBus(backend=queues, channel="c"), PgmqBus(backend=queues, channel="c")
    first, second = Recorder("first"), Recorder("second", wait)
    await one.subscribe(first)
    await two.subscribe(second)
    await one.start()
    await two.start()
    for number in range(5):
        await one.send(note(number))
    await eventually(lambda: first.numbers == [0, 1, 2, 3, 4] and len(queues.archived) == 5)
    assert two.stats().in_flight == 5
    gate.set()
    await eventually(lambda: second.numbers == [0, 1, 2, 3, 4] and len(queues.archived) == 10)
    stats = two.stats()
    assert (stats.state, stats.wake, stats.received, stats.handled) == ("running", "poll", 5, 5)
    assert (stats.position, stats.acknowledged) == (None, None)
    await one.stop()
    await two.stop()
    assert queues.queues == {}


async def test_a_slow_handler_is_not_handed_its_message_twice(queues: Queues) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    bus, recorder = PgmqBus(backend=queues), Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.begun)
    for _ in range(3):
        await queues.expire()
        await eventually(lambda: queues.in_hand)
    assert len(recorder.begun) == 1
    gate.set()
    await eventually(lambda: queues.archived)
    assert recorder.numbers == [1]
    await bus.stop()


async def test_a_failed_archive_is_repeated_when_the_message_returns(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    bus, recorder = PgmqBus(backend=queues), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    queues.failures["archive"] = [OSError("gone")]
    await bus.send(note(1))
    await eventually(lambda: "archiving on channel" in caplog.text)
    await queues.expire()
    await eventually(lambda: queues.archived)
    assert recorder.numbers == [1]
    await bus.stop()


async def test_the_reader_recovers_from_anything(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bus, recorder = PgmqBus(backend=queues), Recorder()
    queues.failures["read"] = [OSError("down"), RuntimeError("odd")]
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    assert bus.stats().reconnects == 1
    assert len([r for r in caplog.records if "reading channel" in r.getMessage()]) == 3
    await bus.stop()


async def test_publish_and_leave_may_fail_without_raising(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    bus = PgmqBus(backend=queues)
    await bus.start()
    queues.failures["publish"] = [RuntimeError("odd")]
    queues.failures["leave"] = [RuntimeError("odd")]
    await bus.publish(note(1))
    assert bus.stats().publish_errors == 1
    await bus.stop()
    assert "leaving queue" in caplog.text


async def test_stop_waits_for_handlers_and_their_archiving(queues: Queues) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    bus, recorder = PgmqBus(backend=queues), Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await bus.send(note(2))
    await eventually(lambda: recorder.begun)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert recorder.numbers == [1, 2]
    assert len(queues.archived) == 2


async def test_reading_stops_while_a_subscriber_is_full() -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    queues = Queues()
    bus = PgmqBus(backend=queues, channel="orders", max_in_flight=4)
    slow, quick = Recorder("slow", wait), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(30):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) >= 4)
    for _ in range(20):
        await asyncio.sleep(0)
    stats = bus.stats()
    assert (stats.received, stats.queued, stats.lagging) == (4, 4, {})
    gate.set()
    await eventually(lambda: slow.numbers == quick.numbers == list(range(30)))
    await eventually(lambda: len(queues.archived) == 30)
    await bus.stop()


async def test_a_bus_that_waits_for_room_stops() -> None:
    bus = PgmqBus(backend=Queues(), channel="orders", max_in_flight=1, stop_timeout=0.01)
    never = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await never.wait()

    slow = Recorder("slow", wait)
    await bus.subscribe(slow)
    await bus.start()
    for number in range(3):
        await bus.publish(note(number))
    await eventually(lambda: bus.stats().queued == 1)
    await asyncio.wait_for(bus.stop(), 5)
    assert bus.stats().state == "stopped"
