"""The channel log over PostgreSQL: a `LogBackend` of one `LogPeer` per membership, over one set of connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bus_runtime.backend import JoinOptions, LogRecord, Membership, Waker
from bus_runtime.binding import Binding, find_binding
from bus_runtime.connection import Database
from bus_runtime.errors import AccessDeniedError
from bus_runtime.facade import ReferenceMethods
from bus_runtime.log_peer import LogPeer

if TYPE_CHECKING:
    import asyncpg

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
        self._peers: dict[str, LogPeer] = {}

    @classmethod
    def from_binding(cls, name: str | None = None, *, root: str | Path | None = None) -> Self:
        """A backend for the injected binding, with connections of its own, opened by joining and closed by leaving.

        It serves the binding's channel, whether a caller names it or leaves the reference client's default.

        Raises:
            BindingError: There is no such binding, or it is incomplete; the message says what to do.
        """
        return cls(binding=find_binding(name, root=root))

    @property
    def generation(self) -> str | None:
        """The generation of the binding's credentials in use; None on a pool."""
        return self._database.generation

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of the binding; None on a pool, and where it names not one host."""
        return None if self._binding is None else self._binding.server

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        """Become a peer: one row, at the head of the log or where the durable peer was."""
        peer = LogPeer(self._database, self._name(channel))
        try:
            membership = await peer.join(options)
        except BaseException:
            await peer.close()
            if not self._peers:
                # Who has not joined does not leave either.
                await self._database.close()
            raise
        self._peers[membership.queue] = peer
        return membership

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """Append to the log in one transaction, and announce it; the ids."""
        return await self._peer(queue).publish(payloads)

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        """Read, acknowledge and heartbeat in one round trip."""
        return await self._peer(queue).read(after, acknowledge, limit)

    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        """Leave, and close our own connections with the last membership."""
        peer = self._peers.pop(queue, None)
        try:
            if peer is not None:
                await peer.close()
            if forget:
                await self._database.fetch(_LEAVE, self._name(channel), queue)
        finally:
            if not self._peers:
                await self._database.close()

    def waker(self, membership: Membership) -> Waker:
        """Woken by doorbells, by LISTEN where those do not arrive and a connection can be spared, else not at all."""
        return self._peer(membership.queue).waker()

    def _peer(self, queue: str) -> LogPeer:
        try:
            return self._peers[queue]
        except KeyError:
            raise AccessDeniedError(f"queue {queue!r} was not joined here, or left already") from None

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
