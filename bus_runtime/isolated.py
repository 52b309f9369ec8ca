"""The channel log over PostgreSQL, through the functions of the schema `pgmq_bus_v1`.

JSON crosses this module as text in both directions: it is neither decoded nor encoded here, whatever type
codecs the caller's pool has set, because the statements cast to and from text themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import orjson

from bus_runtime.backend import JoinOptions, LogRecord, Membership, Waker
from bus_runtime.binding import Binding, find_binding
from bus_runtime.connection import Database
from bus_runtime.facade import ReferenceMethods
from bus_runtime.waking import ListenWaker, PollWaker

if TYPE_CHECKING:
    import asyncpg

_JOIN = "select pgmq_bus_v1.join_channel($1::text, $2::text::jsonb)::text as joined"
_PUBLISH = "select pgmq_bus_v1.publish($1::text, $2::text, $3::text[]::jsonb[]) as ids"
_READ = """
select msg_id, message::text as message, lost
from pgmq_bus_v1.read($1::text, $2::text, $3::bigint, $4::bigint, $5::integer, $6::integer)
"""
_LEAVE = "select pgmq_bus_v1.leave($1::text, $2::text)"

#: What the reference client calls a channel nobody named.
_UNNAMED_CHANNEL = "pipecat_bus"


class IsolatedPgmqBackend(ReferenceMethods):
    """A `LogBackend`, and a `PgmqBackend` for the reference client, for peers that are isolated from each other.

    Args:
        pool: An `asyncpg.Pool` whose login may use the channel. It stays the caller's and is never closed here. With
            two connections or more, one is kept for LISTEN; with one, new messages are noticed by polling.
        binding: In place of a pool: where to connect; see `from_binding`.

    Raises:
        ValueError: Both or neither of `pool` and `binding`.
    """

    def __init__(self, pool: asyncpg.Pool | None = None, *, binding: Binding | None = None) -> None:
        super().__init__()
        self._database = Database(pool=pool, binding=binding)
        self._binding = binding
        self._members: set[str] = set()

    @classmethod
    def from_binding(cls, name: str | None = None, *, root: str | Path | None = None) -> Self:
        """A backend for the injected binding, with connections of its own, opened by joining and closed by leaving.

        It serves the binding's channel, whether a caller names it or leaves the reference client's default.

        Raises:
            BindingError: There is no such binding, or it is incomplete; the message says what to do.
        """
        return cls(binding=find_binding(name, root=root))

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        """Become a peer: one row, at the head of the log or where the durable peer was."""
        given = {
            "peer": options.peer,
            "application": options.application,
            "host": options.host,
            "runtime": options.runtime,
        }
        rows = await self._database.fetch(_JOIN, self._name(channel), orjson.dumps(given).decode())
        joined = orjson.loads(rows[0]["joined"])
        self._members.add(joined["queue"])
        return Membership(
            queue=joined["queue"],
            position=joined["position"],
            wake=joined["wake"],
            max_message_bytes=joined["max_message_bytes"],
            peer_timeout_seconds=float(joined["peer_timeout_seconds"]),
            resumed=joined["resumed"],
        )

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """Append to the log in one transaction; the ids."""
        texts = [payload.decode() for payload in payloads]
        rows = await self._database.fetch(_PUBLISH, self._name(channel), queue, texts)
        ids: list[int] = rows[0]["ids"]
        return ids

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, visibility_timeout: int, limit: int
    ) -> list[LogRecord]:
        """Read, acknowledge and heartbeat in one round trip."""
        rows = await self._database.fetch(
            _READ, self._name(channel), queue, after, acknowledge, visibility_timeout, limit
        )
        return [
            LogRecord(
                msg_id=msg_id,
                payload=None if message is None else message.encode(),
                lost=lost or 0,
            )
            for msg_id, message, lost in rows
        ]

    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        """Leave, and close our own connections with the last membership."""
        try:
            if forget:
                await self._database.fetch(_LEAVE, self._name(channel), queue)
        finally:
            self._members.discard(queue)
            if not self._members:
                await self._database.close()

    def waker(self, membership: Membership) -> Waker:
        """LISTEN where a connection can be spared for it."""
        if membership.wake is None or not self._database.spares_a_connection:
            return PollWaker()
        return ListenWaker(self._database.connection, membership.wake)

    async def close(self) -> None:
        """Close our own connections, if there are any; a pool that was given stays open."""
        await self._database.close()

    def _name(self, channel: str) -> str:
        """The channel to name to the server: a binding is for one channel only."""
        if self._binding is None or channel == self._binding.channel:
            return channel
        if channel == _UNNAMED_CHANNEL:
            return self._binding.channel
        raise ValueError(
            f"binding {self._binding.name!r} is for channel {self._binding.channel!r}, not {channel!r}; "
            "use another binding or leave the channel out"
        )
