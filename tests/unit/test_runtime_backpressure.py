"""A `PgmqBus` whose subscribers do not keep up, on the log in memory."""

import asyncio
import logging
from typing import Any

import pytest
from recorder import Note, Recorder, eventually, note

from bus_runtime import BusDataMessage, BusMessage, BusWorkerLocalErrorMessage, PgmqBus, SerializationError, notice
from bus_runtime.backend import JoinOptions
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


def make_bus(broker: InMemoryBroker, **options: Any) -> PgmqBus:
    defaults: dict[str, Any] = {"channel": "orders", "stop_timeout": 5.0, "max_in_flight": 10}
    return PgmqBus(backend=InMemoryBackend(broker), **(defaults | options))


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self, _: BusMessage) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize(("limit", "message"), [("max_in_flight", 0), ("max_in_flight_bytes", -1)])
def test_limits_must_let_something_through(broker: InMemoryBroker, limit: str, message: int) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be at least 1, got {message}"):
        make_bus(broker, **{limit: message})


async def test_a_stalled_subscriber_leaves_the_rest_in_the_log(broker: InMemoryBroker) -> None:
    gate = Gate()
    bus, publisher = make_bus(broker), make_bus(broker)
    stalled = Recorder(handler=gate)
    await bus.subscribe(stalled)
    await bus.start()
    await publisher.start()
    for number in range(500):
        await publisher.publish(note(number))
    await eventually(lambda: bus.stats().queued == 10)
    stats = bus.stats()
    assert (stats.queued, stats.received, stats.in_flight, stats.position) == (10, 10, 10, 10)
    assert stats.lagging == {"recorder": 0}
    assert stats.queued_bytes == sum(len(payload) for payload in list(broker.channel("orders").log.values())[:10])
    assert broker.backlog("orders") == 500
    gate.open()
    await eventually(lambda: stalled.numbers == list(range(500)))
    await eventually(lambda: broker.backlog("orders") == 0)
    stats = bus.stats()
    assert (stats.queued, stats.queued_bytes, stats.lagging, stats.in_flight) == (0, 0, {}, 0)
    assert stats.received == stats.handled == 500
    await bus.stop()
    await publisher.stop()


async def test_bytes_are_limited_too(broker: InMemoryBroker) -> None:
    gate = Gate()
    bus = make_bus(broker, max_in_flight=10**6, max_in_flight_bytes=10_000)
    stalled = Recorder(handler=gate)
    await bus.subscribe(stalled)
    await bus.start()
    for _ in range(50):
        await bus.publish(Note("x" * 1000, source="test"))  # type: ignore[arg-type]
    await eventually(lambda: bus.stats().queued_bytes >= 10_000)
    stats = bus.stats()
    assert stats.queued_bytes < 12_000
    assert stats.queued == 10
    gate.open()
    await eventually(lambda: len(stalled.messages) == 50)
    await bus.stop()


async def test_a_slow_subscriber_delays_nobody_else_and_nothing_is_trimmed_under_it(broker: InMemoryBroker) -> None:
    gate = Gate()
    bus = make_bus(broker)
    slow, quick = Recorder("slow", gate), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(200):
        await bus.publish(note(number))
    await eventually(lambda: quick.numbers == list(range(200)))
    stats = bus.stats()
    assert (stats.queued, stats.lagging, stats.position) == (10, {"slow": 190}, 200)
    await asyncio.sleep(0.15)
    assert bus.stats().acknowledged == 0
    assert broker.backlog("orders") == 200
    gate.open()
    await eventually(lambda: slow.numbers == list(range(200)))
    await eventually(lambda: broker.backlog("orders") == 0)
    assert bus.stats().received == bus.stats().handled == 200, "what is read twice is counted once"
    await bus.stop()


async def test_what_a_slow_subscriber_has_handled_is_acknowledged_as_it_goes(broker: InMemoryBroker) -> None:
    turns = asyncio.Semaphore(0)

    async def take_turns(_: BusMessage) -> None:
        await turns.acquire()

    bus = make_bus(broker)
    slow, quick = Recorder("slow", take_turns), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(100):
        await bus.publish(note(number))
    for done in (7, 30, 31, 99, 100):
        while len(slow.begun) < done or len(slow.messages) < done:
            turns.release()
            await asyncio.sleep(0)
        await eventually(lambda done=done: bus.stats().acknowledged == done)  # type: ignore[misc]
    await bus.stop()


async def test_stopping_lets_the_slow_one_finish_what_it_holds_and_no_more(broker: InMemoryBroker) -> None:
    gate = Gate()
    bus = make_bus(broker, peer="ledger")
    slow, quick = Recorder("slow", gate), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(100):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) == 100)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.01)
    gate.open()
    await stopping
    assert slow.numbers == list(range(10))
    # The others get some of it again: a peer has one position.
    again = make_bus(broker, peer="ledger")
    late = Recorder("late")
    await again.subscribe(late)
    await again.start()
    await eventually(lambda: late.numbers == list(range(10, 100)))
    await again.stop()


async def test_a_bus_that_stopped_while_one_was_behind_starts_afresh(broker: InMemoryBroker) -> None:
    never = Gate()
    bus = make_bus(broker, stop_timeout=0.01)
    slow, quick = Recorder("slow", never), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(50):
        await bus.publish(note(number))
    await bus.stop()
    assert (bus.stats().queued, bus.stats().state) == (0, "stopped")
    slow._handler = None
    await bus.start()
    for number in range(50, 100):
        await bus.publish(note(number))
    await eventually(lambda: slow.numbers == list(range(50, 100)))
    await bus.stop()


async def test_who_is_behind_and_unsubscribes_is_waited_for_no_more(broker: InMemoryBroker) -> None:
    bus = make_bus(broker)
    slow, quick = Recorder("slow", Gate()), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(50):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    await bus.unsubscribe(slow)
    await eventually(lambda: broker.backlog("orders") == 0)
    assert bus.stats().queued == 0
    await bus.stop()


async def test_what_retention_took_from_one_that_is_behind_is_counted_and_reported(broker: InMemoryBroker) -> None:
    gate, lost = Gate(), []
    bus = make_bus(broker, on_lost=lost.append)
    slow, quick = Recorder("slow", gate), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(50):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    channel = broker.channel("orders")
    for msg_id in range(1, 31):
        channel.log.pop(msg_id, None)
    channel.trimmed = 30
    gate.open()
    await eventually(lambda: slow.numbers == [*range(10), *range(30, 50)])
    assert (lost, bus.stats().lost) == ([20], 20)
    await bus.stop()


async def test_an_unnamed_peer_that_was_dropped_while_one_was_behind(broker: InMemoryBroker) -> None:
    gate = Gate()
    bus, other = make_bus(broker), make_bus(broker, stop_timeout=0.01)
    slow, quick = Recorder("slow", gate), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    # Keeps the log from being trimmed.
    stuck = Recorder(handler=Gate())
    await other.subscribe(stuck)
    await other.start()
    for number in range(50):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    peers = broker.channel("orders").peers
    del peers[next(iter(peers))]
    await bus.publish(note(50))
    await eventually(lambda: bus.stats().rejoined == 1)
    gate.open()
    await eventually(lambda: slow.numbers == list(range(51)) or slow.numbers == list(range(50)))
    await bus.publish(note(51))
    await eventually(lambda: slow.numbers[-1] == quick.numbers[-1] == 51)
    await bus.stop()
    await other.stop()


async def test_messages_of_the_process_itself_come_through_to_one_that_is_behind(broker: InMemoryBroker) -> None:
    bus = make_bus(broker)
    slow, quick = Recorder("slow"), Recorder("quick")
    gate = Gate()

    async def wait_for_notes(message: BusMessage) -> None:
        if isinstance(message, BusDataMessage):
            await gate(message)

    slow._handler = wait_for_notes
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    await bus.start()
    for number in range(50):
        await bus.publish(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    await bus.send(BusWorkerLocalErrorMessage("e", source="here"))
    await eventually(lambda: len(slow.messages) == 1)
    gate.open()
    await eventually(lambda: slow.numbers == list(range(50)))
    await bus.stop()


async def test_lagging_is_told(
    broker: InMemoryBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notice, "LAGS_AFTER", 0.01)
    monkeypatch.setattr(notice, "KEEPS_UP_AFTER", 0.01)
    caplog.set_level(logging.INFO)
    told: list[tuple[str, bool]] = []
    gate = Gate()
    bus = make_bus(broker, on_lagging=lambda *args: told.append(args))
    await bus.subscribe(Recorder("slow", gate))
    await bus.start()
    for number in range(50):
        await bus.publish(note(number))
    await eventually(lambda: told == [("slow", True)])
    gate.open()
    await eventually(lambda: told == [("slow", True), ("slow", False)])
    assert "subscriber 'slow' does not keep up" in caplog.text
    await bus.stop()


async def test_what_cannot_be_decoded_waits_for_its_callback_within_the_limit(broker: InMemoryBroker) -> None:
    gate, seen = asyncio.Event(), []

    async def keep(msg_id: int, payload: bytes, error: SerializationError) -> None:
        await gate.wait()
        seen.append(msg_id)

    bus = make_bus(broker, on_undecodable=keep)
    await bus.start()
    backend = InMemoryBackend(broker)
    membership = await backend.join_channel("orders", JoinOptions())
    await backend.publish_many("orders", membership.queue, [b"{}"] * 100)
    await eventually(lambda: bus.stats().queued == 10)
    assert bus.stats().position == 10
    gate.set()
    await eventually(lambda: sorted(seen) == list(range(1, 101)))
    await eventually(lambda: bus.stats().acknowledged == 100)
    assert bus.stats().queued == 0
    await bus.stop()


async def test_redelivery_to_a_durable_peer_is_told_before_it_happens(broker: InMemoryBroker) -> None:
    first = make_bus(broker, peer="ledger", stop_timeout=0.01)
    await first.subscribe(Recorder(handler=Gate()))
    await first.start()
    for number in range(3):
        await first.publish(note(number))
    await eventually(lambda: first.stats().in_flight == 3)
    await first.stop()

    order: list[object] = []

    async def record(message: BusMessage) -> None:
        order.append(message.number)  # type: ignore[attr-defined]

    second = make_bus(broker, peer="ledger", on_redelivered=lambda msg_id: order.append(f"again {msg_id}"))
    await second.subscribe(Recorder(handler=record))
    await second.start()
    await second.publish(note(3))
    await eventually(lambda: order[-1:] == [3])
    assert sorted(order, key=str) == [0, 1, 2, 3, "again 1", "again 2", "again 3"]
    assert order.index("again 1") < order.index(0)
    assert second.stats().redelivered == 3
    await second.stop()


async def test_a_durable_peer_that_was_taken_over_is_told(broker: InMemoryBroker) -> None:
    refusals: list[Exception] = []
    earlier = make_bus(broker, peer="ledger", on_refused=refusals.append)
    later = make_bus(broker, peer="ledger")
    gate = Gate()
    slow, quick = Recorder("slow", gate), Recorder("quick")
    await earlier.subscribe(slow)
    await earlier.subscribe(quick)
    await earlier.start()
    for number in range(50):
        await earlier.publish(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    await later.start()
    await later.publish(note(50))
    await eventually(lambda: refusals)
    assert "another process joined under the same name" in str(refusals[0])
    assert earlier.stats().state == "refused"
    gate.open()
    await eventually(lambda: len(slow.messages) == 10)
    await earlier.stop()
    await later.stop()


async def test_a_callback_that_fails_is_counted(broker: InMemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    def on_refused(_: object) -> None:
        raise RuntimeError("no")

    earlier, later = make_bus(broker, peer="ledger", on_refused=on_refused), make_bus(broker, peer="ledger")
    await earlier.start()
    await later.start()
    await later.publish(note(1))
    await eventually(lambda: earlier.stats().handler_errors == 1)
    assert "on_refused failed" in caplog.text
    await earlier.stop()
    await later.stop()
