"""The runtime on a real server: a channel, its binding, and buses that are stopped whatever a test does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from postgres import Channel, Database

from bus_runtime import PgmqBus

MakeBus = Callable[..., Awaitable[PgmqBus]]


@pytest.fixture
async def channel(database: Database) -> Channel:
    return await database.create_channel("shop.orders")


@pytest.fixture
def bindings(channel: Channel, tmp_path: Path) -> Path:
    """The directory that SERVICE_BINDING_ROOT would name, with one binding."""
    return channel.binding_dir(tmp_path / "bindings")


@pytest.fixture
async def make_bus(bindings: Path) -> AsyncIterator[MakeBus]:
    """Makes and starts buses on the binding."""
    made: list[PgmqBus] = []

    async def make(*subscribers: Any, start: bool = True, **options: Any) -> PgmqBus:
        bus = PgmqBus.from_binding(root=bindings, **options)
        made.append(bus)
        for subscriber in subscribers:
            await bus.subscribe(subscriber)
        if start:
            await bus.start()
        return bus

    yield make
    await asyncio.gather(*(bus.stop() for bus in made))
