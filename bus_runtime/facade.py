"""The reference client's five methods on top of a `LogBackend`, so that its `PgmqBus` runs on ours.

A queue here is a session with its own cursor. `read` waits on the client's side: nothing long-polls in
the server, where an open snapshot would hold vacuum back. `archive` only notes the position, and the next
`read` carries it to the server, so that acknowledging costs no round trip of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bus_runtime._version import __version__
from bus_runtime.backend import BackendMessage, JoinOptions, LogRecord, Membership, Waker
from bus_runtime.errors import AccessDeniedError
from bus_runtime.publisher import Publisher
from bus_runtime.session import Session

#: Seconds for which a message is tried again while the server certainly did not take it. The reference client
#: drops what cannot be published, so this is what a short outage may last without losing anything.
_PUBLISH_TIMEOUT = 10.0


@dataclass
class _Cursor:
    session: Session
    publisher: Publisher
    membership: Membership
    waker: Waker
    after: int
    handled: int
    visible_at: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        # Offered messages are read from the log all the same: the reference client asks for them.
        await self.waker.start(lambda up_to=None: self.wake.set(), lambda first_id, payloads: self.wake.set())

    def follow(self, membership: Membership, waker: Waker) -> None:
        self.membership, self.waker = membership, waker
        self.after = self.handled = membership.position


class ReferenceMethods(ABC):
    """Mixin for a `LogBackend`: join, publish, read, archive and leave as `PgmqBackend` has them."""

    def __init__(self) -> None:
        self._cursors: dict[str, _Cursor] = {}

    @abstractmethod
    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        """See `LogBackend`."""

    @abstractmethod
    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """See `LogBackend`."""

    @abstractmethod
    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        """See `LogBackend`."""

    @abstractmethod
    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        """See `LogBackend`."""

    @abstractmethod
    def waker(self, membership: Membership) -> Waker:
        """See `LogBackend`."""

    @abstractmethod
    async def close(self) -> None:
        """See `LogBackend`."""

    async def join(self, channel: str) -> str:
        """Become a peer at the head of the channel; the name of its queue.

        Raises:
            BackendError: The server refused or is out of reach.
        """
        session = Session(self, channel, JoinOptions(runtime=f"bus_runtime/{__version__}"))
        membership = await session.join(0)
        cursor = _Cursor(
            session,
            Publisher(self, session, timeout=_PUBLISH_TIMEOUT),
            membership,
            self.waker(membership),
            after=membership.position,
            handled=membership.position,
        )
        await cursor.watch()
        self._cursors[membership.queue] = cursor
        return membership.queue

    async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
        """Append one message to the log, together with others that are waiting.

        Raises:
            BackendError: It was not published; for `ConnectionLostError` that is not known.
        """
        await self._cursor(my_queue).publisher.publish(json.dumps(payload, separators=(",", ":")).encode())

    async def read(
        self,
        queue: str,
        *,
        channel: str,
        vt: int,
        qty: int,
        max_poll_seconds: int,
        poll_interval_ms: int,
    ) -> list[BackendMessage]:
        """Up to `qty` messages, or none after `max_poll_seconds`.

        What was read and not archived within `vt` seconds is read again. A peer that the server dropped joins
        anew behind the same queue name, at the head.

        Raises:
            BackendError: The server refused or is out of reach; call again.
        """
        cursor = self._cursor(queue)
        give_up = time.monotonic() + max_poll_seconds
        interval = poll_interval_ms / 1000
        while True:
            cursor.wake.clear()
            try:
                messages = await self._read_once(cursor, channel, vt, qty)
            except AccessDeniedError:
                await self._rejoin(cursor)
                continue
            remaining = give_up - time.monotonic()
            if messages or remaining <= 0:
                return messages
            try:
                async with asyncio.timeout(min(interval, remaining) if cursor.waker.mode == "poll" else remaining):
                    await cursor.wake.wait()
            except TimeoutError:
                interval *= 2

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        """Acknowledge everything up to `msg_id`, with the next `read`."""
        cursor = self._cursor(queue)
        moved = cursor.handled < msg_id <= cursor.after
        if moved:
            cursor.handled = msg_id
        return moved

    async def leave(self, queue: str, *, channel: str) -> None:
        """Stop being a peer."""
        cursor = self._cursors.pop(queue, None)
        if cursor is None:
            return
        await cursor.publisher.close(_PUBLISH_TIMEOUT)
        await cursor.waker.close()
        await self.leave_channel(channel, cursor.membership.queue, forget=True)

    async def _read_once(self, cursor: _Cursor, channel: str, vt: int, qty: int) -> list[BackendMessage]:
        if cursor.handled < cursor.after and time.monotonic() > cursor.visible_at:
            cursor.after = cursor.handled
        records = await self.read_after(
            channel,
            cursor.membership.queue,
            after=cursor.after,
            acknowledge=cursor.handled,
            limit=qty,
        )
        messages = []
        for record in records:
            if record.payload is not None:
                messages.append(BackendMessage(record.msg_id, json.loads(record.payload)))
            elif cursor.handled == cursor.after:
                # Nothing is in hand, so a gap counts as done.
                cursor.handled = record.msg_id
            cursor.after = record.msg_id
        cursor.visible_at = time.monotonic() + vt
        return messages

    async def _rejoin(self, cursor: _Cursor) -> None:
        membership = await cursor.session.renew(cursor.membership)
        await cursor.waker.close()
        cursor.follow(membership, self.waker(membership))
        await cursor.watch()

    def _cursor(self, queue: str) -> _Cursor:
        try:
            return self._cursors[queue]
        except KeyError:
            raise AccessDeniedError(f"queue {queue!r} was not joined here, or left already") from None
