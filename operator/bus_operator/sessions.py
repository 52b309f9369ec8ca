"""The operator's open sessions in the databases of one BusDatabase: kept between two uses, and not for ever.

Opening a session costs more than most of what is done in it. How many there are at once is bounded by how many channels
are looked at at once, which the caller bounds; how many are kept is bounded here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from bus_operator.database import AdminConnection, close_session, open_session, translate
from bus_operator.errors import SpecError

KEPT = 4
"""Idle sessions that are kept in one database; each costs the server some megabytes."""

IDLE_SECONDS = 90.0
"""How long: longer than the default resync, so that one session lasts where nothing happens, and no more than one."""


class _Idle(NamedTuple):
    connection: asyncpg.Connection
    since: float


class Sessions:
    """Sessions of an administrator, one user at a time each.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._idle: dict[AdminConnection, list[_Idle]] = {}
        self._era = 0

    @asynccontextmanager
    async def session(self, admin: AdminConnection) -> AsyncIterator[asyncpg.Connection]:
        """A session for one use, with the same settings as one by `database.connect`.

        It is kept afterwards if it is as it was: after a failure it is closed, for what state it is in then is not
        worth finding out. A refused plan (SpecError) leaves it as it was.

        Raises:
            BusError: As `database.connect`.
        """
        era = self._era
        connection = self._take(admin) or await open_session(admin)
        kept = False
        try:
            with translate(str(admin.endpoint)):
                try:
                    yield connection
                    kept = True
                except SpecError:
                    kept = True
                    raise
        finally:
            if kept and era == self._era and not connection.is_closed() and not connection.is_in_transaction():
                await self._put_back(admin, connection)
            elif kept:
                await close_session(connection)
            else:
                # Politeness would wait for a server that may be silent.
                connection.terminate()

    async def keep_only(self, admins: Iterable[AdminConnection]) -> None:
        """Closes what was opened in another way, as before a credential changed, and what was idle for long."""
        wanted = set(admins)
        # First all, then their ends: while the server is waited for, others may drop what is there.
        expired = [
            idle
            for admin in tuple(self._idle)
            for idle in (self._expired(admin) if admin in wanted else self._idle.pop(admin))
        ]
        try:
            for idle in expired:
                await close_session(idle.connection)
        finally:
            for idle in expired:
                idle.connection.terminate()

    def drop(self) -> None:
        """Ends all that are idle, and has none come back of those in use: the server may be another one by now."""
        self._era += 1
        for idle in (idle for kept in self._idle.values() for idle in kept):
            idle.connection.terminate()
        self._idle.clear()

    def _take(self, admin: AdminConnection) -> asyncpg.Connection | None:
        """The one that was used last, so that those that nobody needs grow old."""
        kept = self._idle.get(admin, [])
        while kept:
            connection: asyncpg.Connection = kept.pop().connection
            if not connection.is_closed():
                return connection
        return None

    async def _put_back(self, admin: AdminConnection, connection: asyncpg.Connection) -> None:
        kept = self._idle.setdefault(admin, [])
        if len(kept) < KEPT:
            kept.append(_Idle(connection, self._clock()))
        else:
            await close_session(connection)

    def _expired(self, admin: AdminConnection) -> list[_Idle]:
        oldest = self._clock() - IDLE_SECONDS
        kept = self._idle[admin]
        expired = [idle for idle in kept if idle.since < oldest]
        self._idle[admin] = [idle for idle in kept if idle.since >= oldest]
        return expired
