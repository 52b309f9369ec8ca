"""Spans of a bus on the log in memory: kinds, names, parents, links, attributes, failures; none where unwanted."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import spans
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, StatusCode
from recorder import Recorder, eventually, note
from spans import Spans, attributes

from bus_runtime import BusMessage, BusWorkerLocalErrorMessage, PgmqBus, PublishError
from bus_runtime.backend import JoinOptions
from bus_runtime.headers import trace_headers
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


@pytest.fixture
def recorded() -> Iterator[Spans]:
    with spans.recording() as made:
        yield made


class Bus:
    """A bus that runs, with these subscribers."""

    def __init__(self, broker: InMemoryBroker, *subscribers: Recorder, **options: Any) -> None:
        self.bus = PgmqBus(backend=InMemoryBackend(broker), channel="orders", **options)
        self._subscribers = subscribers

    async def __aenter__(self) -> PgmqBus:
        for subscriber in self._subscribers:
            await self.bus.subscribe(subscriber)
        await self.bus.start()
        return self.bus

    async def __aexit__(self, *_: object) -> None:
        await self.bus.stop()


def stored(broker: InMemoryBroker) -> list[bytes]:
    return list(broker.channel("orders").log.values())


async def test_a_message_and_its_two_handlers(recorded: Spans) -> None:
    broker, one, two = InMemoryBroker(), Recorder("one"), Recorder("two")
    tracer = recorded.provider.get_tracer("test")
    async with Bus(broker) as sender, Bus(broker, one, two, peer="billing"):
        with tracer.start_as_current_span("request") as request:
            await sender.publish(note(1), raise_on_error=True)
        await eventually(lambda: one.messages and two.messages)
    (publish,) = recorded.published
    assert publish.name == "publish orders"
    assert publish.parent == request.get_span_context()
    assert attributes(publish) == {
        "messaging.system": "pgmq_bus",
        "messaging.destination.name": "orders",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.message.id": "1",
        "pgmq_bus.message.type": "Note",
    }
    handled = {attributes(span)["pgmq_bus.subscriber.name"]: span for span in recorded.handled}
    assert handled.keys() == {"one", "two"}
    for name, span in handled.items():
        assert span.name == "process orders"
        assert span.parent is not None
        assert span.parent.is_remote
        assert (span.parent.trace_id, span.parent.span_id) == (publish.context.trace_id, publish.context.span_id)
        assert [link.context for link in span.links] == [span.parent]
        assert attributes(span) == {
            "messaging.system": "pgmq_bus",
            "messaging.destination.name": "orders",
            "messaging.destination.subscription.name": "billing",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": "1",
            "pgmq_bus.message.type": "Note",
            "pgmq_bus.subscriber.name": name,
        }
        assert span.status.status_code is StatusCode.UNSET


async def test_what_a_handler_publishes_belongs_to_it(recorded: Spans) -> None:
    broker = InMemoryBroker()

    async def answer(message: BusMessage) -> None:
        if message.source == "asker":
            await bus.publish(note(2, source="answerer"), raise_on_error=True)

    recorder = Recorder(handler=answer)
    async with Bus(broker, recorder) as bus:
        await bus.publish(note(1, source="asker"), raise_on_error=True)
        await eventually(lambda: len(recorder.messages) == 2)
    asked, answered = recorded.published
    (handling,) = [span for span in recorded.handled if attributes(span)["messaging.message.id"] == "1"]
    assert answered.parent == handling.context
    assert len({span.context.trace_id for span in (*recorded.published, *recorded.handled)}) == 1
    assert asked.parent is None


async def test_a_handler_that_raises_marks_its_span_and_no_other(recorded: Spans) -> None:
    async def fail(_: BusMessage) -> None:
        raise LookupError("no such order")

    async def give_up(_: BusMessage) -> None:
        raise asyncio.CancelledError

    broker, good = InMemoryBroker(), Recorder("good")
    async with Bus(broker, good, Recorder("bad", fail), Recorder("gone", give_up)) as bus:
        await bus.publish(note(1), raise_on_error=True)
        await eventually(lambda: bus.stats().handled == 1)
        assert bus.stats().handler_errors == 2
    by_name = {attributes(span)["pgmq_bus.subscriber.name"]: span for span in recorded.handled}
    bad, gone = by_name["bad"], by_name["gone"]
    assert bad.status.status_code is gone.status.status_code is StatusCode.ERROR
    assert bad.status.description == "LookupError: no such order"
    assert [event.name for event in bad.events] == ["exception"]
    assert attributes(bad)["error.type"] == "LookupError"
    assert attributes(gone)["error.type"] == "asyncio.exceptions.CancelledError"
    assert by_name["good"].status.status_code is StatusCode.UNSET


async def test_a_publish_that_fails_marks_its_span_though_nothing_is_raised(recorded: Spans) -> None:
    async with Bus(InMemoryBroker(max_message_bytes=1000)) as bus:
        await bus.publish(note(1, source="x" * 2000))
        assert bus.stats().publish_errors == 1
    (publish,) = recorded.published
    assert publish.status.status_code is StatusCode.ERROR
    assert attributes(publish)["error.type"] == "MessageTooLarge"
    assert "messaging.message.id" not in attributes(publish)


async def test_a_message_that_is_too_large_with_its_context_goes_without(recorded: Spans) -> None:
    recorder, broker = Recorder(), InMemoryBroker()
    async with Bus(broker, recorder, tracing=False) as listening:
        backend = InMemoryBackend(broker)
        plain = await _size(backend)
        broker.max_message_bytes = plain + 20
        async with Bus(broker) as bus:
            await bus.publish(note(1, source="x"), raise_on_error=True)
        await eventually(lambda: recorder.numbers == [1])
        assert listening.stats().undecodable == 0
    (publish,) = recorded.published
    assert publish.status.status_code is StatusCode.UNSET


async def _size(backend: InMemoryBackend) -> int:
    from bus_runtime import JSONMessageSerializer

    return len(JSONMessageSerializer().serialize(note(1, source="x")))


async def test_a_message_without_context_begins_a_trace(recorded: Spans) -> None:
    broker, recorder = InMemoryBroker(), Recorder()
    tracer = recorded.provider.get_tracer("test")
    with tracer.start_as_current_span("what started the bus"):
        running = Bus(broker, recorder)
        await running.__aenter__()
    async with Bus(broker, tracing=False) as untraced:
        await untraced.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.messages)
    await running.__aexit__()
    (handling,) = recorded.handled
    assert handling.parent is None
    assert not handling.links
    assert not recorded.published


async def test_hostile_headers_disturb_nobody(recorded: Spans) -> None:
    broker, recorder = InMemoryBroker(), Recorder()
    async with Bus(broker, recorder, tracing=False) as writer:
        await writer.publish(note(0), raise_on_error=True)
        await eventually(lambda: recorder.numbers == [0])
        envelope = orjson.loads(writer._serializer.serialize(note(1)))
    headers: list[Any] = [None, [], "x", {"traceparent": 1}, {"traceparent": "00-" + "f" * 10_000}, {"tracestate": {}}]
    async with Bus(broker, recorder) as bus:
        backend = InMemoryBackend(broker)
        membership = await backend.join_channel("orders", JoinOptions())
        await backend.publish_many(
            "orders", membership.queue, [orjson.dumps(envelope | {"__headers__": one}) for one in headers]
        )
        await eventually(lambda: len(recorder.messages) >= 1 + len(headers))
        assert bus.stats().undecodable == bus.stats().handler_errors == 0
    assert all(span.parent is None for span in recorded.handled)


async def test_who_is_behind_is_traced_as_well(recorded: Spans) -> None:
    """A subscriber that reads the log by itself."""
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    broker, quick, slow = InMemoryBroker(), Recorder("quick"), Recorder("slow", wait)
    async with Bus(broker, quick, slow, max_in_flight=2) as bus:
        for number in range(10):
            await bus.publish(note(number), raise_on_error=True)
        await eventually(lambda: len(quick.messages) == 10)
        gate.set()
        await eventually(lambda: len(slow.messages) == 10)
    of_slow = [span for span in recorded.handled if attributes(span)["pgmq_bus.subscriber.name"] == "slow"]
    assert [attributes(span)["messaging.message.id"] for span in of_slow] == [str(number) for number in range(1, 11)]
    publishes = [span.context.span_id for span in recorded.published]
    assert [span.parent.span_id for span in of_slow if span.parent is not None] == publishes


async def test_where_nothing_is_configured_nothing_is_sent_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in (trace.ProxyTracerProvider(), NoOpTracerProvider()):
        monkeypatch.setattr(trace, "get_tracer_provider", lambda provider=provider: provider)
        await _publishes_without_headers()


async def test_tracing_that_is_not_wanted(recorded: Spans) -> None:
    await _publishes_without_headers(tracing=False)
    assert not recorded.published


async def _publishes_without_headers(**options: Any) -> None:
    broker = InMemoryBroker()
    await InMemoryBackend(broker).join_channel("orders", JoinOptions(peer="keeps the log"))
    async with Bus(broker, **options) as bus:
        await bus.publish(note(1), raise_on_error=True)
    (payload,) = stored(broker)
    assert trace_headers(payload) == {}
    assert orjson.loads(payload).keys() == {"__type__", "__data__"}


async def test_local_messages_have_no_spans(recorded: Spans) -> None:
    recorder = Recorder()
    async with Bus(InMemoryBroker(), recorder) as bus:
        await bus.send(BusWorkerLocalErrorMessage("oh", source="s"))
        await eventually(lambda: recorder.messages)
    assert not recorded.published
    assert not recorded.handled


async def test_a_bus_that_does_not_run_has_no_spans(recorded: Spans) -> None:
    bus = PgmqBus(backend=InMemoryBackend(InMemoryBroker()), channel="orders")
    with pytest.raises(PublishError):
        await bus.publish(note(1), raise_on_error=True)
    assert not recorded.published


def test_it_is_an_extra() -> None:
    """Without OpenTelemetry a bus works, and importing the runtime does not import it."""
    program = """
import asyncio, sys
import bus_runtime, bus_runtime.testing
assert not any(name.startswith("opentelemetry") for name in sys.modules)
sys.modules["opentelemetry"] = None

async def main():
    broker = bus_runtime.testing.InMemoryBroker()
    bus = bus_runtime.PgmqBus(backend=bus_runtime.testing.InMemoryBackend(broker))
    await bus.start()
    await bus.publish(bus_runtime.BusEndMessage(source="s"), raise_on_error=True)
    await bus.stop()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
