"""NATS JetStream with its Python client: a push consumer for each subscriber, every message acknowledged."""

import json
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from benchmarks.clients.base import Client, Endpoint, Payload, Receive, envelope, opened

if TYPE_CHECKING:
    from nats.aio.client import Client as Connection

STREAM = "bench"


class _JetStream(Client):
    def __init__(self, connection: "Connection", subject: str) -> None:
        self._connection = connection
        self._stream = connection.jetstream()
        self._subject = subject
        self._numbers = count()

    async def publish(self, payload: Payload) -> None:
        message = envelope(next(self._numbers), payload)
        await self._stream.publish(self._subject, json.dumps(message, separators=(",", ":")).encode())

    async def subscribe(self, receive: Receive) -> None:
        async def on_message(message: Any) -> None:
            receive(opened(json.loads(message.data)))
            await message.ack()

        await self._stream.subscribe(self._subject, cb=on_message, manual_ack=True)

    async def close(self) -> None:
        await self._connection.close()


@dataclass(frozen=True)
class NatsEndpoint(Endpoint):
    """A subject of the benchmark's stream."""

    port: int
    subject: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        import nats

        connection = await nats.connect(f"nats://127.0.0.1:{self.port}")
        client = _JetStream(connection, self.subject)
        if receive is not None:
            await client.subscribe(receive)
            await connection.flush()
        return client


async def create_stream(port: int) -> None:
    """Make the stream, in files, for all subjects below `bench.`, keeping no more than a gigabyte."""
    import nats
    from nats.js.api import StorageType, StreamConfig

    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        config = StreamConfig(name=STREAM, subjects=["bench.>"], storage=StorageType.FILE, max_bytes=1 << 30)
        await connection.jetstream().add_stream(config)
    finally:
        await connection.close()
