"""Ways to learn of new messages. All only hint: the reader looks at the log and at nothing else.

A `Waker` calls the reader's `wake` and never waits for it, so a call that comes while the reader is busy is
kept by the reader. Whatever a way of waking can miss, the reader's own polling makes up for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.connection import DRIVER_ERRORS, drop
from bus_runtime.errors import BackendError

logger = logging.getLogger(__name__)

#: Seconds between checks of a silent LISTEN connection, whose peer may have vanished without a word.
_CHECK_INTERVAL = 30.0
_CHECK_TIMEOUT = 10.0


class PollWaker:
    """Never wakes: the reader polls."""

    mode = "poll"

    async def start(self, wake: Callable[[], None]) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


class ListenWaker:
    """Wakes on NOTIFY, over a connection kept for it; says `poll` while it has none.

    Args:
        connect: Gives a connection for as long as it is used.
        name: The name to LISTEN to.
    """

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[asyncpg.pool.PoolConnectionProxy]], name: str
    ) -> None:
        self._connect = connect
        self._name = name
        self._listening = False
        self._wake: Callable[[], None] = _ignore
        self._task: asyncio.Task[None] | None = None

    @property
    def mode(self) -> str:
        """`listen`, or `poll` while there is no connection to listen on."""
        return "listen" if self._listening else "poll"

    async def start(self, wake: Callable[[], None]) -> None:
        """Begin to listen in the background."""
        self._wake = wake
        self._task = asyncio.create_task(self._run(), name="bus_listen")

    async def close(self) -> None:
        """Give the connection back."""
        self._wake = _ignore
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        backoff = Backoff()
        outage = OutageLog(logger, "listening for new messages (polling meanwhile)")
        while True:
            try:
                async with self._connect() as connection:
                    await self._listen(connection, backoff, outage)
                outage.failed(ConnectionError("the connection was closed"))
            except (BackendError, *DRIVER_ERRORS) as exc:
                outage.failed(exc)
            # The reader learns that it has to poll from now on.
            self._wake()
            await asyncio.sleep(backoff.next_delay())

    async def _listen(self, connection: Any, backoff: Backoff, outage: OutageLog) -> None:
        """Listen until the connection ends."""
        ended = asyncio.Event()

        def on_end(_: object) -> None:
            ended.set()

        connection.add_termination_listener(on_end)
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await connection.add_listener(self._name, self._notified)
            self._listening = True
            backoff.reset()
            outage.recovered()
            # What was published before the LISTEN took effect rang nobody.
            self._wake()
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_INTERVAL):
                        await ended.wait()
                if not ended.is_set():
                    await connection.fetchval("select 1", timeout=_CHECK_TIMEOUT)
        except TimeoutError:
            drop(connection)
            raise
        finally:
            self._listening = False
            await self._unlisten(connection, on_end)

    async def _unlisten(self, connection: Any, on_end: Callable[[object], None]) -> None:
        """Leave the connection as it was, if it still works."""
        try:
            connection.remove_termination_listener(on_end)
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await connection.remove_listener(self._name, self._notified)
        except DRIVER_ERRORS:
            drop(connection)

    def _notified(self, *_: object) -> None:
        self._wake()


def _ignore() -> None:
    return None
