"""What an application may be told about: the callbacks of a bus, whose failures are theirs alone."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bus_runtime.dispatch import PASSED_ON
from bus_runtime.errors import PeerRefusedError, SerializationError
from bus_runtime.flow import Budget

logger = logging.getLogger(__name__)

#: Called with the id, the JSON bytes and the error of a message that could not be decoded.
OnUndecodable = Callable[[int, bytes, SerializationError], Awaitable[None] | None]
#: Called with the number of messages that were trimmed from the log before this peer read them.
OnLost = Callable[[int], None]
#: Called with the id of a message that an earlier process of this durable peer had received, before it is delivered.
OnRedelivered = Callable[[int], None]
#: Called with the name of a subscriber, and True when it does not keep up, False when it keeps up again.
OnLagging = Callable[[str, bool], None]
#: Called when the server no longer accepts this durable peer.
OnRefused = Callable[[PeerRefusedError], None]

#: How much of a message and of the reason why it cannot be decoded is logged, and how many different reasons.
_MAX_LOGGED = 200
_MAX_REASONS = 100


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks that were given; see `PgmqBus`."""

    on_undecodable: OnUndecodable | None = None
    on_lost: OnLost | None = None
    on_redelivered: OnRedelivered | None = None
    on_lagging: OnLagging | None = None
    on_refused: OnRefused | None = None


class Teller:
    """Calls them.

    Args:
        subject: What the log calls the bus.
        callbacks: What to call.
        on_error: Called for each exception that a callback raises.
    """

    def __init__(self, subject: str, callbacks: Callbacks, on_error: Callable[[], None]) -> None:
        self._subject = subject
        self._callbacks = callbacks
        self._on_error = on_error
        self._reported: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def lost(self, count: int) -> None:
        """Up to `count` messages were trimmed before they were read."""
        self._call(self._callbacks.on_lost, count)

    def redelivered(self, msg_id: int) -> None:
        """This message is about to be delivered again."""
        self._call(self._callbacks.on_redelivered, msg_id)

    def lagging(self, subscriber: str, lags: bool) -> None:
        """A subscriber does not keep up, or does again."""
        self._call(self._callbacks.on_lagging, subscriber, lags)

    def refused(self, error: PeerRefusedError) -> None:
        """This durable peer is no longer ours."""
        self._call(self._callbacks.on_refused, error)

    def undecodable(
        self, msg_id: int, payload: bytes, error: SerializationError, handled: Callable[[], None], budget: Budget
    ) -> None:
        """Nobody here can read this message: it is given to the callback and may be acknowledged then.

        Args:
            msg_id: Id of the message.
            payload: Its JSON.
            error: Why it cannot be decoded.
            handled: Called when the callback is through.
            budget: What waits for the callback, which may take its time.
        """
        self._log_undecodable(msg_id, payload, str(error)[:_MAX_LOGGED])
        if self._callbacks.on_undecodable is None:
            handled()
            return
        budget.take(len(payload))
        task = asyncio.create_task(self._tell(msg_id, payload, error, handled, budget), name="bus_set_aside")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(
        self, msg_id: int, payload: bytes, error: SerializationError, handled: Callable[[], None], budget: Budget
    ) -> None:
        result = self._call(self._callbacks.on_undecodable, msg_id, payload, error)
        if inspect.isawaitable(result):
            try:
                await result
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._failed("on_undecodable")  # it awaited something that was cancelled
            except PASSED_ON:
                raise
            except BaseException:  # the application's code, as in dispatch.py
                self._failed("on_undecodable")
        budget.release(len(payload))
        handled()

    def _log_undecodable(self, msg_id: int, payload: bytes, reason: str) -> None:
        level = logging.DEBUG
        if reason not in self._reported and len(self._reported) < _MAX_REASONS:
            self._reported.add(reason)
            level = logging.WARNING
        logger.log(
            level,
            "%s: message %d cannot be decoded and is set aside: %s; it begins %r (the same reason is logged once)",
            self._subject,
            msg_id,
            reason,
            payload[:_MAX_LOGGED],
        )

    def _call(self, callback: Callable[..., Any] | None, *args: Any) -> Any:
        if callback is None:
            return None
        try:
            return callback(*args)
        except PASSED_ON:
            raise
        except BaseException:  # the application's code, as in dispatch.py
            self._failed(getattr(callback, "__name__", "a callback"))
            return None

    def _failed(self, name: str) -> None:
        self._on_error()
        logger.exception("%s: %s failed", self._subject, name)
