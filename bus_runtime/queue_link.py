"""A `Link` over any backend with the reference client's five methods: read, handle, archive each message.

Such a backend has a queue per peer and a visibility timeout per message, and no way to extend it. A message
that a slow handler keeps past the timeout is therefore read again; it is recognised by its id and not
delivered twice in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable

from bus_runtime.backend import BackendMessage, PgmqBackend
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.errors import BUS_NOT_RUNNING, PublishError
from bus_runtime.flow import Flow
from bus_runtime.reader import ReaderSettings, Receive
from bus_runtime.stats import Counters

logger = logging.getLogger(__name__)


class QueueLink:
    """Reads one queue and archives what was handled.

    Args:
        backend: Any implementation of the five methods; whatever it raises is logged and tried again.
        channel: Name of the channel.
        settings: How to read; the backend waits `max_poll` by itself.
        receive: Takes what arrives.
        flow: Whether there is room for more. Reading stops while there is none, for a queue cannot be read twice.
        counters: Where to count.
    """

    refused = False
    wake = "poll"
    position = None
    acknowledged = None

    def __init__(
        self,
        backend: PgmqBackend,
        channel: str,
        settings: ReaderSettings,
        *,
        receive: Receive,
        flow: Flow,
        counters: Counters,
    ) -> None:
        self._backend = backend
        self._channel = channel
        self._settings = settings
        self._receive = receive
        self._flow = flow
        self._counters = counters
        self._queue: str | None = None
        self._reading: asyncio.Task[None] | None = None
        self._archiving: asyncio.Task[None] | None = None
        self._open: set[int] = set()
        self._handled: asyncio.Queue[int] = asyncio.Queue()
        self._unarchived: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._publishing = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def in_flight(self) -> int:
        """Messages received and not yet handled."""
        return len(self._open)

    async def start(self) -> None:
        """Join, and begin to read."""
        self._queue = await self._backend.join(self._channel)
        self._flow.begin(self._room.set)
        self._reading = asyncio.create_task(self._read(self._queue), name="bus_reader")
        self._archiving = asyncio.create_task(self._archive(self._queue), name="bus_archiver")

    async def publish(self, payload: bytes) -> None:
        """Send one JSON message to the peers."""
        if self._queue is None:
            raise PublishError(f"channel {self._channel!r} was left", code=BUS_NOT_RUNNING)
        self._publishing += 1
        self._quiet.clear()
        try:
            await self._backend.publish(self._channel, self._queue, json.loads(payload))
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._quiet.set()

    async def drain(self, seconds: float) -> None:
        """Stop reading at once (a long poll may be under way), and wait for the handlers and the archiving."""
        if self._reading is None:
            return
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                await self._handled.join()
        except TimeoutError:
            logger.warning("channel %r: stopping with %d messages unhandled", self._channel, self.in_flight)

    async def close(self, seconds: float) -> None:
        """Let what is being published out, and leave; a backend that hangs is given up after `seconds` each time."""
        if self._archiving is not None:
            self._archiving.cancel()
            await asyncio.gather(self._archiving, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        if self._queue is None:
            return
        queue, self._queue = self._queue, None
        try:
            async with asyncio.timeout(seconds):
                await self._backend.leave(queue, channel=self._channel)
        except Exception:  # a foreign backend may raise anything, and stopping must not fail for it
            logger.exception("channel %r: leaving queue %s failed", self._channel, queue)

    async def _read(self, queue: str) -> None:
        backoff = Backoff()
        outage = OutageLog(logger, f"reading channel {self._channel!r}")
        while True:
            while not (room := self._flow.room):
                self._room.clear()
                await self._room.wait()
            started = time.monotonic()
            try:
                messages = await self._backend.read(
                    queue,
                    channel=self._channel,
                    vt=self._settings.visibility_timeout,
                    qty=min(self._settings.batch_size, room),
                    max_poll_seconds=int(self._settings.max_poll),
                    poll_interval_ms=int(self._settings.poll_interval * 1000),
                )
            # A foreign backend may raise anything; a reader that gave up would stop receiving for ever.
            except Exception as exc:
                outage.failed(exc)
                await asyncio.sleep(backoff.next_delay())
                continue
            backoff.reset()
            if outage.recovered():
                self._counters.reconnects += 1
            for message in messages or []:
                self._hand_over(message)
            # A backend that does not wait by itself is asked once per interval.
            if not messages and time.monotonic() - started < self._settings.poll_interval:
                await asyncio.sleep(self._settings.poll_interval)

    def _hand_over(self, message: BackendMessage) -> None:
        msg_id = message.msg_id
        if msg_id in self._open:
            return
        if msg_id in self._unarchived:
            self._handled.put_nowait(msg_id)
            return
        self._open.add(msg_id)
        self._idle.clear()
        self._counters.received += 1
        self._receive(msg_id, json.dumps(message.message).encode(), self._completion(msg_id))

    def _completion(self, msg_id: int) -> Callable[[], None]:
        def handled() -> None:
            self._counters.handled += 1
            self._open.discard(msg_id)
            self._unarchived.add(msg_id)
            self._handled.put_nowait(msg_id)
            if not self._open:
                self._idle.set()

        return handled

    async def _archive(self, queue: str) -> None:
        outage = OutageLog(logger, f"archiving on channel {self._channel!r}")
        while True:
            msg_id = await self._handled.get()
            try:
                await self._backend.archive(queue, channel=self._channel, msg_id=msg_id)
            # Not archived, it is read again after its visibility timeout and archived then.
            except Exception as exc:
                outage.failed(exc)
            else:
                outage.recovered()
                self._unarchived.discard(msg_id)
            finally:
                self._handled.task_done()
