"""Connections of our own: one as a rule, a few while statements have to wait for each other.

asyncpg's pool serves any application. This one knows its only user: statements that take milliseconds and leave nothing
behind in the session. So handing out a connection costs no task, no timer and no round trip.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from bus_runtime.driver import DRIVER_ERRORS, AllBusyError, drop
from bus_runtime.errors import BindingError
from bus_runtime.opening import open_in_time

logger = logging.getLogger(__name__)

#: Seconds to wait for a connection, and for a statement to return. The statements here take milliseconds; the logins'
#: own statement_timeout is 30 s, so a longer silence means that the connection is dead.
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 40.0

#: Seconds to wait for the server when a connection that is not used is closed.
CLOSE_TIMEOUT = 2.0

_MAX_CONNECTIONS = 3

#: Another connection is opened when a statement has waited so many seconds for one, or when waiting adds up to a good
#: part of the time: `_DEBT_LIMIT` seconds beyond `_DEBT_ALLOWED` of the time that passes.
_PATIENCE = 0.005
_DEBT_LIMIT = 0.03
_DEBT_ALLOWED = 0.1

#: Seconds that statements take on average, beyond which the server counts as overloaded; and how much the last one
#: weighs.
_OVERLOAD = 0.05
_SMOOTHING = 0.2

#: Seconds after which a connection that was not needed is closed, unless it is the last one; and between looks at that
#: and at statements that take too long.
_IDLE_TIMEOUT = 30.0
_WATCH_INTERVAL = 5.0


@dataclass(eq=False, slots=True)
class Kept:
    """One of our connections, and the statements prepared on it."""

    connection: asyncpg.Connection
    generation: int
    since: float = 0.0
    _statements: dict[str, Any] = field(default_factory=dict)

    async def fetch(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        """Run a statement that is prepared once."""
        statement = self._statements.get(sql)
        if statement is None:
            statement = self._statements[sql] = await self.connection.prepare(sql, name=statement_name(sql))
        rows: list[asyncpg.Record] = await statement.fetch(*arguments)
        return rows


def statement_name(sql: str) -> str:
    """A name that stands for this text alone.

    A pooler may run us in a session in which others have prepared their statements: whatever has our name there must
    be our statement. (Numbered names, which asyncpg uses, would run somebody else's.)
    """
    return f"bus_{hashlib.sha256(sql.encode()).hexdigest()[:32]}"


class Keeper:
    """Keeps connections.

    Args:
        connect: Opens one.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._idle: list[Kept] = []
        self._busy: set[Kept] = set()
        self._opening = 0
        self._waiting: deque[tuple[float, asyncio.Future[Kept | None]]] = deque()
        self._generation = 0
        self._watch: asyncio.TimerHandle | None = None
        self._growing: asyncio.Task[None] | None = None
        self._typical = 0.0
        self._debt = 0.0
        self._debt_at = self._loop.time()
        self._closed = False
        self._quiet = asyncio.Event()

    @property
    def size(self) -> int:
        """How many connections are open or being opened."""
        return len(self._idle) + len(self._busy) + self._opening

    async def acquire(self) -> Kept:
        """A connection, until `release` or `discard`.

        Raises:
            BindingError, asyncpg.PostgresError, OSError: None could be opened.
            TimeoutError: None could be had in time.
        """
        while self._idle:
            # The one used last: its caches are warm, and those below it become dispensable.
            kept = self._idle.pop()
            if not kept.connection.is_closed():
                return self._lend(kept)
        while self.size:
            if (handed := await self._wait()) is not None:
                return handed
        return await self._open()

    def release(self, kept: Kept) -> None:
        """Give a connection back, to whoever waits longest."""
        self._busy.discard(kept)
        if self._closed or kept.generation != self._generation or kept.connection.is_closed():
            self._forget(kept)
            return
        waiter = self._next_waiter()
        if waiter is not None:
            self._measure(kept)
            waiter.set_result(self._lend(kept))
            return
        self._measure(kept)
        self._idle.append(kept)

    def discard(self, kept: Kept) -> None:
        """Give back one that must not be used again."""
        self._busy.discard(kept)
        self._forget(kept)

    def expire(self) -> None:
        """Replace all connections, each when it is next used."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for kept in idle:
            drop(kept.connection)

    async def renew(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        """Open a connection in another way, then let go of those there are, each when its statement is over.

        Statements go on meanwhile, and none of them fails or waits for it.

        Raises:
            BindingError, asyncpg.PostgresError, OSError: None could be opened. Those there are stay.
        """
        kept = await self._open(connect)
        self._generation = kept.generation = self._generation + 1
        idle, self._idle = self._idle, []
        self.release(kept)
        for former in idle:
            drop(former.connection)

    async def close(self) -> None:
        """Close all connections, those in use when they are given back, or after a while by force."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._growing is not None:
            self._growing.cancel()
            await asyncio.gather(self._growing, return_exceptions=True)
        idle, self._idle = self._idle, []
        try:
            for kept in idle:
                with suppress(*DRIVER_ERRORS):
                    await kept.connection.close(timeout=CLOSE_TIMEOUT)
            if self._busy:
                self._quiet.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        await self._quiet.wait()
        finally:
            for kept in [*idle, *self._busy]:
                drop(kept.connection)

    def _lend(self, kept: Kept) -> Kept:
        kept.since = self._loop.time()
        self._busy.add(kept)
        if self._watch is None and not self._closed:
            self._watch = self._loop.call_later(_WATCH_INTERVAL, self._look)
        return kept

    async def _open(self, connect: Callable[[], Awaitable[asyncpg.Connection]] | None = None) -> Kept:
        self._opening += 1
        generation = self._generation
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await open_in_time(connect or self._connect)
        except BaseException:
            self._opening -= 1
            self._invite()
            raise
        self._opening -= 1
        return self._lend(Kept(connection, generation))

    async def _wait(self) -> Kept | None:
        """A connection that somebody gives back; None when there is one less, so that another may be opened."""
        began = self._loop.time()
        waiter: asyncio.Future[Kept | None] = self._loop.create_future()
        self._waiting.append((began, waiter))
        patience = self._loop.call_later(0 if self._indebted(began) else _PATIENCE, self._grow)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                kept = waiter.result()
                self._invite() if kept is None else self.release(kept)
            raise
        finally:
            patience.cancel()
            self._debt += self._loop.time() - began

    def _next_waiter(self) -> asyncio.Future[Kept | None] | None:
        while self._waiting:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _invite(self) -> None:
        """Let the next in the queue try for itself, and get an error of its own."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(None)

    def _forget(self, kept: Kept) -> None:
        drop(kept.connection)
        self._invite()
        if not self._busy:
            self._quiet.set()

    def _indebted(self, now: float) -> bool:
        self._debt = max(0.0, self._debt - (now - self._debt_at) * _DEBT_ALLOWED)
        self._debt_at = now
        return self._debt > _DEBT_LIMIT

    def _measure(self, kept: Kept) -> None:
        now = self._loop.time()
        self._typical += (now - kept.since - self._typical) * _SMOOTHING
        kept.since = now

    def _grow(self) -> None:
        # Where statements take long, the server is busy, and another connection would make it busier.
        if self._typical > _OVERLOAD:
            return
        if self._growing is None and self.size < _MAX_CONNECTIONS and not self._closed:
            self._growing = self._loop.create_task(self._open_another(), name="bus_connect")

    async def _open_another(self) -> None:
        try:
            kept = await self._open()
        except (*DRIVER_ERRORS, BindingError) as exc:
            # Nothing depends on it: what waits is served by the connection there is. It is a sign to leave the
            # server alone for a while.
            logger.debug("no further connection: %s", exc)
            await asyncio.sleep(_WATCH_INTERVAL)
        else:
            self._debt = 0.0
            self.release(kept)
        finally:
            self._growing = None

    def _look(self) -> None:
        """From time to time while there is something to look at: end what is stuck, close what is not needed."""
        now = self._loop.time()
        for kept in list(self._busy):
            if now - kept.since > STATEMENT_TIMEOUT:
                # Whoever waits for its answer is told that the connection is lost.
                drop(kept.connection)
        while self._waiting and now - self._waiting[0][0] > CONNECT_TIMEOUT:
            waiter = self._waiting.popleft()[1]
            if not waiter.done():
                waiter.set_exception(AllBusyError("all connections are busy"))
        while self._idle and self.size > 1 and now - self._idle[0].since > _IDLE_TIMEOUT:
            drop(self._idle.pop(0).connection)
        again = self._busy or self.size > 1
        self._watch = self._loop.call_later(_WATCH_INTERVAL, self._look) if again else None
