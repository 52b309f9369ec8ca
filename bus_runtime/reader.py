"""Reads a channel's log: an explicit cursor, acknowledgements in order, wake-ups, outages.

The reader never waits for handlers: it hands each message over and goes on. Its place in the log is its
own cursor, which it names in every call, so a lost answer is simply asked for again: nothing is skipped
or delivered twice by a reconnection. Each call also acknowledges what has been handled since, and is the
heartbeat that keeps the server from giving this peer's unacknowledged messages to a successor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from bus_runtime.acknowledgement import AcknowledgementTracker
from bus_runtime.backend import LogBackend, LogRecord, Membership, Waker
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.errors import AccessDeniedError, BackendError, PeerRefusedError
from bus_runtime.session import Session
from bus_runtime.stats import Counters

logger = logging.getLogger(__name__)

#: What is handled while nothing new arrives is acknowledged after this many seconds, together with
#: whatever else was handled meanwhile.
_ACKNOWLEDGE_DELAY = 0.05

#: A deadline of the server is met by calling this many times within it.
_CALLS_PER_TIMEOUT = 3

#: Takes a message's id and JSON, and calls back when it is handled.
Receive = Callable[[int, bytes, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How to read; all times in seconds.

    Attributes:
        visibility_timeout: How long the server keeps unacknowledged messages for this reader if it falls silent.
        batch_size: Messages per call.
        poll_interval: First delay between looks at the log when nothing wakes the reader; it doubles up to `max_poll`.
        max_poll: Longest time without looking at the log.
    """

    visibility_timeout: int = 30
    batch_size: int = 10
    poll_interval: float = 0.1
    max_poll: float = 5.0


class LogReader:
    """Follows the log from the session's position on.

    Args:
        backend: Where to read.
        session: Whose place in the log to follow.
        settings: How to read.
        receive: Called for each message, in log order; must not block.
        on_lost: Called with the number of messages that were trimmed before they could be read.
        counters: Where to count.
    """

    def __init__(
        self,
        backend: LogBackend,
        session: Session,
        settings: ReaderSettings,
        *,
        receive: Receive,
        on_lost: Callable[[int], None],
        counters: Counters,
    ) -> None:
        self._backend = backend
        self._session = session
        self._settings = settings
        self._receive = receive
        self._on_lost = on_lost
        self._counters = counters
        self._outage = OutageLog(logger, f"reading channel {session.channel!r}")
        self._backoff = Backoff()
        self._nudge = asyncio.Event()
        self._stopping = False
        self._acknowledge_timer: asyncio.TimerHandle | None = None
        self._waker: Waker | None = None
        self._idle_polls = 0
        self._begin(session.membership)

    @property
    def position(self) -> int:
        """Id of the last message handed over."""
        return self._position

    @property
    def acknowledged(self) -> int:
        """Id up to which the server knows that everything is handled."""
        return self._acknowledged

    @property
    def in_flight(self) -> int:
        """Messages handed over and not yet handled."""
        return self._tracker.in_flight

    @property
    def wake(self) -> str:
        """How the reader is woken right now."""
        return "poll" if self._waker is None else self._waker.mode

    def _begin(self, membership: Membership) -> None:
        self._membership = membership
        self._position = self._acknowledged = membership.position
        # A tracker per membership: what was received under an earlier one completes there, without effect.
        self._tracker = AcknowledgementTracker(membership.position)

    async def run(self) -> None:
        """Read until `stop` is called.

        Raises:
            PeerRefusedError: The server no longer accepts this durable peer.
        """
        await self._start_waker()
        refusals = 0
        while not self._stopping:
            try:
                if refusals > 1:
                    await self._rejoin()
                    refusals = 0
                records = await self._call(self._settings.batch_size)
            except PeerRefusedError:
                raise
            except AccessDeniedError as exc:
                # The first refusal may only mean that this connection's login was rotated away: the backend
                # opens new connections after one, so the second attempt tells.
                refusals += 1
                if refusals > 1:
                    await self._pause(exc)
            # Whatever a backend raises, a reader that gave up would silently stop receiving for ever.
            except Exception as exc:
                await self._pause(exc)
            else:
                refusals = 0
                self._backoff.reset()
                if self._outage.recovered():
                    self._counters.reconnects += 1
                self._hand_over(records)
                if not self._stopping and not self._may_have_more(records):
                    await self._idle(was_empty=not records)

    def stop(self) -> None:
        """Take no more messages; `run` returns after the call that is under way."""
        self._stopping = True
        self._nudge.set()

    async def drain(self, seconds: float) -> bool:
        """After `run` ended, wait at most `seconds` for what it handed over; True when all is handled."""
        deadline = time.monotonic() + seconds
        heartbeat = self._settings.visibility_timeout / _CALLS_PER_TIMEOUT
        while self.in_flight and (remaining := deadline - time.monotonic()) > 0:
            self._nudge.clear()
            if not await self._wait(min(remaining, heartbeat)) and remaining > heartbeat:
                await self._call_quietly()
        return not self.in_flight

    async def close(self, *, acknowledge: bool) -> None:
        """Stop waking up; tell the server what was handled if `acknowledge`."""
        self._cancel_timer()
        if self._waker is not None:
            await self._waker.close()
            self._waker = None
        if acknowledge and self._tracker.position > self._acknowledged:
            await self._call_quietly()

    async def _call(self, limit: int) -> list[LogRecord]:
        """One round trip: acknowledge, heartbeat, and up to `limit` records."""
        # Cleared before reading: what arrives during the call sets it again.
        self._nudge.clear()
        self._cancel_timer()
        handled = self._tracker.position
        records = await self._backend.read_after(
            self._session.channel,
            self._membership.queue,
            after=self._position,
            acknowledge=handled if handled > self._acknowledged else None,
            visibility_timeout=self._settings.visibility_timeout,
            limit=limit,
        )
        self._acknowledged = max(self._acknowledged, handled)
        return records

    async def _call_quietly(self) -> None:
        """Acknowledge and heartbeat on the way out, where a failure costs at most a redelivery."""
        try:
            await self._call(0)
        except BackendError as exc:
            logger.debug("channel %r: acknowledging failed: %s", self._session.channel, exc)

    def _hand_over(self, records: list[LogRecord]) -> None:
        if self._stopping:
            return
        for record in records:
            self._position = record.msg_id
            self._tracker.add(record.msg_id)
            if record.payload is None:
                self._tracker.complete(record.msg_id)
                if record.lost:
                    self._report_lost(record.lost)
            else:
                self._counters.received += 1
                self._receive(record.msg_id, record.payload, self._completion(self._tracker, record.msg_id))

    def _may_have_more(self, records: list[LogRecord]) -> bool:
        """Whether the batch was full, or might have been had it not left out this peer's own messages."""
        return len(records) >= self._settings.batch_size or any(r.payload is None and not r.lost for r in records)

    def _completion(self, tracker: AcknowledgementTracker, msg_id: int) -> Callable[[], None]:
        def handled() -> None:
            self._counters.handled += 1
            moved = tracker.complete(msg_id)
            if tracker is not self._tracker:
                return
            if self._stopping:
                self._nudge.set()
            elif moved and self._acknowledge_timer is None:
                loop = asyncio.get_running_loop()
                self._acknowledge_timer = loop.call_later(_ACKNOWLEDGE_DELAY, self._nudge.set)

        return handled

    def _report_lost(self, count: int) -> None:
        self._counters.lost += count
        logger.warning(
            "channel %r: up to %d messages were trimmed from the log before this peer read them",
            self._session.channel,
            count,
        )
        self._on_lost(count)

    async def _idle(self, *, was_empty: bool) -> None:
        """Wait until something may have changed, or a deadline wants a call."""
        self._idle_polls = self._idle_polls + 1 if was_empty else 0
        timeout = max(self._settings.max_poll, self._settings.poll_interval)
        if self.wake == "poll":
            # At most 2**16 intervals: far beyond max_poll, and no overflow after a week of silence.
            timeout = min(timeout, self._settings.poll_interval * 2 ** min(self._idle_polls, 16))
        timeout = min(timeout, self._membership.peer_timeout_seconds / _CALLS_PER_TIMEOUT)
        if self.in_flight:
            timeout = min(timeout, self._settings.visibility_timeout / _CALLS_PER_TIMEOUT)
        await self._wait(timeout)

    async def _wait(self, seconds: float) -> bool:
        """Wait for a nudge; False when the time was up."""
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return False
        return True

    async def _pause(self, error: Exception) -> None:
        """Wait before the next attempt. Wake-ups do not shorten it: the server is in trouble."""
        self._outage.failed(error)
        deadline = time.monotonic() + self._backoff.next_delay()
        while not self._stopping and (remaining := deadline - time.monotonic()) > 0:
            self._nudge.clear()
            await self._wait(remaining)

    async def _rejoin(self) -> None:
        before = self._position
        membership = await self._session.renew(self._membership)
        self._begin(membership)
        self._counters.rejoined += 1
        logger.warning(
            "channel %r: the server had dropped this peer (silent for longer than its peer timeout, or its "
            "credentials were revoked); joined anew at the head of the log",
            self._session.channel,
        )
        if membership.position > before:
            self._report_lost(membership.position - before)
        await self._start_waker()

    async def _start_waker(self) -> None:
        if self._waker is not None:
            await self._waker.close()
        self._waker = self._backend.waker(self._membership)
        await self._waker.start(self._nudge.set)

    def _cancel_timer(self) -> None:
        if self._acknowledge_timer is not None:
            self._acknowledge_timer.cancel()
            self._acknowledge_timer = None
