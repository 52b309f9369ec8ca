"""The bus over PostgreSQL: serializes, delivers, counts, and leaves the transport to a `Link`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bus_runtime._version import __version__
from bus_runtime.backend import JoinOptions, LogBackend, PgmqBackend
from bus_runtime.binding import find_binding
from bus_runtime.bus import WorkerBus
from bus_runtime.direct import DirectPgmqBackend
from bus_runtime.errors import ConnectionLostError, PublishError, SerializationError
from bus_runtime.isolated import IsolatedPgmqBackend
from bus_runtime.link import Link, LogLink
from bus_runtime.messages import BusLocalMessage, BusMessage
from bus_runtime.queue_link import QueueLink
from bus_runtime.reader import ReaderSettings
from bus_runtime.serializers import JSONMessageSerializer, MessageSerializer
from bus_runtime.stats import BusState, BusStats, Counters

if TYPE_CHECKING:
    from pgmq.async_queue import PGMQueue

logger = logging.getLogger(__name__)

#: Called with the id, the JSON bytes and the error of a message that could not be decoded.
OnUndecodable = Callable[[int, bytes, SerializationError], Awaitable[None] | None]
#: Called with the number of messages that were trimmed from the log before this peer read them.
OnLost = Callable[[int], None]

#: How much of a message and of the reason why it cannot be decoded is logged, and how many different reasons.
_MAX_LOGGED = 200
_MAX_REASONS = 100


class PgmqBus(WorkerBus):
    """Publish and subscribe between processes over PostgreSQL.

    The arguments up to `max_poll_seconds` are those of the reference client.

    Args:
        pgmq: An initialised `pgmq.async_queue.PGMQueue`: a queue per peer, for peers that trust each other.
        backend: Any `PgmqBackend` or `LogBackend`. Exactly one of `pgmq` and `backend` is given.
        serializer: Default: `JSONMessageSerializer`, which the reference client understands.
        channel: Name of the channel.
        visibility_timeout: Seconds after which what a dead reader did not acknowledge is delivered again. Slow
            handlers are not concerned: it is extended while they run.
        batch_size: Messages per read.
        poll_interval_ms: Milliseconds between looks where nothing wakes the reader; grows while nothing comes.
        max_poll_seconds: Longest time without a look at the channel.
        acknowledge: `on_handled`: once every subscriber of this process is through with the message, so that a
            killed process loses nothing; `on_dispatch`: as soon as it is queued for them, as the reference does.
        peer: Durable name: after a restart the same name continues at what it had acknowledged.
        application: What this program calls itself in the channel's status; default: the name of its file.
        stop_timeout: Seconds that `stop` waits for handlers.
        join_timeout: Seconds that `start` tries to reach the server.
        publish_timeout: Seconds that `publish` tries again while the server certainly did not take the message.
        on_undecodable: Called with each message that cannot be decoded, before it is acknowledged.
        on_lost: Called with the number of messages that were trimmed before this peer read them.
        name: Name of this bus in logs.

    Raises:
        ValueError: Both or neither of `pgmq` and `backend`, or `peer` with a backend that has no durable peers.
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
        stop_timeout: float = 10.0,
        join_timeout: float = 30.0,
        publish_timeout: float = 30.0,
        on_undecodable: OnUndecodable | None = None,
        on_lost: OnLost | None = None,
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
        self._backend = backend
        if peer is not None and not isinstance(self._backend, LogBackend):
            raise ValueError(f"peer= needs a backend with durable peers; {type(self._backend).__name__} has none")
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
        self._on_undecodable = on_undecodable
        self._on_lost = on_lost
        self._counters = Counters()
        self._link: Link | None = None
        self._stopping = False
        self._reported: set[str] = set()
        self._setting_aside: set[asyncio.Task[None]] = set()

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

        Raises:
            BackendError: The server refused, or stayed out of reach for `join_timeout`. The bus is not running.
        """
        if self._running:
            return
        await super().start()
        link = self._make_link()
        try:
            await link.start()
        except BaseException:
            await super().stop()
            raise
        self._link = link

    async def stop(self) -> None:
        """Receive no more, let handlers finish for at most `stop_timeout` seconds, leave the channel.

        A durable peer does not leave: it acknowledges what is done and continues there after its next start.
        Called by a handler, it does not wait for handlers. Never raises because leaving failed. Returns at once when
        another call is stopping the bus already.
        """
        if self._link is None or self._stopping:
            return
        link = self._link
        self._stopping = True
        try:
            within_handler = any(s.runs_current_task() for s in self._subscriptions.values())
            await link.drain(0 if within_handler else self._stop_timeout)
            self._link = None
            await super().stop()
            for subscription in self._subscriptions.values():
                subscription.clear()
            await link.close(self._stop_timeout)
        finally:
            self._stopping = False

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
                raise PublishError(f"{self}: the bus is not running, so {message} was dropped")
            await self._link.publish(self._serializer.serialize(message))
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
            reconnects=counters.reconnects,
            rejoined=counters.rejoined,
            position=None if link is None else link.position,
            acknowledged=None if link is None else link.acknowledged,
            in_flight=0 if link is None else link.in_flight,
        )

    def _make_link(self) -> Link:
        if isinstance(self._backend, LogBackend):
            return LogLink(
                self._backend,
                self._channel,
                self._options,
                self._settings,
                join_timeout=self._join_timeout,
                publish_timeout=self._publish_timeout,
                receive=self._receive,
                on_lost=self._lost,
                counters=self._counters,
            )
        return QueueLink(self._backend, self._channel, self._settings, receive=self._receive, counters=self._counters)

    def _receive(self, msg_id: int, payload: bytes, handled: Callable[[], None]) -> None:
        try:
            message = self._serializer.deserialize(payload)
            if message is None or isinstance(message, BusLocalMessage):
                raise SerializationError("local messages are not accepted from other processes")
        except SerializationError as exc:
            self._set_aside(msg_id, payload, exc, handled)
            return
        # A serializer of the application may raise anything; one message must not end the reader.
        except Exception as exc:
            self._set_aside(msg_id, payload, SerializationError(f"{type(exc).__name__}: {exc}"), handled)
            return
        if self._acknowledge_on_dispatch:
            self._deliver(message, None)
            handled()
        else:
            self._deliver(message, handled)

    def _set_aside(self, msg_id: int, payload: bytes, error: SerializationError, handled: Callable[[], None]) -> None:
        """Count and report a message nobody here can read, then let it be acknowledged."""
        self._counters.undecodable += 1
        reason = str(error)[:_MAX_LOGGED]
        level = logging.DEBUG
        if reason not in self._reported and len(self._reported) < _MAX_REASONS:
            self._reported.add(reason)
            level = logging.WARNING
        logger.log(
            level,
            "%s: message %d cannot be decoded and is set aside: %s; it begins %r (the same reason is logged once)",
            self,
            msg_id,
            reason,
            payload[:_MAX_LOGGED],
        )
        if self._on_undecodable is None:
            handled()
            return
        task = asyncio.create_task(self._tell_undecodable(msg_id, payload, error, handled), name="bus_set_aside")
        self._setting_aside.add(task)
        task.add_done_callback(self._setting_aside.discard)

    async def _tell_undecodable(
        self, msg_id: int, payload: bytes, error: SerializationError, handled: Callable[[], None]
    ) -> None:
        try:
            if self._on_undecodable is not None and inspect.isawaitable(
                result := self._on_undecodable(msg_id, payload, error)
            ):
                await result
        except Exception:  # the application's code, as in dispatch.py
            self._count_handler_error()
            logger.exception("%s: on_undecodable failed for message %d", self, msg_id)
        handled()

    def _lost(self, count: int) -> None:
        if self._on_lost is None:
            return
        try:
            self._on_lost(count)
        except Exception:  # the application's code, as in dispatch.py
            self._count_handler_error()
            logger.exception("%s: on_lost failed", self)

    def _publish_error(self, message: BusMessage, cause: Exception) -> PublishError:
        if isinstance(cause, PublishError):
            return cause
        unknown = isinstance(cause, ConnectionLostError)
        outcome = "the outcome is unknown" if unknown else "not published"
        return PublishError(f"{self}: {message}: {outcome}: {cause}", outcome_unknown=unknown)
