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
from typing import Any

from bus_runtime._version import __version__
from bus_runtime.backend import BackendMessage, JoinOptions, LogRecord, Membership, Waker
from bus_runtime.errors import AccessDeniedError
from bus_runtime.lookout import Lookout
from bus_runtime.publisher import Publisher
from bus_runtime.session import Session

#: Seconds for which a message is tried again while the server certainly did not take it. The reference client
#: drops what cannot be published, so this is what a short outage may last without losing anything.
_PUBLISH_TIMEOUT = 10.0

#: Refusals in a row after which the server means it.
_MAX_REFUSALS = 2

#: Looks at the log within the time after which a silent peer may be dropped.
_LOOKS_PER_TIMEOUT = 3


class _Cursor:
    """One peer's place in the log: up to where it was read, and up to where that is archived."""

    def __init__(self, session: Session, publisher: Publisher, membership: Membership, waker: Waker) -> None:
        self.session = session
        self.publisher = publisher
        self.wake = asyncio.Event()
        session.on_renewed = self.wake.set
        self.lookout = Lookout(lambda: self.waker.mode, 0.0, self._overlooked)
        self.membership, self.waker = membership, waker
        self._begin()

    def _begin(self) -> None:
        self.after = self.handled = self.newest = self.membership.position
        self.visibility = self.visible_at = 0.0

    def follow(self, membership: Membership, waker: Waker) -> None:
        self.membership, self.waker = membership, waker
        if not membership.continues(self.newest):
            self._begin()

    async def watch(self) -> None:
        self.lookout.begin()
        await self.waker.start(self._woken, self._offered)

    async def close(self) -> None:
        self.lookout.close()
        await self.waker.close()

    def hold(self) -> None:
        """What is in hand stays so for another visibility timeout: somebody works on it."""
        self.visible_at = time.monotonic() + self.visibility

    async def idle(self, interval: float, remaining: float) -> bool:
        """Wait until there may be something to read; False when the time was up, `interval` if nothing wakes us."""
        longest = self.membership.peer_timeout_seconds / _LOOKS_PER_TIMEOUT
        look = interval if self.waker.mode == "poll" else self.lookout.delay(longest, found=False)
        seconds = min(look, remaining)
        if self.handled < self.after:
            seconds = min(seconds, max(0.0, self.visible_at - time.monotonic()))
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            if seconds == look:
                self.lookout.lapsed()
            return False
        return True

    def _woken(self, up_to: int | None = None) -> None:
        self.lookout.woken(up_to)
        self.wake.set()

    def _offered(self, first_id: int, payloads: Sequence[bytes | None]) -> None:
        # Read from the log all the same: the reference client asks for them.
        self.lookout.offered(first_id, first_id + len(payloads) - 1)
        self.wake.set()

    def _overlooked(self) -> None:
        self.waker.overlooked()


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
        anew behind the same queue name.

        Raises:
            BackendError: The server refused or is out of reach; call again.
        """
        cursor = self._cursor(queue)
        give_up = time.monotonic() + max_poll_seconds
        interval = poll_interval_ms / 1000
        refusals = 0
        while True:
            cursor.wake.clear()
            if cursor.session.membership is not cursor.membership:
                # The publisher was refused first, and joined anew.
                await self._rejoin(cursor)
            try:
                messages = await self._read_once(cursor, channel, vt, qty)
            except AccessDeniedError:
                # As in LogReader, the first refusal may only mean a rotated login.
                refusals += 1
                if refusals > _MAX_REFUSALS:
                    raise
                if refusals == _MAX_REFUSALS:
                    await self._rejoin(cursor)
                continue
            refusals = 0
            remaining = give_up - time.monotonic()
            if messages or remaining <= 0:
                return messages
            if not await cursor.idle(interval, remaining):
                interval *= 2

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        """Acknowledge everything up to `msg_id`, with the next `read`."""
        cursor = self._cursor(queue)
        moved = cursor.handled < msg_id <= cursor.after
        if moved:
            cursor.handled = msg_id
            cursor.hold()
        return moved

    async def leave(self, queue: str, *, channel: str) -> None:
        """Stop being a peer."""
        cursor = self._cursors.pop(queue, None)
        if cursor is None:
            return
        await cursor.publisher.close(_PUBLISH_TIMEOUT)
        await cursor.close()
        await self.leave_channel(channel, cursor.membership.queue, forget=True)

    async def _read_once(self, cursor: _Cursor, channel: str, vt: int, qty: int) -> list[BackendMessage]:
        if cursor.handled < cursor.after and time.monotonic() >= cursor.visible_at:
            cursor.after = cursor.handled
        idle = cursor.handled == cursor.after
        cursor.lookout.reading()
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
        before, cursor.newest = cursor.newest, max(cursor.newest, cursor.after)
        cursor.lookout.found(before, cursor.newest, everything=len(records) < qty)
        if messages and idle:
            cursor.visibility = vt
            cursor.hold()
        return messages

    async def _rejoin(self, cursor: _Cursor) -> None:
        membership = await cursor.session.renew(cursor.membership)
        await cursor.close()
        cursor.follow(membership, self.waker(membership))
        await cursor.watch()

    def _cursor(self, queue: str) -> _Cursor:
        try:
            return self._cursors[queue]
        except KeyError:
            raise AccessDeniedError(f"queue {queue!r} was not joined here, or left already") from None
