"""The reference client, unmodified, beside ours."""

import asyncio
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from postgres import Channel, Database

with warnings.catch_warnings():
    # Its dependencies warn on import; that is not what is tested here.
    warnings.simplefilter("ignore")
    from loguru import logger
    from pipecat.bus.network.pgmq import PgmqBus as ReferenceBus
    from pipecat.bus.network.pgmq_backends import IsolatedPgmqBackend as ReferenceIsolatedBackend
    from pipecat.utils.asyncio.task_manager import TaskManager

from bus_runtime import PgmqBus

sys.path.insert(0, str(Path(__file__).parent))
logger.remove()


@pytest.fixture
async def channel(database: Database) -> Channel:
    return await database.create_channel("shop.orders")


@pytest.fixture
def bindings(channel: Channel, tmp_path: Path) -> Path:
    return channel.binding_dir(tmp_path / "bindings")


@pytest.fixture
async def ours(bindings: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts buses of ours on the binding."""
    made: list[PgmqBus] = []

    async def make(*subscribers: Any, **options: Any) -> PgmqBus:
        bus = PgmqBus.from_binding(root=bindings, **options)
        made.append(bus)
        for subscriber in subscribers:
            await bus.subscribe(subscriber)
        await bus.start()
        return bus

    yield make
    for bus in made:
        await bus.stop()


@pytest.fixture
async def reference() -> AsyncIterator[Callable[..., Any]]:
    """Starts buses of the reference client with the given arguments."""
    made: list[ReferenceBus] = []

    async def make(*subscribers: Any, **options: Any) -> ReferenceBus:
        bus = ReferenceBus(**options)
        await bus.setup(TaskManager(loop=asyncio.get_running_loop()))
        made.append(bus)
        for subscriber in subscribers:
            await bus.subscribe(subscriber)
        await bus.start()
        return bus

    yield make
    for bus in made:
        await bus.stop()


@pytest.fixture
async def reference_backend(bindings: Path, channel: Channel) -> AsyncIterator[ReferenceIsolatedBackend]:
    """The reference's own backend, with nothing but the binding's uri."""
    uri = (bindings / "orders" / "uri").read_text()
    async with asyncpg.create_pool(uri, min_size=2, max_size=4) as pool:
        yield ReferenceIsolatedBackend(pool)
