"""Being woken by NOTIFY, over a connection kept for it, where that works.

Behind a transaction pooler LISTEN succeeds and nothing is ever heard. So where something stands between this process
and the server, a notification of our own has to come back before LISTEN is relied on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.connection import is_direct
from bus_runtime.driver import DRIVER_ERRORS, drop
from bus_runtime.errors import BackendError

logger = logging.getLogger(__name__)

#: Seconds between checks of a silent connection, whose other end may have vanished without a word.
_CHECK_INTERVAL = 30.0
_CHECK_TIMEOUT = 10.0

#: Seconds for a notification of our own to come back, and before trying again when it did not: each attempt wakes all
#: that listen to the channel.
_ECHO_TIMEOUT = 2.0
_DEAF_PAUSE = (60.0, 900.0)


class _NothingHeardError(Exception):
    """LISTEN works, and notifications do not arrive."""


class Listener:
    """Listens to one name until it is closed.

    Args:
        connect: Gives a connection for as long as it is used.
        name: The name to LISTEN to.
        notify: Has the server notify those that listen to it.
        wake: Called for each notification, and when one may have been missed.
        on_change: Called when `listening` or `deaf` changed.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Any]],
        name: str,
        *,
        notify: Callable[[], Awaitable[None]],
        wake: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self._connect = connect
        self._notify = notify
        self._wake = wake
        self._on_change = on_change
        self._listening = self._deaf = False
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        # Set when there is something to look at: the connection ended, or somebody doubts it.
        self._attention = asyncio.Event()
        self._suspected = False

    @property
    def listening(self) -> bool:
        """Whether notifications arrive right now."""
        return self._listening

    @property
    def deaf(self) -> bool:
        """Whether it was tried and found not to work here."""
        return self._deaf

    def start(self) -> None:
        """Begin to listen in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bus_listen")

    def suspect(self) -> None:
        """Something was not heard: see whether anything still is."""
        self._suspected = True
        self._attention.set()

    async def close(self) -> None:
        """Give the connection back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        backoff, pause = Backoff(), Backoff(*_DEAF_PAUSE)
        outage = OutageLog(logger, "listening for new messages")
        while True:
            try:
                async with self._connect() as connection:
                    await self._listen(connection, backoff, outage)
                outage.failed(ConnectionError("the connection was closed"))
            except _NothingHeardError:
                if not self._deaf:
                    logger.info(
                        "listening for new messages does not work here (a pooler in transaction mode?): doing without"
                    )
                self._change(deaf=True)
                await asyncio.sleep(pause.next_delay())
                # It may have become clear meanwhile that there is no point in trying again.
                self._on_change()
                continue
            except (BackendError, *DRIVER_ERRORS) as exc:
                outage.failed(exc)
            await asyncio.sleep(backoff.next_delay())

    async def _listen(self, connection: Any, backoff: Backoff, outage: OutageLog) -> None:
        """Listen until the connection ends."""
        ended = False

        def on_end(_: object) -> None:
            nonlocal ended
            ended = True
            self._attention.set()

        connection.add_termination_listener(on_end)
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                direct = await is_direct(connection)
                await connection.add_listener(self.name, self._notified)
            if not direct:
                await self._echo()
            backoff.reset()
            outage.recovered()
            self._change(listening=True)
            # What was published before the LISTEN took effect rang nobody.
            self._wake()
            while not ended:
                self._attention.clear()
                try:
                    async with asyncio.timeout(_CHECK_INTERVAL):
                        await self._attention.wait()
                except TimeoutError:
                    await connection.fetchval("select 1", timeout=_CHECK_TIMEOUT)
                if self._suspected and not ended:
                    self._suspected = False
                    await self._echo()
        except TimeoutError:
            drop(connection)
            raise
        finally:
            self._change(listening=False)
            await self._unlisten(connection, on_end)

    async def _echo(self) -> None:
        """Returns when a notification was heard, of our own or another."""
        self._heard.clear()
        await self._notify()
        try:
            async with asyncio.timeout(_ECHO_TIMEOUT):
                await self._heard.wait()
        except TimeoutError:
            raise _NothingHeardError from None

    async def _unlisten(self, connection: Any, on_end: Callable[[object], None]) -> None:
        """Leave the connection as it was, if it still works."""
        try:
            connection.remove_termination_listener(on_end)
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await connection.remove_listener(self.name, self._notified)
        except DRIVER_ERRORS:
            drop(connection)

    def _notified(self, *_: object) -> None:
        self._heard.set()
        self._wake()

    def _change(self, *, listening: bool = False, deaf: bool = False) -> None:
        if listening:
            deaf = False
        elif not deaf:
            # Losing the connection is no news on whether it works.
            deaf = self._deaf
        if (listening, deaf) != (self._listening, self._deaf):
            self._listening, self._deaf = listening, deaf
            self._on_change()
