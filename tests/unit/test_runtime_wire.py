"""A channel as it is on the wire: for tools that look on or publish JSON."""

import pytest
from recorder import eventually

from bus_runtime import RejectedError
from bus_runtime.testing import InMemoryBackend, InMemoryBroker
from bus_runtime.wire import Wire


async def test_the_wire_holds_nothing_back() -> None:
    """Whoever looks on receives everything from then on with its id, and the log is trimmed as if nobody did."""
    broker = InMemoryBroker()
    seen: list[tuple[int, bytes]] = []
    looking = Wire(InMemoryBackend(broker), "orders", application="busctl tail", receive=lambda *m: seen.append(m))
    publishing = Wire(InMemoryBackend(broker), "orders", application="busctl publish")
    await publishing.start()
    assert await publishing.publish(b'{"n":0}') == 1
    await looking.start()
    assert [await publishing.publish(b'{"n":%d}' % n) for n in (1, 2)] == [2, 3]
    await eventually(lambda: seen == [(2, b'{"n":1}'), (3, b'{"n":2}')])
    await eventually(lambda: broker.backlog("orders") == 0)
    await looking.stop()
    await publishing.stop()
    assert not broker.channel("orders").peers


async def test_what_is_refused_is_told() -> None:
    wire = Wire(InMemoryBackend(InMemoryBroker(max_message_bytes=10)), "orders", application="busctl publish")
    await wire.start()
    with pytest.raises(RejectedError):
        await wire.publish(b'"01234567890"')
    assert await wire.publish(b"1") == 1
    await wire.stop()
