"""Publishes with group commit: whatever is waiting goes into the next call.

A lone publish makes its call itself, at once and without another task; while a call is under way others gather, and
leave together in one call and one commit. Messages leave in the order in which `publish` was called.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from bus_runtime.backend import LogBackend, Membership
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.errors import (
    BUS_NOT_RUNNING,
    MESSAGE_TOO_LARGE,
    AccessDeniedError,
    BackendError,
    PeerRefusedError,
    PublishError,
    RejectedError,
    UnavailableError,
)
from bus_runtime.session import Session

logger = logging.getLogger(__name__)

#: Bounds of one call: enough to amortise a flush, small enough not to hold the channel's publish lock long.
_MAX_BATCH_MESSAGES = 500
_MAX_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(eq=False, slots=True)
class _Waiting:
    payload: bytes
    deadline: float
    result: asyncio.Future[int]
    alone: bool = field(default=False)

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class Publisher:
    """Sends messages for one session.

    Args:
        backend: Where to publish.
        session: As whom.
        timeout: For how many seconds a message is tried again while the server certainly did not take it.
    """

    def __init__(self, backend: LogBackend, session: Session, *, timeout: float) -> None:
        self._backend = backend
        self._session = session
        self._timeout = timeout
        self._waiting: deque[_Waiting] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._leading: asyncio.Timeout | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._refusals = 0
        self._refused: Membership | None = None
        self._backoff = Backoff()
        self._outage = OutageLog(logger, f"publishing to channel {session.channel!r}")

    async def publish(self, payload: bytes) -> int:
        """Append one JSON message to the log; its id, once the server has committed it.

        Raises:
            BackendError: It was not published; for `ConnectionLostError` that is not known.
        """
        limit = self._session.membership.max_message_bytes
        if limit is not None and len(payload) > limit:
            raise RejectedError(
                f"message of {len(payload)} bytes exceeds this channel's limit of {limit} bytes: send less, or raise"
                " limits.maxMessageBytes of the BusChannel",
                code=MESSAGE_TOO_LARGE,
            )
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(payload, time.monotonic() + self._timeout, result))
        try:
            if self._quiet.is_set():
                await self._lead()
            return await result
        finally:
            # Who was cancelled wants neither another attempt nor the result.
            if not result.cancel() and not result.cancelled():
                result.exception()

    async def close(self, seconds: float) -> None:
        """Send what is waiting, for at most `seconds`; the rest fails."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._quiet.wait()
        finally:
            # Also where the caller was cancelled: nobody waits for what would go on.
            if not self._quiet.is_set():
                await self._give_up()

    async def _give_up(self) -> None:
        # First what waits, so that nothing goes on with it.
        stopped = "the bus was stopped before the message could be published"
        _fail(self._waiting, PublishError(stopped, code=BUS_NOT_RUNNING))
        self._waiting.clear()
        if self._leading is not None:
            self._leading.reschedule(0)
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
            # One that had not begun does not say so itself.
            self._quiet.set()
        await self._quiet.wait()

    async def _lead(self) -> None:
        """Make the call for a message that found nothing under way; a task goes on with what gathers meanwhile."""
        self._quiet.clear()
        self._leading = asyncio.timeout(None)
        try:
            # A scope that only `close` ends: the caller's task is not ours to cancel.
            async with self._leading:
                await self._send(self._take())
        except TimeoutError:
            pass
        finally:
            self._leading = None
            if self._waiting:
                self._flusher = asyncio.create_task(self._flush(), name="bus_publish")
            else:
                self._quiet.set()

    async def _flush(self) -> None:
        try:
            while batch := self._take():
                await self._send(batch)
        finally:
            self._flusher = None
            self._quiet.set()

    async def _send(self, batch: list[_Waiting]) -> None:
        """One call for these messages: each gets its result, or waits for another attempt."""
        membership = self._session.membership
        # If the reader has joined anew meanwhile, to renew that membership would leave its peer behind.
        refusals = self._refusals if membership is self._refused else 0
        try:
            if refusals > 1:
                membership = await self._session.renew(membership)
            ids = await self._backend.publish_many(
                self._session.channel, membership.queue, [item.payload for item in batch]
            )
        except RejectedError as exc:
            self._separate(batch, exc)
        except AccessDeniedError as exc:
            self._refused = membership
            # As in LogReader: the second refusal tells, and then the membership is renewed, once.
            if refusals > 1:
                _fail(batch, exc)
                self._refusals = 0
            else:
                self._waiting.extendleft(reversed(batch))
                self._refusals = 2 if isinstance(exc, PeerRefusedError) else refusals + 1
        except BackendError as exc:
            await self._retry_or_fail(batch, exc)
        except asyncio.CancelledError:
            stopped = "the bus was stopped while the message was being sent"
            _fail(batch, PublishError(stopped, outcome_unknown=True, code=BUS_NOT_RUNNING))
            raise
        # Whatever a backend raises belongs to the publishers of this batch, and not to the next ones.
        except Exception as exc:
            _fail(batch, exc)
        else:
            self._refusals = 0
            self._backoff.reset()
            self._outage.recovered()
            for item, msg_id in zip(batch, ids, strict=True):
                if not item.result.done():
                    item.result.set_result(msg_id)

    def _take(self) -> list[_Waiting]:
        """The next batch; publishers that were cancelled while waiting are left out."""
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < _MAX_BATCH_MESSAGES:
            item = self._waiting[0]
            if batch and (item.alone or batch[-1].alone or size + len(item.payload) > _MAX_BATCH_BYTES):
                break
            self._waiting.popleft()
            if not item.result.done():
                batch.append(item)
                size += len(item.payload)
        return batch

    def _separate(self, batch: list[_Waiting], error: RejectedError) -> None:
        """The server rejects a message: it must not take its neighbours with it, so each goes alone."""
        if len(batch) == 1:
            batch[0].fail(error)
            return
        for item in batch:
            item.alone = True
        self._waiting.extendleft(reversed(batch))

    async def _retry_or_fail(self, batch: list[_Waiting], error: BackendError) -> None:
        if not error.retryable:
            _fail(batch, error)
            return
        if isinstance(error, UnavailableError):
            self._outage.failed(error)
        delay = self._backoff.next_delay()
        give_up = time.monotonic() + delay
        _fail([item for item in batch if item.deadline < give_up], error)
        self._waiting.extendleft(item for item in reversed(batch) if item.deadline >= give_up)
        await asyncio.sleep(delay)


def _fail(batch: Iterable[_Waiting], error: BaseException) -> None:
    for item in batch:
        item.fail(error)
