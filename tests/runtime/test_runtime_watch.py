"""Messages of the reference client, which rings nobody: one peer listens for them and rings the others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from postgres import Channel, Database
from recorder import Recorder, eventually, note

from bus_runtime import JSONMessageSerializer, PgmqBus

MakeBus = Callable[..., Awaitable[PgmqBus]]
Publish = Callable[[int], Awaitable[None]]


@pytest.fixture(params=["Sync", "Async"])
async def channel(database: Database, request: pytest.FixtureRequest) -> Channel:
    return await database.create_channel("shop.orders", durability=request.param)


@asynccontextmanager
async def reference_client(channel: Channel) -> AsyncIterator[Publish]:
    """Joins, long-polls and publishes as the reference client does, over two connections."""
    reading, writing = await channel.connect(), await channel.connect()
    queue = await writing.fetchval("select public.bus_join($1)", channel.name)
    serializer = JSONMessageSerializer()

    async def read() -> None:
        while True:
            await reading.fetch("select * from public.bus_subscribe($1, $2, 30, 10, 5)", queue, channel.name)

    async def publish(number: int) -> None:
        text = serializer.serialize(note(number)).decode()
        await writing.execute("select public.bus_publish($1, $2, $3::text::jsonb)", channel.name, queue, text)

    task = asyncio.create_task(read())
    try:
        yield publish
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        reading.terminate()
        await writing.execute("select public.bus_leave($1, $2)", queue, channel.name)
        await writing.close()


def waking(bus: PgmqBus) -> Any:
    link: Any = bus._link
    return link._backend._peers[link._session.membership.queue]._waking


def listening(*buses: PgmqBus) -> list[PgmqBus]:
    return [bus for bus in buses if waking(bus)._listener is not None and waking(bus)._listener.listening]


async def test_one_peer_listens_and_the_others_are_rung(channel: Channel, make_bus: MakeBus) -> None:
    recorders = [Recorder(str(number)) for number in range(3)]
    buses = [await make_bus(recorder, max_poll_seconds=60) for recorder in recorders]
    await eventually(lambda: listening(*buses) == [buses[0]])
    async with reference_client(channel) as publish:
        # The first at once: nobody needs to have heard of the client before.
        for number in range(20):
            began = time.monotonic()
            await publish(number)
            await eventually(lambda number=number: all(r.numbers[-1:] == [number] for r in recorders))
            assert time.monotonic() - began < 5
    assert [recorder.numbers for recorder in recorders] == [list(range(20))] * 3
    assert listening(*buses) == [buses[0]]
    assert {bus.stats().wake for bus in buses} == {"doorbell"}
    assert sum(bus.stats().overlooked for bus in buses) == 0


async def test_another_peer_takes_over_when_the_one_that_listens_leaves(channel: Channel, make_bus: MakeBus) -> None:
    recorders = [Recorder(str(number)) for number in range(3)]
    buses = [await make_bus(recorder, max_poll_seconds=60) for recorder in recorders]
    await eventually(lambda: listening(*buses) == [buses[0]])
    await buses[0].stop()
    # The others learn of it with their next call.
    await buses[2].publish(note(0))
    await eventually(lambda: all(recorder.numbers == [0] for recorder in recorders[1:]))
    await eventually(lambda: listening(*buses[1:]) == [buses[1]])
    async with reference_client(channel) as publish:
        await publish(1)
        await eventually(lambda: all(recorder.numbers == [0, 1] for recorder in recorders[1:]))
