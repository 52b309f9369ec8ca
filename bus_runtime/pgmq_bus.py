"""The bus over PostgreSQL: serializes, delivers, counts, and leaves the transport to a `Link`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bus_runtime._version import __version__
from bus_runtime.backend import JoinOptions, LogBackend, PgmqBackend
from bus_runtime.binding import find_binding
from bus_runtime.bus import WorkerBus
from bus_runtime.callbacks import Callbacks, OnLagging, OnLost, OnRedelivered, OnRefused, OnUndecodable, Teller
from bus_runtime.direct import DirectPgmqBackend
from bus_runtime.dispatch import PASSED_ON, Around, Subscription
from bus_runtime.errors import (
    BUS_NOT_RUNNING,
    BusError,
    ConnectionLostError,
    PublishError,
    SerializationError,
    reason_of,
)
from bus_runtime.flow import Flow, Limits
from bus_runtime.isolated import IsolatedPgmqBackend
from bus_runtime.lagging import LogFlow
from bus_runtime.link import Link, LogLink
from bus_runtime.messages import BusLocalMessage, BusMessage
from bus_runtime.queue_link import QueueLink
from bus_runtime.reader import ReaderSettings
from bus_runtime.serializers import JSONMessageSerializer, MessageSerializer
from bus_runtime.stats import BusState, BusStats, Counters
from bus_runtime.subscriber import BusSubscriber

if TYPE_CHECKING:
    from pgmq.async_queue import PGMQueue

    from bus_runtime.tracing import Tracing

logger = logging.getLogger(__name__)


class PgmqBus(WorkerBus):
    """Publish and subscribe between processes over PostgreSQL.

    The arguments up to `max_poll_seconds` are those of the reference client.

    Args:
        pgmq: An initialised `pgmq.async_queue.PGMQueue`: a queue per peer, for peers that trust each other.
        backend: Any `PgmqBackend` or `LogBackend`. Exactly one of `pgmq` and `backend` is given.
        serializer: Default: `JSONMessageSerializer`, which the reference client understands.
        channel: Name of the channel.
        visibility_timeout: Only for backends without a log: seconds after which a queue delivers again what was not
            acknowledged.
        batch_size: Messages per read, to begin with; more while there are more.
        poll_interval_ms: Milliseconds between looks where nothing wakes the reader; grows while nothing comes.
        max_poll_seconds: Longest time without a look at the channel; on one with hundreds of peers, 80 ms for each.
        acknowledge: `on_handled`: once every subscriber of this process is through with the message, so that a
            killed process loses nothing; `on_dispatch`: as soon as it is queued for them, as the reference does.
        peer: Durable name: after a restart the same name continues at what it had acknowledged.
        application: What this program calls itself in the channel's status; default: the name of its file.
        max_in_flight: Messages that each subscriber may hold, waiting or under way, before reading for it pauses.
        max_in_flight_bytes: Bytes of their JSON that it may hold, likewise.
        stop_timeout: Seconds that `stop` waits for handlers, and again for what is being published.
        join_timeout: Seconds that `start` tries to reach the server.
        publish_timeout: Seconds that `publish` tries again while the server certainly did not take the message.
        on_undecodable: Called with each message that cannot be decoded, before it is acknowledged.
        on_lost: Called with the number of messages that were trimmed before this peer read them.
        on_redelivered: Called with the id of each message that an earlier process of this durable peer had received and
            not acknowledged, before it is delivered again.
        on_lagging: Called with a subscriber's name and True when it has not kept up for some seconds: its messages
            wait in the log. With False when it keeps up again.
        on_refused: Called when another process took over this durable peer, or its credentials were revoked. The bus
            neither receives nor publishes any more, and should be stopped.
        tracing: Spans of OpenTelemetry where it is installed and configured when the bus starts; False: never.
        name: Name of this bus in logs.

    Raises:
        ValueError: Both or neither of `pgmq` and `backend`, `peer` with a backend that has no durable peers, or a limit
            below 1.
    """

    def __init__(
        self,
        *,
        pgmq: PGMQueue | None = None,
        backend: PgmqBackend | LogBackend | None = None,
        serializer: MessageSerializer | None = None,
        channel: str = "pipecat_bus",
        visibility_timeout: int = 30,
        batch_size: int = 10,
        poll_interval_ms: int = 100,
        max_poll_seconds: int = 5,
        acknowledge: Literal["on_handled", "on_dispatch"] = "on_handled",
        peer: str | None = None,
        application: str | None = None,
        max_in_flight: int = 1000,
        max_in_flight_bytes: int = 16 * 1024 * 1024,
        stop_timeout: float = 10.0,
        join_timeout: float = 30.0,
        publish_timeout: float = 30.0,
        on_undecodable: OnUndecodable | None = None,
        on_lost: OnLost | None = None,
        on_redelivered: OnRedelivered | None = None,
        on_lagging: OnLagging | None = None,
        on_refused: OnRefused | None = None,
        tracing: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if pgmq is not None and backend is not None:
            raise ValueError("PgmqBus takes pgmq= or backend=, not both")
        if pgmq is not None:
            backend = DirectPgmqBackend(pgmq)
        if backend is None:
            raise ValueError("PgmqBus needs pgmq= or backend= (or use PgmqBus.from_binding())")
        if acknowledge not in ("on_handled", "on_dispatch"):
            raise ValueError(f"acknowledge must be 'on_handled' or 'on_dispatch', got {acknowledge!r}")
        if peer is not None and not isinstance(backend, LogBackend):
            raise ValueError(f"peer= needs a backend with durable peers; {type(backend).__name__} has none")
        self._backend = backend
        self._serializer = serializer or JSONMessageSerializer()
        self._channel = channel
        self._settings = ReaderSettings(
            visibility_timeout=visibility_timeout,
            batch_size=batch_size,
            poll_interval=poll_interval_ms / 1000,
            max_poll=max_poll_seconds,
        )
        self._acknowledge_on_dispatch = acknowledge == "on_dispatch"
        self._options = JoinOptions(
            peer=peer,
            application=application or Path(sys.argv[0]).name or None,
            host=os.environ.get("HOSTNAME"),
            runtime=f"bus_runtime/{__version__}",
        )
        self._stop_timeout = stop_timeout
        self._join_timeout = join_timeout
        self._publish_timeout = publish_timeout
        self._teller = Teller(
            self.name,
            Callbacks(on_undecodable, on_lost, on_redelivered, on_lagging, on_refused),
            self._count_handler_error,
        )
        self._counters = Counters()
        limits = Limits(max_in_flight, max_in_flight_bytes)
        self._flow, self._make_link = (
            self._over_log(backend, limits) if isinstance(backend, LogBackend) else self._over_queues(backend, limits)
        )
        self._link: Link | None = None
        #: Held by `start` and `stop`, so that each finds the bus either started or stopped.
        self._changing = asyncio.Lock()
        self._joining: asyncio.Timeout | None = None
        self._stopping = False
        self._may_trace = tracing
        self._tracing: Tracing | None = None

    @classmethod
    def from_binding(cls, name: str | None = None, *, root: str | Path | None = None, **overrides: Any) -> Self:
        """A bus for the injected binding: the one there is, or the one called `name`.

        Args:
            name: Name of the BusChannel. Not needed when the pod is bound to one channel only.
            root: Where bindings are; default: the environment's `SERVICE_BINDING_ROOT`.
            **overrides: Arguments of `PgmqBus`, which take precedence over the channel's reader settings.

        Raises:
            BindingError: There is no such binding, or it is incomplete; the message says what to do.
        """
        binding = find_binding(name, root=root)
        reader = binding.reader
        arguments: dict[str, Any] = {
            "visibility_timeout": reader.visibility_timeout_seconds,
            "batch_size": reader.batch_size,
            "poll_interval_ms": reader.poll_interval_milliseconds,
            "max_poll_seconds": reader.max_poll_seconds,
        }
        return cls(backend=IsolatedPgmqBackend(binding=binding), channel=binding.channel, **(arguments | overrides))

    async def start(self) -> None:
        """Join the channel and begin to deliver; messages published from then on are received.

        Does nothing on a running bus. Waits for a `start` or `stop` that is under way.

        Raises:
            BackendError: The server refused, or stayed out of reach for `join_timeout`. The bus is not running.
            BusError: `stop` was called meanwhile. The bus is not running.
        """
        async with self._changing:
            if not self._running:
                await self._start()

    async def _start(self) -> None:
        self._tracing = self._find_tracing() if self._may_trace else None
        link = self._make_link()
        # A scope that only `stop` ends: the caller's task is not ours to cancel.
        self._joining = joining = asyncio.timeout(None)
        try:
            async with joining:
                await super().start()
                await link.start()
        except BaseException as exc:
            await super().stop()
            if isinstance(exc, TimeoutError) and joining.expired():
                raise BusError(f"{self}: stop() was called before it had started", code=BUS_NOT_RUNNING) from None
            raise
        finally:
            self._joining = None
        self._link = link

    async def stop(self) -> None:
        """Receive no more, have handled what was received and sent what `publish` accepted, leave the channel.

        Handlers get `stop_timeout` seconds, and then as long what waits to be sent. A durable peer does not leave: it
        acknowledges what is done and continues there after its next start. Called by a handler, this does not wait for
        handlers. Never raises because leaving failed. Returns at once when another call is stopping the bus already.
        Ends a `start` that is under way, which raises then. Whoever cancels this waits for nothing more, but for a
        moment so that the channel is left all the same.
        """
        if self._stopping:
            return
        joining, self._joining = self._joining, None
        if joining is not None:
            joining.reschedule(0)
        async with self._changing:
            if self._link is not None:
                await self._stop(self._link)

    async def _stop(self, link: Link) -> None:
        self._stopping = True
        # For what waits to be sent, unless it is cancelled before.
        seconds = 0.0
        try:
            within_handler = any(s.runs_current_task() for s in self._subscriptions.values())
            patience = 0.0 if within_handler else self._stop_timeout
            deadline = asyncio.get_running_loop().time() + patience
            await link.drain(patience)
            if self._acknowledge_on_dispatch and not within_handler:
                # The link waits for what is not acknowledged; nobody will be handed again what is.
                await self._finish_dispatched(deadline)
            seconds = self._stop_timeout
        finally:
            self._link = None
            try:
                await super().stop()
            finally:
                for subscription in self._subscriptions.values():
                    subscription.clear()
                try:
                    await link.close(seconds)
                finally:
                    self._stopping = False

    async def _finish_dispatched(self, deadline: float) -> None:
        if not await self._flow.drain(deadline - asyncio.get_running_loop().time()):
            logger.warning("%s: stopping with %d messages unhandled, which are lost", self, self._flow.messages)

    async def publish(self, message: BusMessage, *, raise_on_error: bool = False) -> None:
        """Send a message to every peer of the channel, and return when the server has committed it.

        By default a failure is logged and counted and nothing is raised. While the server certainly did not take
        the message, it is tried again for `publish_timeout`. When the connection breaks after the message was sent,
        nobody can tell whether it was committed; it is not sent again, because that might deliver it twice.

        Args:
            message: A `BusLocalMessage` is delivered within the process, as with `send`.
            raise_on_error: Raise instead of logging.

        Raises:
            PublishError: With `raise_on_error`: not published; `outcome_unknown` tells whether that is certain.
        """
        if isinstance(message, BusLocalMessage):
            self.on_message_received(message)
            return
        try:
            if self._link is None:
                raise PublishError(
                    f"{self}: the bus is not running, so {_shown(message)} was dropped: start() comes first",
                    code=BUS_NOT_RUNNING,
                )
            payload = self._serializer.serialize(message)
            if self._tracing is None:
                await self._link.publish(payload)
            else:
                await self._tracing.publish(message, payload, self._link.publish)
        # One boundary for all that can go wrong below, third-party backends and serializers included.
        except Exception as exc:
            self._counters.publish_errors += 1
            error = self._publish_error(message, exc)
            if raise_on_error:
                raise error from exc
            logger.warning("%s", error)
        else:
            self._counters.published += 1

    def stats(self) -> BusStats:
        """What this bus counted so far, and how it is doing."""
        counters, link = self._counters, self._link
        state: BusState = "stopped" if link is None else "refused" if link.refused else "running"
        return BusStats(
            state=state,
            wake="poll" if link is None else link.wake,
            published=counters.published,
            publish_errors=counters.publish_errors,
            received=counters.received,
            handled=counters.handled,
            handler_errors=self._handler_errors,
            undecodable=counters.undecodable,
            lost=counters.lost,
            redelivered=counters.redelivered,
            announced=counters.announced,
            overlooked=counters.overlooked,
            reconnects=counters.reconnects,
            rejoined=counters.rejoined,
            position=None if link is None else link.position,
            acknowledged=None if link is None else link.acknowledged,
            in_flight=0 if link is None else link.in_flight,
            queued=self._flow.messages,
            queued_bytes=self._flow.bytes,
            lagging=self._flow.lagging,
            generation=self._backend.generation if isinstance(self._backend, IsolatedPgmqBackend) else None,
        )

    def _add(self, subscriber: BusSubscriber) -> Subscription:
        subscription = super()._add(subscriber)
        self._flow.add(subscription)
        return subscription

    def _remove(self, subscriber: BusSubscriber) -> Subscription:
        subscription = super()._remove(subscriber)
        self._flow.remove(subscription)
        return subscription

    def _over_log(self, backend: LogBackend, limits: Limits) -> tuple[Flow, Callable[[], Link]]:
        flow = LogFlow(
            limits,
            decode=self._decode_again,
            acknowledge_on_dispatch=self._acknowledge_on_dispatch,
            on_lost=self._lost,
            on_lagging=self._teller.lagging,
            surround=self._surround,
        )
        return flow, lambda: LogLink(
            backend,
            self._channel,
            self._options,
            self._settings,
            join_timeout=self._join_timeout,
            publish_timeout=self._publish_timeout,
            receive=self._receive,
            flow=flow,
            teller=self._teller,
            counters=self._counters,
        )

    def _over_queues(self, backend: PgmqBackend, limits: Limits) -> tuple[Flow, Callable[[], Link]]:
        flow = Flow(limits)
        return flow, lambda: QueueLink(
            backend, self._channel, self._settings, receive=self._receive, flow=flow, counters=self._counters
        )

    def _receive(self, msg_id: int, payload: bytes, handled: Callable[[], None]) -> None:
        try:
            message = self._decode(payload)
        except SerializationError as exc:
            self._counters.undecodable += 1
            self._teller.undecodable(msg_id, payload, exc, handled, self._flow.aside)
            return
        around = None if self._tracing is None else self._surround(msg_id, message, payload)
        if self._acknowledge_on_dispatch:
            self._flow.deliver(msg_id, message, len(payload), None, around)
            handled()
        else:
            self._flow.deliver(msg_id, message, len(payload), handled, around)

    def _decode(self, payload: bytes) -> BusMessage:
        try:
            message = self._serializer.deserialize(payload)
        except (SerializationError, *PASSED_ON):
            raise
        # A serializer of the application may raise anything; one message must not end the reader.
        except BaseException as exc:
            raise SerializationError(f"{type(exc).__name__}: {exc}") from exc
        if message is None or isinstance(message, BusLocalMessage):
            raise SerializationError("local messages are not accepted from other processes")
        return message

    def _decode_again(self, payload: bytes) -> BusMessage | None:
        try:
            return self._decode(payload)
        except SerializationError:
            return None

    def _find_tracing(self) -> Tracing | None:
        try:
            from bus_runtime import tracing
        except ImportError:
            return None  # OpenTelemetry is an extra
        if not tracing.is_configured():
            return None
        server = self._backend.server if isinstance(self._backend, IsolatedPgmqBackend) else None
        return tracing.Tracing(self._channel, self._options.peer, server)

    def _surround(self, msg_id: int, message: BusMessage, payload: bytes) -> Around | None:
        return None if self._tracing is None else self._tracing.handling(msg_id, message, payload)

    def _lost(self, count: int) -> None:
        self._counters.lost += count
        self._teller.lost(count)

    def _publish_error(self, message: BusMessage, cause: Exception) -> PublishError:
        if isinstance(cause, PublishError):
            return cause
        unknown = isinstance(cause, ConnectionLostError)
        outcome = "the outcome is unknown" if unknown else "not published"
        code = cause.code if isinstance(cause, BusError) else None
        return PublishError(
            f"{self}: {_shown(message)}: {outcome}: {reason_of(cause)}", outcome_unknown=unknown, code=code
        )


def _shown(message: object) -> str:
    """A message in an error; of what is none only the type, since it may be large or secret."""
    return str(message) if isinstance(message, BusMessage) else type(message).__name__
