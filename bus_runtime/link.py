"""What a `PgmqBus` runs on, whatever the backend offers: something that publishes bytes and delivers bytes.

PgmqBus  -  Link (LogLink or QueueLink)  -  backend  -  driver
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

from bus_runtime.backend import JoinOptions, LogBackend, LogRecord
from bus_runtime.callbacks import Teller
from bus_runtime.errors import BackendError, PeerRefusedError
from bus_runtime.lagging import LogFlow
from bus_runtime.publisher import Publisher
from bus_runtime.reader import LogReader, ReaderSettings, Receive
from bus_runtime.session import Session
from bus_runtime.stats import Counters

logger = logging.getLogger(__name__)

#: Seconds that a server is given for each step of leaving at least.
_FAREWELL = 1.0

#: Messages per call in `LogLink.rest`.
_REST = 100


class Link(Protocol):
    """A connected bus's two directions."""

    @property
    def refused(self) -> bool:
        """Whether the server no longer accepts this durable peer."""
        ...

    @property
    def wake(self) -> str:
        """How new messages are noticed: `doorbell`, `listen` or `poll`."""
        ...

    @property
    def position(self) -> int | None:
        """Id of the last message received."""
        ...

    @property
    def acknowledged(self) -> int | None:
        """Id up to which the server knows that everything is handled."""
        ...

    @property
    def in_flight(self) -> int:
        """Messages received and not yet handled."""
        ...

    async def start(self) -> None:
        """Join the channel and begin to receive."""
        ...

    async def publish(self, payload: bytes) -> int | None:
        """Send one JSON message; its id, where there is a log."""
        ...

    async def drain(self, seconds: float) -> None:
        """Receive no more, and wait at most `seconds` until what was received is handled."""
        ...

    async def close(self, seconds: float) -> None:
        """Send what is waiting and leave the channel; takes about `seconds` at most."""
        ...


class LogLink:
    """A `Link` over a `LogBackend`.

    Args:
        backend: The log.
        channel: Wire name of the channel.
        options: What this peer says about itself; a `peer` name makes it durable.
        settings: How to read.
        join_timeout: For how many seconds `start` tries to join while the server is out of reach.
        publish_timeout: For how many seconds a message is tried again while the server did not take it.
        receive: Takes what arrives.
        flow: Whether there is room for what arrives.
        teller: Told what the application may want to know.
        counters: Where to count.
    """

    def __init__(
        self,
        backend: LogBackend,
        channel: str,
        options: JoinOptions,
        settings: ReaderSettings,
        *,
        join_timeout: float,
        publish_timeout: float,
        receive: Receive,
        flow: LogFlow,
        teller: Teller,
        counters: Counters,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._join_timeout = join_timeout
        self._receive = receive
        self._flow = flow
        self._teller = teller
        self._counters = counters
        self._session = Session(backend, channel, options)
        self._publisher = Publisher(backend, self._session, timeout=publish_timeout)
        self._reader: LogReader | None = None
        self._reading: asyncio.Task[None] | None = None
        self._refused = False

    @property
    def refused(self) -> bool:
        """Whether the server no longer accepts this durable peer."""
        return self._refused

    @property
    def wake(self) -> str:
        """How new messages are noticed."""
        return "poll" if self._reader is None else self._reader.wake

    @property
    def position(self) -> int | None:
        """Id of the last message received."""
        return None if self._reader is None else self._reader.position

    @property
    def acknowledged(self) -> int | None:
        """Id up to which the server knows that everything is handled."""
        return None if self._reader is None else self._reader.acknowledged

    @property
    def in_flight(self) -> int:
        """Messages received and not yet handled."""
        return 0 if self._reader is None else self._reader.in_flight

    async def start(self) -> None:
        """Join the channel and begin to read."""
        await self._session.join(self._join_timeout)
        self._reader = LogReader(
            self._backend,
            self._session,
            self._settings,
            receive=self._receive,
            flow=self._flow,
            on_lost=self._teller.lost,
            on_redelivered=self._teller.redelivered,
            counters=self._counters,
        )
        self._reading = asyncio.create_task(self._read(self._reader), name="bus_reader")

    async def publish(self, payload: bytes) -> int:
        """Append one JSON message to the log; its id."""
        self._session.require_place()
        return await self._publisher.publish(payload)

    async def drain(self, seconds: float) -> None:
        """Read no more, and wait until what was read is handled."""
        if self._reader is None or self._reading is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._reader.stop()
        try:
            await self._flow.stop()
            await asyncio.wait({self._reading}, timeout=seconds)
        finally:
            # Also where the caller was cancelled: a call that hangs would outlive the bus.
            self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if not await self._reader.drain(deadline - loop.time()):
            logger.warning(
                "channel %r: stopping with %d messages unhandled after %.1f s",
                self._session.channel,
                self._reader.in_flight,
                seconds,
            )

    async def rest(self) -> AsyncIterator[LogRecord]:
        """After `drain`: what the log has by now beyond the last message that was received, announced or not.

        Raises:
            BackendError: The server refused, or was out of reach.
        """
        if self._reader is None:
            return
        after = self._reader.position
        queue = self._session.membership.queue
        while records := await self._backend.read_after(
            self._session.channel, queue, after=after, acknowledge=None, limit=_REST
        ):
            for record in records:
                yield record
            after = records[-1].msg_id

    async def close(self, seconds: float) -> None:
        """Send what is waiting and leave; a durable peer stays known to the server, with its position."""
        if self._reader is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # Each step is made even where the one before is cancelled: what is left open would stay open.
        try:
            await self._publisher.close(seconds)
        finally:
            try:
                # Also before leaving for good: the last one to leave lets the log be trimmed.
                await self._by(deadline, self._reader.close(acknowledge=not self._refused))
            finally:
                self._reader = None
                durable = self._session.options.peer is not None
                queue = self._session.membership.queue
                await self._by(deadline, self._backend.leave_channel(self._session.channel, queue, forget=not durable))

    async def _by(self, deadline: float, farewell: Coroutine[Any, Any, None]) -> None:
        """Take leave until then; what a server does at once has its time even where publishing took all of it."""
        try:
            async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + _FAREWELL)):
                await farewell
        except (BackendError, TimeoutError) as exc:
            # The server forgets a silent peer by itself.
            reason = str(exc) or "the server does not answer"
            logger.warning("channel %r: leaving failed: %s", self._session.channel, reason)

    async def _read(self, reader: LogReader) -> None:
        try:
            await reader.run()
        except PeerRefusedError as exc:
            self._refused = True
            logger.error(
                "channel %r: durable peer %r is refused: %s; this process no longer reads or publishes",
                self._session.channel,
                self._session.options.peer,
                exc,
            )
            await self._flow.stop()
            self._teller.refused(exc)
