"""The floor: asyncpg and NOTIFY with the message inside. Nothing is kept, and 8000 bytes are the limit."""

import asyncio
import json
from dataclasses import dataclass
from itertools import count
from typing import Any

import asyncpg

from benchmarks.clients.base import Client, Endpoint, Payload, Receive, envelope, opened


class _Notify(Client):
    def __init__(self, connection: asyncpg.Connection, channel: str) -> None:
        self._connection = connection
        self._channel = channel
        self._statement: Any = None
        # A connection runs one statement at a time; the floor needs no pool, which would only queue at the
        # server's lock for notifications.
        self._one_at_a_time = asyncio.Lock()
        self._numbers = count()

    async def prepare(self) -> None:
        self._statement = await self._connection.prepare("select pg_notify($1, $2)")

    async def publish(self, payload: Payload) -> None:
        text = json.dumps(envelope(next(self._numbers), payload), separators=(",", ":"))
        async with self._one_at_a_time:
            await self._statement.fetchval(self._channel, text)

    async def listen(self, receive: Receive) -> None:
        def on_notification(_connection: Any, _pid: int, _channel: str, text: str) -> None:
            receive(opened(json.loads(text)))

        await self._connection.add_listener(self._channel, on_notification)

    async def close(self) -> None:
        await self._connection.close()


@dataclass(frozen=True)
class NotifyEndpoint(Endpoint):
    """A notification channel of a database."""

    uri: str
    channel: str

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        client = _Notify(await asyncpg.connect(self.uri), self.channel)
        await client.prepare()
        if receive is not None:
            await client.listen(receive)
        return client
