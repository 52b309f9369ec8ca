"""A subscriber that cannot keep up with the log slows down nobody but itself, loses nothing, and holds only so much.

A subscription that is full drops out: it keeps its own position, the last message it took, and the reader goes on for
the others. When half of what it holds is handled it reads the log from its position on by itself, until it is where the
reader is, and follows the reader again. A process with one subscriber, or whose subscribers are all full, needs none of
that: the reader pauses, and a subscription that is exactly where the reader paused follows it again without reading.

What the reader has to do (`LogFlow`; everything happens in one event loop):

- `follow` when it begins, and `move` when it goes on elsewhere under another membership;
- read and hand over no more than `room` messages. While that is 0 it leaves in the log what is announced and waits for
  `on_room`, but still acknowledges and lets the server know that it lives;
- acknowledge nothing above `acknowledgeable`, so that the log is not trimmed under a subscription that is behind, and
  look again when `on_handled` is called;
- count `in_flight` with what it counts itself, and `stop` this when it stops.

Not to heed `room` costs a second reading and loses nothing: what is delivered while nobody can take it is read later by
those who dropped out.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bus_runtime.acknowledgement import AcknowledgementTracker
from bus_runtime.backend import LogRecord
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.batch import BatchSize
from bus_runtime.dispatch import Around, Delivery, Subscription
from bus_runtime.flow import Flow, Limits, ignore
from bus_runtime.messages import BusMessage
from bus_runtime.notice import LagNotice

logger = logging.getLogger(__name__)

#: Reads at most so many records after an id; acknowledges nothing.
Read = Callable[[int, int], Awaitable[Sequence[LogRecord]]]
#: Makes a message of JSON that was read before; None for what cannot be decoded, which has been reported then.
Decode = Callable[[bytes], BusMessage | None]
#: What a message of that id, which was read from that JSON, is handled in; see `Delivery`.
Surround = Callable[[int, BusMessage, bytes], Around | None]

#: Messages that a subscription asks for first when it reads by itself.
_LEAST = 50


class _Laggard:
    """A subscription that dropped out.

    Args:
        subscription: Which.
        position: Id of the last message it took.
    """

    def __init__(self, subscription: Subscription, position: int) -> None:
        self.subscription = subscription
        self.position = position
        self.tracker = AcknowledgementTracker(position)
        self.batch = BatchSize(_LEAST)
        self.reading: asyncio.Task[None] | None = None


class LogFlow(Flow):
    """Delivers what is read from a log, to every subscription at its own pace.

    Args:
        limits: What each subscription may hold.
        decode: Makes messages of what subscriptions read by themselves.
        acknowledge_on_dispatch: Whether a message counts as handled as soon as it is queued.
        on_lost: Called with the number of messages that were trimmed before a subscription read them by itself.
        on_lagging: Called with a subscriber's name and True when it has been unable to keep up for a while, and with
            False when it keeps up again.
        surround: What messages that subscriptions read by themselves are handled in.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        decode: Decode,
        acknowledge_on_dispatch: bool,
        on_lost: Callable[[int], None],
        on_lagging: Callable[[str, bool], None],
        surround: Surround = lambda *_: None,
    ) -> None:
        super().__init__(limits)
        self._decode = decode
        self._acknowledge_on_dispatch = acknowledge_on_dispatch
        self._on_lost = on_lost
        self._on_lagging = on_lagging
        self._surround = surround
        self._position = 0
        self._laggards: dict[Subscription, _Laggard] = {}
        self._notices: dict[Subscription, LagNotice] = {}
        # Of those that are behind, and of those that came back while handlers were still at what they had read.
        self._trackers: list[AcknowledgementTracker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._read: Read | None = None
        self._on_handled: Callable[[], None] = ignore

    @property
    def room(self) -> int:
        """How many messages may be read at most; 0: none until `on_room` is called."""
        if not self.is_open:
            return 0
        return min(self.aside.room, max((self._budgets[s].room for s in self._followers), default=sys.maxsize))

    @property
    def is_open(self) -> bool:
        """Whether there is room: with it for some, the others read by themselves."""
        return not self.aside.is_full and (bool(self._followers) or not self._laggards)

    @property
    def acknowledgeable(self) -> int:
        """Id up to which the subscriptions that are behind have handled everything; very large if there are none."""
        return min((tracker.position for tracker in self._trackers), default=sys.maxsize)

    @property
    def in_flight(self) -> int:
        """How many messages that subscriptions read by themselves are not handled."""
        return sum(tracker.in_flight for tracker in self._trackers)

    @property
    def lagging(self) -> dict[str, int]:
        """The subscribers that dropped out, and by how many messages at most they are behind the reader."""
        return {s.subscriber.name: self._position - laggard.position for s, laggard in self._laggards.items()}

    def follow(self, position: int, read: Read, *, on_room: Callable[[], None], on_handled: Callable[[], None]) -> None:
        """A reader begins, and all subscriptions with it.

        Args:
            position: Id after which it begins.
            read: Reads for subscriptions that are behind. Whatever it raises, it is tried again.
            on_room: Called when there is room again.
            on_handled: Called when `acknowledgeable` may have moved.
        """
        self.begin(on_room)
        self._read = read
        self._on_handled = on_handled
        self._position = position
        self._laggards.clear()
        self._trackers.clear()
        self._followers = tuple(self._budgets)
        for subscription, budget in self._budgets.items():
            if budget.is_full:
                self._full(subscription)

    def move(self, position: int) -> None:
        """The reader goes on after `position`. Who is behind reads what the log still has up to there."""
        self._position = position

    async def stop(self) -> None:
        """Read no more for anybody; what was read may still be handled."""
        self._read = None
        for notice in self._notices.values():
            notice.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, subscription: Subscription) -> None:
        """Deliver to this subscription from now on."""
        self._notices[subscription] = LagNotice(partial(self._lags, subscription.subscriber.name))
        super().add(subscription)
        # If reading waits for all the others, there is one now that it need not wait for.
        self._tell_room()

    def remove(self, subscription: Subscription) -> None:
        """Deliver to it no more, and wait for it no more."""
        self._notices.pop(subscription).close()
        laggard = self._laggards.pop(subscription, None)
        if laggard is not None:
            self._trackers.remove(laggard.tracker)
            self._on_handled()
        super().remove(subscription)

    def deliver(
        self,
        msg_id: int,
        message: BusMessage,
        size: int,
        on_handled: Callable[[], None] | None,
        around: Around | None = None,
    ) -> None:
        """Deliver a message to all that follow the reader; see `Flow.deliver`."""
        self._position = msg_id
        super().deliver(msg_id, message, size, on_handled, around)

    def _full(self, subscription: Subscription) -> None:
        if subscription in self._laggards:
            return
        laggard = self._laggards[subscription] = _Laggard(subscription, self._position)
        self._trackers.append(laggard.tracker)
        self._followers = tuple(s for s in self._followers if s is not subscription)
        self._notices[subscription].behind()

    def _room_again(self, subscription: Subscription) -> None:
        laggard = self._laggards.get(subscription)
        if laggard is None or laggard.reading is not None:
            return
        if laggard.position >= self._position:
            self._follow_again(laggard)
        elif self._read is not None:
            name = f"bus_catch_up_{subscription.subscriber.name}"
            laggard.reading = asyncio.create_task(self._catch_up(laggard, self._read), name=name)
            self._tasks.add(laggard.reading)
            laggard.reading.add_done_callback(self._tasks.discard)

    def _follow_again(self, laggard: _Laggard) -> None:
        subscription, paused = laggard.subscription, not self._followers
        del self._laggards[subscription]
        self._followers = (*self._followers, subscription)
        self._notices[subscription].abreast()
        if not laggard.tracker.in_flight:
            self._trackers.remove(laggard.tracker)
            self._on_handled()
        if paused:
            self._on_room()

    async def _catch_up(self, laggard: _Laggard, read: Read) -> None:
        """Read for one subscription until it is full again or where the reader is."""
        name, budget = laggard.subscription.subscriber.name, self._budgets[laggard.subscription]
        backoff, outage = Backoff(), OutageLog(logger, f"reading for subscriber {name!r}")
        try:
            while self._is_behind(laggard) and not budget.is_full:
                target = self._position
                limit = min(laggard.batch.limit, budget.room)
                try:
                    records = await read(laggard.position, limit)
                # As in LogReader: a subscription that gave up would silently stop receiving for ever.
                except Exception as exc:
                    outage.failed(exc)
                    await asyncio.sleep(backoff.next_delay())
                    continue
                backoff.reset()
                outage.recovered()
                if self._is_behind(laggard) and self._pass_on(laggard, records, target):
                    self._follow_again(laggard)
                laggard.batch.adapt(records, full=len(records) >= limit)
        finally:
            laggard.reading = None

    def _is_behind(self, laggard: _Laggard) -> bool:
        """Whether it still is: it may have been unsubscribed while its messages were being read."""
        return self._laggards.get(laggard.subscription) is laggard

    def _pass_on(self, laggard: _Laggard, records: Sequence[LogRecord], target: int) -> bool:
        """Deliver what was read; True when the subscription is where the reader is.

        Args:
            laggard: Whom to deliver to.
            records: What follows its position in the log.
            target: Where the reader was when they were read.
        """
        for record in records:
            # The reader may be slower for a moment, and will deliver this itself.
            if record.msg_id > self._position:
                return True
            if self._budgets[laggard.subscription].is_full:
                return False
            laggard.position = record.msg_id
            self._pass_one_on(laggard, record)
        if not records:
            laggard.position = max(laggard.position, target)
        return laggard.position >= self._position

    def _pass_one_on(self, laggard: _Laggard, record: LogRecord) -> None:
        tracker = laggard.tracker
        tracker.add(record.msg_id)
        message = None if record.payload is None else self._decode(record.payload)
        handled = partial(self._handled, tracker, record.msg_id)
        if message is None or record.payload is None:
            handled()
            if record.lost:
                logger.warning(
                    "up to %d messages were trimmed from the log before subscriber %r got to them",
                    record.lost,
                    laggard.subscription.subscriber.name,
                )
                self._on_lost(record.lost)
            return
        on_handled = None if self._acknowledge_on_dispatch else handled
        around = self._surround(record.msg_id, message, record.payload)
        laggard.subscription.put(Delivery(message, 1, on_handled, len(record.payload), around))
        if on_handled is None:
            handled()

    def _handled(self, tracker: AcknowledgementTracker, msg_id: int) -> None:
        moved = tracker.complete(msg_id)
        is_done = not tracker.in_flight and all(laggard.tracker is not tracker for laggard in self._laggards.values())
        # It may belong to a subscription or a reader that is no more.
        if is_done and tracker in self._trackers:
            self._trackers.remove(tracker)
        if moved:
            self._on_handled()

    def _lags(self, name: str, lagging: bool) -> None:
        if lagging:
            logger.warning("subscriber %r does not keep up: its messages wait in the log", name)
        else:
            logger.info("subscriber %r keeps up again", name)
        self._on_lagging(name, lagging)
