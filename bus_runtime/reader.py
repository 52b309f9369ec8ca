"""Follows a channel's log: an explicit cursor, acknowledgements in order, announcements, outages.

The reader never waits for handlers: it hands each message over and goes on. Its place in the log is its
own cursor, which it names in every call, so a lost answer is simply asked for again: nothing is skipped
or delivered twice by a reconnection. A message that is announced together with its content, and is the very
next one, is taken without a call; whatever else is announced only makes the reader look at the log. It also
looks by itself now and then, so that an announcement that got lost costs time and nothing else.

A call acknowledges what has been handled since the last one, though not more often than its cost for the
server allows where many peers do the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bus_runtime.acknowledgement import AcknowledgementTracker
from bus_runtime.backend import LogBackend, LogRecord, Waker
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.batch import BatchSize
from bus_runtime.errors import AccessDeniedError, BackendError, PeerRefusedError
from bus_runtime.lagging import LogFlow
from bus_runtime.lookout import Lookout
from bus_runtime.session import Session
from bus_runtime.stats import Counters

logger = logging.getLogger(__name__)

#: Seconds between acknowledgements: the more peers, the longer, so that all peers of a channel together cost the
#: server about fifty a second. What was handled and not acknowledged is what a killed durable peer gets again.
_ACKNOWLEDGE_DELAY = (0.05, 2.0)
_ACKNOWLEDGE_DELAY_PER_PEER = 0.02

#: Seconds between a reader's own looks at the log, for each peer of the channel, where it is woken: together they look
#: no more than some fifteen times a second. A look wakes a session that slept, which takes the server a millisecond.
_LOOK_PER_PEER = 0.08

#: A deadline of the server is met by calling this many times within it.
_CALLS_PER_TIMEOUT = 3

#: Takes a message's id and JSON, and calls back when it is handled.
Receive = Callable[[int, bytes, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How to read; all times in seconds.

    Attributes:
        visibility_timeout: Only for backends without a log: how long a queue keeps unacknowledged messages back.
        batch_size: Messages per call, to begin with; more while the log has more.
        poll_interval: First delay between looks at the log when nothing wakes the reader; it doubles up to `max_poll`.
        max_poll: Longest time without looking at the log; more on a channel with hundreds of peers, 80 ms for each.
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
        flow: Whether there is room for more, and what may be acknowledged.
        on_lost: Called with the number of messages that were trimmed before they could be read.
        on_redelivered: Called with the id of a message that an earlier process of this peer was handed, before it is
            delivered again.
        counters: Where to count.
    """

    def __init__(
        self,
        backend: LogBackend,
        session: Session,
        settings: ReaderSettings,
        *,
        receive: Receive,
        flow: LogFlow,
        on_lost: Callable[[int], None],
        on_redelivered: Callable[[int], None],
        counters: Counters,
    ) -> None:
        self._backend = backend
        self._session = session
        self._settings = settings
        self._receive = receive
        self._flow = flow
        self._on_lost = on_lost
        self._on_redelivered = on_redelivered
        self._counters = counters
        self._outage = OutageLog(logger, f"reading channel {session.channel!r}")
        self._backoff = Backoff()
        self._nudge = asyncio.Event()
        self._stopping = False
        self._acknowledge_timer: asyncio.TimerHandle | None = None
        self._acknowledge_at = 0.0
        self._called_at = 0.0
        self._waker: Waker | None = None
        self._lookout = Lookout(lambda: self.wake, settings.poll_interval, self._overlooked)
        self._batch = BatchSize(settings.batch_size)
        self._membership = session.membership
        self._begin()
        flow.follow(self._position, self._read_behind, on_room=self._nudge.set, on_handled=self._progressed)
        session.on_renewed = self._nudge.set

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
        return self._tracker.in_flight + self._flow.in_flight

    @property
    def wake(self) -> str:
        """How the reader is woken right now."""
        return "poll" if self._waker is None else self._waker.mode

    def _begin(self) -> None:
        self._position = self._acknowledged = self._membership.position
        #: Up to here an earlier process was handed messages.
        self._delivered = self._membership.delivered
        # A tracker per log: what was received from an earlier one completes there, without effect.
        self._tracker = AcknowledgementTracker(self._position)

    @property
    def _is_behind(self) -> bool:
        """Whether there may be messages that were published before this membership began."""
        return self._position < self._membership.position

    @property
    def _handled(self) -> int:
        """Id up to which every subscription of this process has handled everything."""
        return min(self._tracker.position, self._flow.acknowledgeable)

    async def run(self) -> None:
        """Read until `stop` is called.

        Raises:
            PeerRefusedError: The server no longer accepts this durable peer.
        """
        refusals = 0
        while not self._stopping:
            try:
                # A publisher may be the first to be refused, and join anew.
                if refusals > 1 or self._session.membership is not self._membership:
                    await self._rejoin()
                    refusals = 0
                if self._waker is None:
                    await self._start_waker()
                    if self._membership.announced and self.wake == "doorbell" and not self._is_behind:
                        # A first read could find nothing that is not announced.
                        self._lookout.found(self._position, self._position, everything=True)
                        await self._idle(found=False)
                        continue
                limit = min(self._batch.limit, self._flow.room)
                records = await self._call(limit)
                before = self._position
                self._hand_over(records)
            except AccessDeniedError as exc:
                self._session.require_place()
                # The first refusal may only mean that this connection's login was rotated away: the backend
                # opens new connections after one, so the second attempt tells. Who took the place may have been a claim
                # of our own whose answer got lost: the next one tells.
                refusals = 2 if isinstance(exc, PeerRefusedError) else refusals + 1
                if refusals > 1:
                    await self._pause(exc)
            # Whatever a backend raises or answers, a reader that gave up would silently stop receiving for ever.
            except Exception as exc:
                await self._pause(exc)
            else:
                refusals = 0
                self._backoff.reset()
                if self._outage.recovered():
                    self._counters.reconnects += 1
                full = len(records) >= limit
                self._lookout.found(before, self._position, everything=not full and self._flow.is_open)
                if limit:
                    self._batch.adapt(records, full=full)
                if not self._stopping and not (full and self._flow.is_open):
                    await self._idle(found=self._position > before)

    def stop(self) -> None:
        """Take no more messages; `run` returns after the call that is under way."""
        self._stopping = True
        self._nudge.set()

    async def drain(self, seconds: float) -> bool:
        """After `run` ended, wait at most `seconds` for what it handed over; True when all is handled."""
        deadline = time.monotonic() + seconds
        heartbeat = self._membership.peer_timeout_seconds / _CALLS_PER_TIMEOUT
        while self.in_flight and (remaining := deadline - time.monotonic()) > 0:
            self._nudge.clear()
            due = self._called_at + heartbeat - time.monotonic()
            if due > 0:
                await self._wait(min(remaining, due))
            else:
                await self._call_quietly()
        return not self.in_flight

    async def close(self, *, acknowledge: bool) -> None:
        """Stop waking up; tell the server what was handled if `acknowledge`."""
        await self._close_waker()
        if self._acknowledge_timer is not None:
            self._acknowledge_timer.cancel()
            self._acknowledge_timer = None
        if acknowledge and self._handled > self._acknowledged:
            await self._call_quietly()

    async def _call(self, limit: int) -> list[LogRecord]:
        """One round trip: acknowledge if it is time, and up to `limit` records."""
        # Cleared before reading: what arrives during the call sets it again.
        self._nudge.clear()
        self._lookout.reading()
        handled = self._handled
        now = self._called_at = time.monotonic()
        acknowledge = None
        if handled > self._acknowledged and (now >= self._acknowledge_at or limit == 0):
            acknowledge = handled
        records = await self._backend.read_after(
            self._session.channel,
            self._membership.queue,
            after=self._position,
            acknowledge=acknowledge,
            limit=limit,
        )
        if acknowledge is not None:
            self._acknowledged = max(self._acknowledged, acknowledge)
            self._acknowledge_at = now + self._acknowledge_delay()
        if self._handled > self._acknowledged and not self._stopping:
            # What was handled during the call, or waits for its time: whoever set the timer may not have known that.
            self._acknowledge_soon()
        return records

    async def _call_quietly(self) -> None:
        """Acknowledge and heartbeat on the way out, where a failure costs at most a redelivery."""
        try:
            await self._call(0)
        except BackendError as exc:
            logger.debug("channel %r: acknowledging failed: %s", self._session.channel, exc)

    def _hand_over(self, records: list[LogRecord]) -> None:
        """Deliver what was read and not taken meanwhile, as far as there is room."""
        if self._stopping:
            return
        for record in records:
            if not self._flow.is_open:
                return
            if record.msg_id > self._position:
                self._take(record.msg_id, record.payload)
                if record.lost:
                    self._report_lost(record.lost)

    def _take(self, msg_id: int, payload: bytes | None) -> None:
        """The next message in the log, or None for what is not for this peer."""
        self._position = msg_id
        self._tracker.add(msg_id)
        if payload is None:
            if self._tracker.complete(msg_id):
                self._acknowledge_soon()
            return
        self._counters.received += 1
        if msg_id <= self._delivered:
            self._counters.redelivered += 1
            self._on_redelivered(msg_id)
        self._receive(msg_id, payload, self._completion(self._tracker, msg_id))

    def _announced(self, up_to: int | None = None) -> None:
        self._lookout.woken(up_to)
        if self._flow.is_open and (up_to is None or up_to > self._position):
            self._nudge.set()

    def _offered(self, first_id: int, payloads: Sequence[bytes | None]) -> None:
        """Messages that came with their announcement: taken if they are the next ones."""
        self._lookout.offered(first_id, first_id + len(payloads) - 1)
        skip = self._position + 1 - first_id
        if skip >= len(payloads) or self._stopping or not self._flow.is_open:
            return
        if skip < 0:
            self._nudge.set()
            return
        received = self._counters.received
        for msg_id, payload in enumerate(payloads[skip:], first_id + skip):
            # The rest is read when there is room again.
            if not self._flow.is_open:
                break
            self._take(msg_id, payload)
        self._counters.announced += self._counters.received - received

    async def _read_behind(self, after: int, limit: int) -> list[LogRecord]:
        """For a subscription that is behind. Where this peer stands for the server is not concerned."""
        return await self._backend.read_after(
            self._session.channel, self._membership.queue, after=after, acknowledge=None, limit=limit
        )

    def _overlooked(self) -> None:
        self._counters.overlooked += 1
        if self._waker is not None:
            self._waker.overlooked()
        self._nudge.set()

    def _completion(self, tracker: AcknowledgementTracker, msg_id: int) -> Callable[[], None]:
        def handled() -> None:
            self._counters.handled += 1
            moved = tracker.complete(msg_id)
            if tracker is self._tracker and (moved or self._stopping):
                self._progressed()

        return handled

    def _progressed(self) -> None:
        """More may be acknowledged, or all is handled that a reader which stops waits for."""
        if self._stopping:
            self._nudge.set()
        else:
            self._acknowledge_soon()

    def _acknowledge_soon(self) -> None:
        if self._acknowledge_timer is None:
            delay = max(self._acknowledge_at - time.monotonic(), _ACKNOWLEDGE_DELAY[0])
            self._acknowledge_timer = asyncio.get_running_loop().call_later(delay, self._acknowledge_now)

    def _acknowledge_now(self) -> None:
        self._acknowledge_timer = None
        if self._handled > self._acknowledged:
            self._nudge.set()

    def _acknowledge_delay(self) -> float:
        audience = 1 if self._waker is None else self._waker.audience
        shortest, longest = _ACKNOWLEDGE_DELAY
        return min(longest, max(shortest, audience * _ACKNOWLEDGE_DELAY_PER_PEER))

    def _report_lost(self, count: int) -> None:
        self._counters.lost += count
        logger.warning(
            "channel %r: up to %d messages were trimmed from the log before this peer read them",
            self._session.channel,
            count,
        )
        self._on_lost(count)

    async def _idle(self, *, found: bool) -> None:
        """Wait until something may have changed, or it is time to look."""
        longest = max(self._settings.max_poll, self._settings.poll_interval)
        crowd = 0.0
        if self._waker is not None and self._waker.mode != "poll":
            # At random, so that those who joined together do not look together.
            crowd = self._waker.audience * _LOOK_PER_PEER * random.uniform(0.7, 1.0)  # noqa: S311 - spreads load
        longest = min(max(longest, crowd), self._membership.peer_timeout_seconds / _CALLS_PER_TIMEOUT)
        if not self._flow.is_open:
            await self._wait(longest)
            return
        if not await self._wait(self._lookout.delay(longest, found=found, least=crowd)):
            self._lookout.lapsed()

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
        # It wakes the former membership.
        await self._close_waker()
        self._membership = await self._session.renew(self._membership)
        if self._membership.continues(self._position):
            # Perhaps the server does not know either what it was told.
            self._acknowledged = min(self._acknowledged, self._membership.position)
        else:
            self._begin()
            self._flow.move(self._position)
        self._counters.rejoined += 1
        logger.warning(
            "channel %r: the server did not know this peer any more (it was silent for too long, or a failover lost "
            "that it joined); joined anew, going on after message %d",
            self._session.channel,
            self._position,
        )

    async def _start_waker(self) -> None:
        waker = self._backend.waker(self._membership)
        self._lookout.begin()
        await waker.start(self._announced, self._offered)
        self._waker = waker

    async def _close_waker(self) -> None:
        self._lookout.close()
        waker, self._waker = self._waker, None
        if waker is not None:
            await waker.close()
