"""A channel as it is on the wire: for tools that look on or publish JSON."""

import asyncio
from typing import Literal

import pytest
from recorder import eventually

from bus_runtime import RejectedError, UnavailableError
from bus_runtime.backend import LogRecord
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


def append(broker: InMemoryBroker, payload: bytes) -> None:
    """A message that nobody is told of."""
    state = broker.channel("orders")
    state.head = next(state.ids)
    state.log[state.head] = payload


@pytest.mark.parametrize(("last_look", "received"), [(0.0, 0), (30.0, 250)])
async def test_a_last_look_finds_what_nobody_has_told_of(last_look: float, received: int) -> None:
    broker = InMemoryBroker()
    seen: list[int] = []
    looking = Wire(InMemoryBackend(broker), "orders", application="a", receive=lambda msg_id, _: seen.append(msg_id))
    await looking.start()
    for _ in range(250):
        append(broker, b"1")
    await looking.stop(last_look=last_look)
    assert seen == list(range(1, received + 1))
    assert not broker.channel("orders").peers


class Ending(InMemoryBackend):
    """Once it is `over`, its server is gone, or its publishers never pause."""

    over: Literal["no", "gone", "busy"] = "no"

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        if self.over == "gone":
            raise UnavailableError("the server is gone")
        if self.over == "busy":
            await asyncio.sleep(0)
            append(self._broker, b"1")
        return await super().read_after(channel, queue, after=after, acknowledge=acknowledge, limit=limit)


@pytest.mark.parametrize("over", ["gone", "busy"])
async def test_a_last_look_ends(over: Literal["gone", "busy"]) -> None:
    backend = Ending(InMemoryBroker())
    wire = Wire(backend, "orders", application="busctl dev", receive=lambda *_: None)
    await wire.start()
    backend.over = over
    async with asyncio.timeout(30):
        await wire.stop(last_look=0.2)
