"""Starting and stopping at the same time, and being cancelled at either: a bus runs, or it has left nothing behind."""

import asyncio
from typing import Any

import pytest
from recorder import Recorder, eventually, note

from bus_runtime import BusError, BusMessage, PgmqBus, PublishError, UnavailableError
from bus_runtime.backend import JoinOptions, Membership
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


class Gate(InMemoryBackend):
    """Lets join and publish, or refuses, when the test says so."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__(broker)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.failures: list[Exception] = []

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        await self._pass()
        return await super().join_channel(channel, options)

    async def publish_many(self, channel: str, queue: str, payloads: Any) -> list[int]:
        await self._pass()
        return await super().publish_many(channel, queue, payloads)

    async def _pass(self) -> None:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def backend(broker: InMemoryBroker) -> Gate:
    return Gate(broker)


def make_bus(backend: Gate, **options: Any) -> PgmqBus:
    return PgmqBus(backend=backend, channel="orders", **options)


async def require_usable(bus: PgmqBus, broker: InMemoryBroker) -> None:
    """A bus that is stopped can be started, delivers, and leaves nothing behind."""
    assert bus.stats().state == "stopped"
    assert broker.channel("orders").peers == {}
    recorder = Recorder()
    await bus.subscribe(recorder)
    await asyncio.wait_for(bus.start(), 5)
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    await asyncio.wait_for(bus.stop(), 5)
    assert bus.stats().state == "stopped"
    assert broker.channel("orders").peers == {}


@pytest.mark.parametrize("away", [False, True])
async def test_stopping_ends_a_start_that_is_under_way(broker: InMemoryBroker, backend: Gate, away: bool) -> None:
    """Whether the server takes its time or is waited for: who stops must not find the bus running a minute later."""
    bus = make_bus(backend)
    if away:
        backend.failures = [UnavailableError("away")] * 100
    else:
        backend.gate.clear()
    starting = asyncio.create_task(bus.start())
    await eventually(lambda: len(backend.failures) < 99 if away else backend.waiting)
    await asyncio.wait_for(bus.stop(), 1)
    with pytest.raises(BusError, match=r"stop\(\) was called before it had started \[BusNotRunning\]"):
        await asyncio.wait_for(starting, 1)
    backend.failures.clear()
    backend.gate.set()
    await require_usable(bus, broker)


async def test_a_start_that_is_cancelled_at_once(broker: InMemoryBroker, backend: Gate) -> None:
    bus = make_bus(backend)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await require_usable(bus, broker)


async def test_a_start_that_is_cancelled_while_it_joins(broker: InMemoryBroker, backend: Gate) -> None:
    bus = make_bus(backend)
    backend.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.start(), 0.05)
    backend.gate.set()
    await require_usable(bus, broker)


async def test_who_starts_a_bus_that_is_starting_waits_for_it(broker: InMemoryBroker, backend: Gate) -> None:
    bus = make_bus(backend)
    backend.gate.clear()
    starting = [asyncio.create_task(bus.start()) for _ in range(2)]
    await eventually(lambda: backend.waiting)
    assert not any(task.done() for task in starting)
    backend.gate.set()
    await asyncio.gather(*starting)
    assert bus.stats().state == "running"
    assert len(broker.channel("orders").peers) == 1
    await bus.stop()


async def test_who_starts_a_bus_that_is_stopping_gets_one_that_runs(broker: InMemoryBroker, backend: Gate) -> None:
    bus = make_bus(backend)
    await bus.start()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    await bus.start()
    await stopping
    assert bus.stats().state == "running"
    await bus.stop()
    await require_usable(bus, broker)


async def test_stopping_twice_or_before_starting(broker: InMemoryBroker, backend: Gate) -> None:
    bus = make_bus(backend)
    await bus.stop()
    await bus.start()
    await asyncio.gather(bus.stop(), bus.stop())
    await bus.stop()
    await require_usable(bus, broker)


async def test_who_does_not_wait_for_handlers_stops_all_the_same(broker: InMemoryBroker, backend: Gate) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    recorder = Recorder("waits", wait)
    bus = make_bus(backend, stop_timeout=60)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.publish(note(0))
    await eventually(lambda: recorder.begun)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.stop(), 0.05)
    gate.set()
    await bus.unsubscribe(recorder)
    await require_usable(bus, broker)


async def test_who_does_not_wait_for_what_is_being_sent_leaves_all_the_same(
    broker: InMemoryBroker, backend: Gate
) -> None:
    bus = make_bus(backend, stop_timeout=60)
    await bus.start()
    backend.gate.clear()
    publishing = [asyncio.create_task(bus.publish(note(number), raise_on_error=True)) for number in range(3)]
    await eventually(lambda: backend.waiting)
    stopping = asyncio.create_task(bus.stop())
    await eventually(lambda: bus.stats().state == "stopped")
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 1)
    outcomes = await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), 1)
    assert [isinstance(outcome, PublishError) for outcome in outcomes] == [True] * 3
    backend.gate.set()
    await require_usable(bus, broker)
