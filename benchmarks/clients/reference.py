"""pipecat's buses, unmodified: over PGMQ's own functions, over wrapper functions, over our backend, over Redis."""

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from loguru import logger

import bus_runtime
from benchmarks.clients.base import Client, Endpoint, Payload, Receive

# Before pipecat is imported, which announces itself through it. What goes wrong in it later is written to the log.
logger.remove()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn on import
    from pgmq.async_queue import PGMQueue
    from pipecat.bus import BusSubscriber
    from pipecat.bus.bus import WorkerBus
    from pipecat.bus.messages import BusJobRequestMessage
    from pipecat.bus.network.pgmq import PgmqBus
    from pipecat.bus.network.pgmq_backends import DirectPgmqBackend, IsolatedPgmqBackend
    from pipecat.utils.asyncio.task_manager import TaskManager

# Four are its examples' number; ten leave room for 64 publishes at once.
_POOL_SIZE = 10


class _Subscriber(BusSubscriber):  # type: ignore[misc]
    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    @property
    def name(self) -> str:
        return "bench"

    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, BusJobRequestMessage):
            self._receive(message.payload)


class _Bus(Client):
    def __init__(self, bus: WorkerBus, disconnect: Callable[[], Awaitable[None]]) -> None:
        self._bus = bus
        self._disconnect = disconnect

    async def publish(self, payload: Payload) -> None:
        await self._bus.publish(BusJobRequestMessage(source="bench", job_id="job", payload=payload))

    async def close(self) -> None:
        await self._bus.stop()
        await self._disconnect()


async def _started(bus: WorkerBus, receive: Receive | None, disconnect: Callable[[], Awaitable[None]]) -> Client:
    await bus.setup(TaskManager(loop=asyncio.get_running_loop()))
    if receive is not None:
        await bus.subscribe(_Subscriber(receive))
    await bus.start()
    return _Bus(bus, disconnect)


@dataclass(frozen=True)
class IsolatedEndpoint(Endpoint):
    """`IsolatedPgmqBackend` on the wrapper functions of sql/queue_per_peer.sql."""

    uri: str
    channel: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        pool = await asyncpg.create_pool(self.uri, min_size=2, max_size=_POOL_SIZE)
        return await _started(PgmqBus(backend=IsolatedPgmqBackend(pool), channel=self.channel), receive, pool.close)


class _NamesOnly(PGMQueue):  # type: ignore[no-untyped-call]
    """pipecat-ai 1.14 is made for pgmq before 1.1, which listed names instead of records."""

    async def list_queues(self, conn: Any = None) -> list[str]:  # type: ignore[override]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [record.queue_name for record in await super().list_queues(conn=conn)]


@dataclass(frozen=True)
class DirectEndpoint(Endpoint):
    """`DirectPgmqBackend`: peers find each other by their queues' names."""

    uri: str
    channel: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        queue = _NamesOnly(conn_string=self.uri, init_extension=False, pool_size=_POOL_SIZE)
        await queue.init()
        return await _started(PgmqBus(backend=DirectPgmqBackend(queue), channel=self.channel), receive, queue.close)


@dataclass(frozen=True)
class BindingEndpoint(Endpoint):
    """pipecat's bus on our backend and a binding: the two lines that docs/how-to/pipecat.md changes."""

    root: Path
    binding: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        backend = bus_runtime.IsolatedPgmqBackend.from_binding(self.binding, root=self.root)
        return await _started(PgmqBus(backend=backend), receive, backend.close)


@dataclass(frozen=True)
class RedisEndpoint(Endpoint):
    """`RedisBus`, over Redis' pub/sub."""

    port: int
    channel: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        from pipecat.bus.network.redis import RedisBus
        from redis.asyncio import Redis

        redis = Redis(port=self.port)
        return await _started(RedisBus(redis=redis, channel=self.channel), receive, redis.aclose)
