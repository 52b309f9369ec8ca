"""`PgmqBus` on the log in memory: publishing, acknowledging, setting aside, stopping, durable peers."""

import asyncio
import json
import logging
from typing import Any

import pytest
from recorder import Note, Panic, Recorder, alarm, eventually, note

from bus_runtime import (
    AccessDeniedError,
    BusMessage,
    BusWorkerLocalErrorMessage,
    PgmqBackend,
    PgmqBus,
    PublishError,
    RejectedError,
    SerializationError,
    UnknownTypeError,
    WorkerRegistryEntry,
)
from bus_runtime.backend import JoinOptions, LogBackend
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


def make_bus(broker: InMemoryBroker, **options: Any) -> PgmqBus:
    defaults: dict[str, Any] = {"channel": "orders", "stop_timeout": 5.0}
    return PgmqBus(backend=InMemoryBackend(broker), **(defaults | options))


async def publish_raw(broker: InMemoryBroker, *documents: Any) -> None:
    backend = InMemoryBackend(broker)
    membership = await backend.join_channel("orders", JoinOptions())
    payloads = [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents]
    await backend.publish_many("orders", membership.queue, payloads)
    await backend.leave_channel("orders", membership.queue, forget=True)


def test_the_in_memory_backend_is_both_kinds_of_backend(broker: InMemoryBroker) -> None:
    backend = InMemoryBackend(broker)
    assert isinstance(backend, LogBackend)
    assert isinstance(backend, PgmqBackend)


def test_arguments_that_exclude_each_other(broker: InMemoryBroker) -> None:
    backend = InMemoryBackend(broker)
    with pytest.raises(ValueError, match="not both"):
        PgmqBus(backend=backend, pgmq=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs pgmq= or backend="):
        PgmqBus()
    with pytest.raises(ValueError, match="acknowledge must be"):
        PgmqBus(backend=backend, acknowledge="never")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PgmqBus(backend=backend, acknowlege="on_handled")


async def test_two_buses_exchange_messages_in_one_order(broker: InMemoryBroker) -> None:
    one, two = make_bus(broker), make_bus(broker)
    first, second = Recorder("first"), Recorder("second")
    await one.subscribe(first)
    await two.subscribe(second)
    await one.start()
    await two.start()
    await asyncio.gather(*(bus.send(note(n)) for n in range(100) for bus in (one, two)))
    await eventually(lambda: len(first.messages) == len(second.messages) == 200)
    assert first.numbers == second.numbers
    assert [(m.id, m.name) for m in first.messages] == [(m.id, m.name) for m in second.messages]
    await eventually(lambda: broker.backlog("orders") == 0)
    await one.stop()
    await two.stop()
    assert one.stats().published == 100
    assert one.stats().received == one.stats().handled == 200


async def test_channels_do_not_mix(broker: InMemoryBroker) -> None:
    one, other = make_bus(broker), make_bus(broker, channel="other")
    recorder = Recorder()
    await other.subscribe(recorder)
    await one.start()
    await other.start()
    await one.send(note(1))
    await other.send(note(2))
    await eventually(lambda: recorder.numbers == [2])
    await one.stop()
    await other.stop()


async def test_local_messages_stay_even_when_published(broker: InMemoryBroker) -> None:
    one, two = make_bus(broker), make_bus(broker)
    here, there = Recorder("here"), Recorder("there")
    await one.subscribe(here)
    await two.subscribe(there)
    await one.start()
    await two.start()
    await one.send(BusWorkerLocalErrorMessage("e", source="x"))
    await one.publish(BusWorkerLocalErrorMessage("e", source="x"))
    await one.send(note(1))
    await eventually(lambda: there.numbers == [1] and len(here.messages) == 3)
    assert len(there.messages) == 1
    assert one.stats().published == 1
    await one.stop()
    await two.stop()


async def test_publish_before_start_warns_and_drops(broker: InMemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    bus = make_bus(broker)
    await bus.publish(note(1))
    assert "is not running" in caplog.text
    assert bus.stats().publish_errors == 1
    with pytest.raises(PublishError, match="is not running") as caught:
        await bus.publish(note(1), raise_on_error=True)
    assert not caught.value.outcome_unknown
    await bus.start()
    await bus.stop()
    with pytest.raises(PublishError, match="is not running"):
        await bus.publish(note(1), raise_on_error=True)
    assert broker.backlog("orders") == 0


@pytest.mark.parametrize(
    ("message", "cause", "words"),
    [
        (Note("x" * 2000, source="x"), RejectedError, "exceeds this channel's limit of 1000 bytes"),  # type: ignore[arg-type]
        (Note(object(), source="x"), SerializationError, "not registered"),  # type: ignore[arg-type]
    ],
    ids=["too large", "not serializable"],
)
async def test_publish_raises_only_when_asked(
    message: BusMessage, cause: type, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(InMemoryBroker(max_message_bytes=1000))
    await bus.start()
    await bus.publish(message)
    assert words in caplog.text
    with pytest.raises(PublishError, match=words) as caught:
        await bus.publish(message, raise_on_error=True)
    assert isinstance(caught.value.__cause__, cause)
    assert not caught.value.outcome_unknown
    assert bus.stats().publish_errors == 2
    await bus.stop()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("s3cret", "str: not published: what was published is of type str, and no BusMessage"),
        ({"order": "s3cret"}, "dict: not published: what was published is of type dict, and no BusMessage"),
        (None, "NoneType: not published: what was published is of type NoneType, and no BusMessage"),
        (WorkerRegistryEntry("s3cret"), "is of type WorkerRegistryEntry, and no BusMessage"),
        (Note, "what was published is the class Note, and no BusMessage"),
    ],
    ids=["text", "mapping", "nothing", "what messages carry", "class"],
)
async def test_what_is_no_message_is_refused_where_it_is_published(
    value: Any, words: str, broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Written as JSON it would be undecodable for everybody."""
    bus = make_bus(broker)
    with pytest.raises(PublishError, match="is not running"):
        await bus.publish(value, raise_on_error=True)
    await bus.start()
    await bus.publish(value)
    await bus.send(value)
    assert caplog.text.count(words) == 2
    assert "Hello(source=..., ...) [SerializationFailed]" in caplog.text
    with pytest.raises(PublishError, match=words) as caught:
        await bus.publish(value, raise_on_error=True)
    assert caught.value.code == "SerializationFailed"
    assert "s3cret" not in f"{caught.value}{caplog.text}"
    assert bus.stats().publish_errors == 4
    assert broker.backlog("orders") == 0
    await bus.stop()


async def test_acknowledged_only_when_the_slowest_subscriber_is_through(broker: InMemoryBroker) -> None:
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    bus = make_bus(broker)
    quick, slow = Recorder("quick"), Recorder("slow", wait)
    await bus.subscribe(quick)
    await bus.subscribe(slow)
    await bus.start()
    for number in range(3):
        await bus.send(note(number))
    await bus.send(alarm(9))
    await eventually(lambda: len(quick.messages) == 4)
    assert bus.stats().in_flight == 4
    assert broker.backlog("orders") == 4
    gate.set()
    await eventually(lambda: broker.backlog("orders") == 0)
    stats = bus.stats()
    assert (stats.position, stats.acknowledged, stats.in_flight, stats.handled) == (4, 4, 0, 4)
    await bus.stop()


async def test_what_is_handled_early_is_not_acknowledged_early(broker: InMemoryBroker) -> None:
    gate = asyncio.Event()

    async def wait(message: BusMessage) -> None:
        if isinstance(message, Note):
            await gate.wait()

    bus = make_bus(broker)
    recorder = Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await bus.send(alarm(2))
    await eventually(lambda: recorder.numbers == [2])
    stats = bus.stats()
    assert (stats.position, stats.handled, stats.in_flight) == (2, 1, 1)
    assert broker.backlog("orders") == 2
    gate.set()
    await eventually(lambda: bus.stats().acknowledged == 2)
    await bus.stop()


async def test_a_handler_that_raises_is_acknowledged(broker: InMemoryBroker) -> None:
    async def fail(_: BusMessage) -> None:
        raise RuntimeError("poison")

    bus = make_bus(broker)
    await bus.subscribe(Recorder(handler=fail))
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: bus.stats().acknowledged == 1)
    assert bus.stats().handler_errors == 1
    await bus.stop()


async def held_up(broker: InMemoryBroker) -> tuple[PgmqBus, Recorder, asyncio.Event]:
    """A started bus that acknowledges on dispatch, and its subscriber, whose handler waits for the event."""
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    bus = make_bus(broker, acknowledge="on_dispatch")
    recorder = Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    return bus, recorder, gate


async def test_on_dispatch_acknowledges_before_handling(broker: InMemoryBroker) -> None:
    bus, recorder, gate = await held_up(broker)
    await bus.send(note(1))
    await eventually(lambda: bus.stats().acknowledged == 1)
    assert recorder.messages == []
    gate.set()
    await eventually(lambda: recorder.numbers == [1])
    await bus.stop()


async def test_on_dispatch_stopping_waits_for_handlers(broker: InMemoryBroker) -> None:
    """What is acknowledged already comes to nobody else."""
    bus, recorder, gate = await held_up(broker)
    for number in range(3):
        await bus.send(note(number))
    await eventually(lambda: bus.stats().acknowledged == 3)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    gate.set()
    await stopping
    assert recorder.numbers == [0, 1, 2]


async def test_on_dispatch_stopping_waits_no_longer_than_it_may(
    broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(_: BusMessage) -> None:
        await asyncio.Event().wait()

    bus = make_bus(broker, acknowledge="on_dispatch", stop_timeout=0.1)
    await bus.subscribe(Recorder(handler=wait))
    await bus.start()
    for number in range(3):
        await bus.send(note(number))
    await eventually(lambda: bus.stats().acknowledged == 3)
    await bus.stop()
    assert "stopping with 3 messages unhandled, which are lost" in caplog.text


async def test_unsubscribing_lets_what_it_held_be_acknowledged(broker: InMemoryBroker) -> None:
    never = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await never.wait()

    bus = make_bus(broker)
    stuck = Recorder(handler=wait)
    await bus.subscribe(stuck)
    await bus.start()
    for number in range(3):
        await bus.send(note(number))
    await eventually(lambda: stuck.begun)
    await bus.unsubscribe(stuck)
    await eventually(lambda: bus.stats().acknowledged == 3)
    await bus.stop()


async def test_undecodable_messages_are_set_aside_and_reading_goes_on(
    broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    set_aside: list[tuple[int, bytes, Exception]] = []

    async def keep(msg_id: int, payload: bytes, error: SerializationError) -> None:
        await asyncio.sleep(0)
        set_aside.append((msg_id, payload, error))

    bus = make_bus(broker, on_undecodable=keep)
    recorder = Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    frame = {"__type__": "pipecat.bus.messages.BusFrameMessage", "__data__": {"source": "x" * 5000}}
    await publish_raw(broker, {"stray": 1}, frame, frame)
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1] and bus.stats().acknowledged == 4)
    assert bus.stats().undecodable == 3
    assert [msg_id for msg_id, _, _ in set_aside] == [1, 2, 3]
    assert json.loads(set_aside[0][1]) == {"stray": 1}
    assert isinstance(set_aside[1][2], UnknownTypeError)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2, "the same reason is logged once"
    text = warnings[1].getMessage()
    assert "message 2" in text
    assert "BusFrameMessage" in text
    assert len(text) < 1000
    await bus.stop()


@pytest.mark.parametrize("error", [RuntimeError, Panic])
async def test_a_callback_that_fails_does_not_hold_the_reader_up(
    broker: InMemoryBroker, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error("no")

    bus = make_bus(broker, on_undecodable=fail)
    await bus.start()
    await publish_raw(broker, {"stray": 1})
    await eventually(lambda: bus.stats().acknowledged == 1)
    assert bus.stats().handler_errors == 1
    await bus.stop()


async def test_any_failure_of_a_serializer_is_one_bad_message(broker: InMemoryBroker) -> None:
    from bus_runtime import JSONMessageSerializer

    class Strange(JSONMessageSerializer):
        def deserialize(self, data: bytes) -> Any:
            if b"nothing" in data:
                return None
            if b"crash" in data:
                raise KeyError("strange")
            if b"panic" in data:
                raise Panic
            return super().deserialize(data)

    bus = make_bus(broker, serializer=Strange())
    recorder = Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    await publish_raw(broker, {"nothing": 1}, {"crash": 1}, {"panic": 1})
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    assert bus.stats().undecodable == 3
    await bus.stop()


async def test_lost_messages_are_counted_and_reported(broker: InMemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    lost: list[int] = []
    bus = make_bus(broker, peer="ledger")
    await bus.start()
    await bus.stop()
    await publish_raw(broker, *[{"n": n} for n in range(5)])
    # What retention does to a peer that stays away.
    channel = broker.channel("orders")
    for msg_id in (1, 2, 3):
        del channel.log[msg_id]
    channel.trimmed = 3
    bus = make_bus(broker, peer="ledger", on_lost=lost.append)
    await bus.start()
    await eventually(lambda: bus.stats().acknowledged == 5)
    assert lost == [3]
    assert (bus.stats().lost, bus.stats().received) == (3, 2)
    assert "up to 3 messages were trimmed" in caplog.text
    await bus.stop()


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_on_lost_may_fail(broker: InMemoryBroker, error: type[BaseException]) -> None:
    """Also by asking a task that was cancelled for its result."""

    def fail(_: int) -> None:
        raise error("no")

    bus = make_bus(broker, on_lost=fail)
    channel = broker.channel("orders")
    await bus.start()
    channel.head = channel.trimmed = 4
    channel.ids = iter(range(5, 100))  # type: ignore[assignment]
    await bus.send(note(1))
    await eventually(lambda: bus.stats().acknowledged == 5)
    assert (bus.stats().lost, bus.stats().handler_errors) == (4, 1)
    await bus.stop()


async def test_stop_lets_what_was_taken_finish_and_leaves(broker: InMemoryBroker) -> None:
    gate = asyncio.Event()

    async def wait(message: BusMessage) -> None:
        await gate.wait()
        # Replies still get out while the bus is stopping.
        if getattr(message, "number", 0) == 0:
            await bus.publish(note(99), raise_on_error=True)

    bus = make_bus(broker)
    recorder = Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    for number in range(3):
        await bus.send(note(number))
    await eventually(lambda: bus.stats().in_flight == 3)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert recorder.numbers == [0, 1, 2]
    assert bus.stats().state == "stopped"
    assert broker.channel("orders").peers == {}
    await bus.stop()


async def test_stop_gives_up_on_a_handler_that_hangs(broker: InMemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    never = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await never.wait()

    bus = make_bus(broker, stop_timeout=0.05)
    recorder = Recorder(handler=wait)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.begun)
    await bus.stop()
    assert "stopping with 1 messages unhandled" in caplog.text


async def test_a_handler_may_stop_its_bus(broker: InMemoryBroker) -> None:
    async def stop(_: BusMessage) -> None:
        await bus.stop()

    bus = make_bus(broker, stop_timeout=60.0)
    recorder = Recorder(handler=stop)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    assert bus.stats().state == "stopped"


async def test_a_handler_may_stop_a_bus_that_is_stopping(broker: InMemoryBroker) -> None:
    stopping = asyncio.Event()

    async def stop(_: BusMessage) -> None:
        await stopping.wait()
        await bus.stop()

    bus = make_bus(broker, stop_timeout=60.0)
    recorder = Recorder(handler=stop)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.begun)
    first = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    stopping.set()
    await asyncio.wait_for(first, 5)
    assert recorder.numbers == [1]


async def test_stop_never_raises_because_leaving_failed(
    broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    class Sticky(InMemoryBackend):
        async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
            raise AccessDeniedError("bus: access denied", sqlstate="42501")

    bus = PgmqBus(backend=Sticky(broker), channel="orders")
    await bus.start()
    await bus.stop()
    assert "leaving failed" in caplog.text


async def test_a_stopped_bus_starts_again_at_the_head(broker: InMemoryBroker) -> None:
    bus, recorder = make_bus(broker), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    await bus.stop()
    await publish_raw(broker, {"missed": 1})
    await bus.start()
    await bus.send(note(2))
    await eventually(lambda: recorder.numbers == [1, 2])
    assert bus.stats().undecodable == 0
    await bus.stop()


async def test_a_failed_start_leaves_the_bus_stopped(broker: InMemoryBroker) -> None:
    class Refusing(InMemoryBackend):
        async def join_channel(self, channel: str, options: JoinOptions) -> Any:
            raise AccessDeniedError("bus: access denied", sqlstate="42501")

    bus = PgmqBus(backend=Refusing(broker), channel="orders")
    with pytest.raises(AccessDeniedError):
        await bus.start()
    assert bus.stats().state == "stopped"
    await bus.stop()


async def test_a_durable_peer_continues_with_what_it_had_not_handled(broker: InMemoryBroker) -> None:
    never = asyncio.Event()

    async def stick_at_two(message: BusMessage) -> None:
        if getattr(message, "number", 0) == 2:
            await never.wait()

    first = make_bus(broker, peer="ledger", stop_timeout=0.01)
    before = Recorder(handler=stick_at_two)
    await first.subscribe(before)
    await first.start()
    for number in range(4):
        await first.send(note(number))
    await eventually(lambda: len(before.begun) == 3)
    await first.stop()
    assert before.numbers == [0, 1]

    second, after = make_bus(broker, peer="ledger"), Recorder()
    await second.subscribe(after)
    await second.start()
    await eventually(lambda: after.numbers == [2, 3])
    await second.stop()
    assert broker.backlog("orders") == 0


async def test_a_durable_peer_that_was_taken_over_stops_and_says_so(
    broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    earlier, later = make_bus(broker, peer="ledger"), make_bus(broker, peer="ledger")
    old, new = Recorder("old"), Recorder("new")
    await earlier.subscribe(old)
    await later.subscribe(new)
    await earlier.start()
    await later.start()
    await later.send(note(1))
    await eventually(lambda: new.numbers == [1])
    await eventually(lambda: earlier.stats().state == "refused")
    assert "durable peer 'ledger' is refused: another process joined under the same name" in caplog.text
    assert old.messages == []
    with pytest.raises(PublishError, match="another process joined under the same name"):
        await earlier.publish(note(2), raise_on_error=True)
    await earlier.stop()
    assert later.stats().state == "running"
    await later.send(note(3))
    await eventually(lambda: new.numbers == [1, 3])
    await later.stop()


async def test_an_unnamed_peer_that_was_dropped_joins_again(
    broker: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[int] = []
    bus, recorder = make_bus(broker, on_lost=lost.append), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    broker.drop_peers("orders")
    await publish_raw(broker, {"missed": 1}, {"missed": 2})
    await eventually(lambda: bus.stats().rejoined == 1)
    assert "joined anew" in caplog.text
    assert lost == [2], "at most so many were missed"
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    await bus.stop()


async def test_a_publisher_that_notices_first_joins_again_and_publishes(broker: InMemoryBroker) -> None:
    bus, recorder = make_bus(broker), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    await eventually(lambda: broker.channel("orders").offers)
    broker.drop_peers("orders")
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    assert bus.stats().rejoined == 1
    await bus.stop()


async def test_host_and_version_are_told_on_joining(broker: InMemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[JoinOptions] = []

    class Listening(InMemoryBackend):
        async def join_channel(self, channel: str, options: JoinOptions) -> Any:
            told.append(options)
            return await super().join_channel(channel, options)

    monkeypatch.setenv("HOSTNAME", "worker-7")
    bus = PgmqBus(backend=Listening(broker), channel="orders", application="billing")
    await bus.start()
    await bus.stop()
    assert (told[0].application, told[0].host, told[0].peer) == ("billing", "worker-7", None)
    assert str(told[0].runtime).startswith("bus_runtime/")
