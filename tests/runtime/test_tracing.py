"""The trace context between processes, over a real server: by doorbell and from the log."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import spans
from recorder import Recorder, eventually, note
from spans import attributes

from bus_runtime import BusMessage, PgmqBus, find_binding

MakeBus = Callable[..., Awaitable[PgmqBus]]

STATE = "vendor=opaque value,other@tenant=1"


@pytest.mark.parametrize("waking", ["doorbell", "log"])
async def test_the_context_crosses(
    make_bus: MakeBus, bindings: Path, waking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waking == "log":
        monkeypatch.setenv("PGMQ_BUS_ADDRESS", "off")
    recorder = Recorder()
    with spans.recording() as recorded:
        await make_bus(recorder, peer="billing")
        process = await asyncio.create_subprocess_exec(
            sys.executable, Path(__file__).with_name("traced_publisher.py"), bindings, STATE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        await eventually(lambda: recorded.handled)
    trace_id, span_id, kind, of_publish = json.loads(output)
    (handling,) = recorded.handled
    assert (trace_id, kind) == (7, "PRODUCER")
    assert handling.parent is not None
    assert (handling.parent.trace_id, handling.parent.span_id) == (trace_id, span_id)
    assert handling.parent.trace_state.to_header() == STATE
    assert [link.context for link in handling.links] == [handling.parent]
    shared = ("messaging.system", "messaging.destination.name", "messaging.message.id", "server.address", "server.port")
    assert {name: of_publish[name] for name in shared} == {name: attributes(handling)[name] for name in shared}
    assert of_publish["messaging.destination.name"] == "shop.orders"
    assert (of_publish["server.address"], of_publish["server.port"]) == find_binding(root=bindings).server
    (message,) = recorder.messages
    assert vars(message).keys() == {"id", "name", "source", "target", "reason"}


async def test_a_handler_that_fails(make_bus: MakeBus) -> None:
    async def fail(_: BusMessage) -> None:
        raise ValueError("no")

    with spans.recording() as recorded:
        bus = await make_bus(Recorder(handler=fail))

        await bus.publish(note(1), raise_on_error=True)
        await eventually(lambda: recorded.handled)
    (handling,) = recorded.handled
    assert handling.status.status_code.name == "ERROR"
    assert attributes(handling)["error.type"] == "ValueError"
