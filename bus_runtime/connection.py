"""The one place that talks to asyncpg, and the boundary where its errors become ours.

Errors are told apart by SQLSTATE (PostgreSQL documentation, appendix A) and by when they happen:
before a statement could be sent it certainly had no effect; an error that the server reports for it
means that it was rolled back; only a connection that breaks in between leaves the outcome open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from bus_runtime._version import __version__
from bus_runtime.binding import Binding
from bus_runtime.errors import (
    AccessDeniedError,
    AuthenticationError,
    BackendError,
    BindingError,
    ConnectionLostError,
    RejectedError,
    TransientError,
    UnavailableError,
)

#: Seconds to establish a connection, and for a statement to return. The statements here take milliseconds; the
#: logins' own statement_timeout is 30 s, so a longer silence means that the connection is dead.
_CONNECT_TIMEOUT = 10.0
_STATEMENT_TIMEOUT = 40.0

#: One for LISTEN, one for everything else, one more when reads and publishes overlap.
_MAX_CONNECTIONS = 3

_INSUFFICIENT_PRIVILEGE = "42501"
_AUTHENTICATION_CLASS = "28"
_READ_ONLY = "25006"

#: What the server's answer to a statement means to us, by the beginning of its SQLSTATE; the first match counts.
_STATEMENT_ERRORS: tuple[tuple[str, type[BackendError]], ...] = (
    (_INSUFFICIENT_PRIVILEGE, AccessDeniedError),
    ("22", RejectedError),  # data exception
    ("54", RejectedError),  # program limit exceeded
    ("40003", ConnectionLostError),  # statement completion unknown
    ("40", TransientError),  # serialization failure, deadlock
    ("53", TransientError),  # out of memory, disk, connections
    ("55P03", TransientError),  # lock not available
    ("57014", TransientError),  # statement cancelled or timed out
    (_READ_ONLY, TransientError),  # a failover under way
    ("26000", TransientError),  # prepared statement gone: a pooler changed the session
    ("57P", ConnectionLostError),  # the server ends the session, possibly after the commit
    ("08", ConnectionLostError),  # connection exception, also the driver's own
    ("", BackendError),
)

#: What a driver call raises when the server or the connection is at fault.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


def drop(connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Close a connection at once. A pool detaches one that broke, and any call on it then raises."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def statement_error(exc: BaseException) -> BackendError:
    """Our error for what a statement raised after it may have been sent."""
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or ""
        kind = next(kind for prefix, kind in _STATEMENT_ERRORS if state.startswith(prefix))
        return kind(str(exc), sqlstate=state or None)
    if isinstance(exc, asyncpg.InterfaceError):
        # asyncpg's own refusal to send on a connection that it knows to be closed.
        return UnavailableError(f"no connection: {exc}")
    return ConnectionLostError(f"connection lost: {exc or type(exc).__name__}")


def connect_error(exc: BaseException) -> UnavailableError:
    """Our error for what establishing a connection raised."""
    state = exc.sqlstate if isinstance(exc, asyncpg.PostgresError) else None
    if state is not None and (state.startswith(_AUTHENTICATION_CLASS) or state == _INSUFFICIENT_PRIVILEGE):
        return AuthenticationError(f"the server does not accept the login: {exc}", sqlstate=state)
    return UnavailableError(f"no connection: {exc or type(exc).__name__}", sqlstate=state)


class Database:
    """Runs statements on pooled connections.

    Either on a pool of the caller, which is never closed here, or on one of its own, opened when first
    needed, whose every new connection uses the binding as it is on disk at that moment.

    Args:
        pool: The caller's pool; exclusive with `binding`.
        binding: Where to connect to.
    """

    def __init__(self, *, pool: asyncpg.Pool | None = None, binding: Binding | None = None) -> None:
        if (pool is None) == (binding is None):
            raise ValueError("Database needs a pool or a binding, and not both")
        self._pool = pool
        self._binding = binding

    @property
    def spares_a_connection(self) -> bool:
        """Whether one connection can be kept for LISTEN without starving the statements."""
        return self._binding is not None or (self._pool is not None and self._pool.get_max_size() > 1)

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement; its rows.

        Raises:
            BackendError: By what is known about the statement's effect; see the module's documentation.
        """
        async with self.connection() as connection:
            try:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments, timeout=_STATEMENT_TIMEOUT)
                return rows
            except (*DRIVER_ERRORS, asyncpg.InternalClientError) as exc:
                error = statement_error(exc)
                lost = isinstance(error, ConnectionLostError)
                if lost:
                    # It may only have timed out: never use it again.
                    drop(connection)
                if lost or error.sqlstate in (_INSUFFICIENT_PRIVILEGE, _READ_ONLY):
                    await self._forget_connections()
                raise error from exc

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """A connection for as long as the block lasts.

        Raises:
            UnavailableError: None could be had.
        """
        try:
            pool = await self._open()
            connection = await pool.acquire(timeout=_CONNECT_TIMEOUT)
        # BindingError: the binding may be in the middle of being replaced.
        except (*DRIVER_ERRORS, BindingError) as exc:
            raise connect_error(exc) from exc
        try:
            yield connection
        finally:
            await _release(pool, connection)

    async def close(self) -> None:
        """Close the pool if it is our own; a later statement opens another one."""
        if self._binding is None or self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await pool.close()
        except DRIVER_ERRORS:
            pool.terminate()

    async def _open(self) -> asyncpg.Pool:
        if self._pool is None:
            # Assigned before it is awaited: initialising is asyncpg's to serialise.
            self._pool = asyncpg.create_pool(
                min_size=0,
                max_size=_MAX_CONNECTIONS,
                connect=self._connect,
                # No statement here leaves anything behind in the session, so nothing needs the round trip.
                reset=_leave_as_is,
            )
        if self._binding is not None:
            await self._pool
        return self._pool

    async def _connect(self, *_: Any, **options: Any) -> asyncpg.Connection:
        if self._binding is None:
            raise RuntimeError("only a pool of our own connects here")
        binding = self._binding = await asyncio.to_thread(self._binding.reload)
        return await asyncpg.connect(
            binding.uri,
            timeout=_CONNECT_TIMEOUT,
            # Every role of the server can see this name in pg_stat_activity: it tells nothing about the channel.
            server_settings={"application_name": f"bus_runtime/{__version__}"},
            **options,
        )

    async def _forget_connections(self) -> None:
        """Replace our connections when next used: the login may have been rotated or the primary moved, and a
        connection seldom breaks alone."""
        if self._binding is not None and self._pool is not None:
            await self._pool.expire_connections()


async def _leave_as_is(_: asyncpg.Connection) -> None:
    return None


async def _release(pool: asyncpg.Pool, connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Give the connection back. One that cannot be reset is dropped by the pool, which is all that matters."""
    try:
        await pool.release(connection, timeout=_CONNECT_TIMEOUT)
    except DRIVER_ERRORS:
        drop(connection)
