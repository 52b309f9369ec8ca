"""Runs statements on the application's pool or on connections of our own, directly or through a pooler.

A pooler that hands the server's sessions around between transactions (PgBouncer's transaction mode) is noticed and
served: each statement then runs in a transaction of its own, which keeps it in one session. That takes four round trips
instead of one, and nothing can be listened to.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from bus_runtime._version import __version__
from bus_runtime.backoff import OutageLog
from bus_runtime.binding import Binding
from bus_runtime.driver import (
    DRIVER_ERRORS,
    DUPLICATE_PREPARED_STATEMENT,
    INSUFFICIENT_PRIVILEGE,
    NO_SUCH_PREPARED_STATEMENT,
    READ_ONLY,
    connect_error,
    drop,
    local_ip,
    notice_death,
    statement_error,
)
from bus_runtime.errors import BackendError, BindingError, ConnectionLostError
from bus_runtime.keeper import CONNECT_TIMEOUT, STATEMENT_TIMEOUT, Keeper, Kept
from bus_runtime.tls import context_of

logger = logging.getLogger(__name__)

#: BindingError: the binding may be in the middle of being replaced.
_NO_CONNECTION = (*DRIVER_ERRORS, BindingError)
_REPLACE_CONNECTIONS = (INSUFFICIENT_PRIVILEGE, READ_ONLY)
_SESSION_CHANGED = (NO_SUCH_PREPARED_STATEMENT, DUPLICATE_PREPARED_STATEMENT)

_MAX_REPETITIONS = 2

#: Seconds between looks whether the binding's files were replaced; a look costs two system calls in memory.
_LOOK_INTERVAL = 2.0


class Database:
    """Runs statements.

    Either on a pool of the caller, which is never closed here, or on connections of its own, opened when first
    needed, each with the binding as it is on disk at that moment. When its files are replaced, as by a rotation of
    the credentials, a connection with the new ones is opened first, and then the others are let go.

    Args:
        pool: The caller's pool; exclusive with `binding`.
        binding: Where to connect to.
    """

    def __init__(self, *, pool: asyncpg.Pool | None = None, binding: Binding | None = None) -> None:
        if (pool is None) == (binding is None):
            raise ValueError("Database needs a pool or a binding, and not both")
        self._pool = pool
        self._binding = binding
        self._keeper: Keeper | None = None
        #: The binding that all connections were opened with, or are being replaced by.
        self._in_use = binding
        self._look_timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._outage = OutageLog(logger, "connecting with the replaced binding")
        #: How often connections were replaced so far, and who wants to be told of it.
        self.renewals = 0
        self.on_renewed: set[Callable[[], None]] = set()
        # Our own statements have names that make it safe to find out on the way; a pool's do not.
        self._pooled: bool | None = None if binding is None else False

    @property
    def generation(self) -> str | None:
        """The generation of the credentials in use; None where that is not known."""
        return None if self._in_use is None else self._in_use.generation

    @property
    def pooled(self) -> bool:
        """Whether a pooler is known to stand between, so that nothing in a session outlasts a transaction."""
        return bool(self._pooled)

    @property
    def spares_a_connection(self) -> bool:
        """Whether one connection can be kept for LISTEN without starving the statements, and it may be of use."""
        if self._pool is not None:
            # If a pooler stands behind it, whether anything is heard depends on its mode.
            return int(self._pool.get_max_size()) > 1
        return not self.pooled

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement; its rows.

        Raises:
            BackendError: By what is known about the statement's effect; see `driver`.
        """
        for _ in range(_MAX_REPETITIONS):
            # Decided now: another statement may find out meanwhile.
            pinned = self.pooled
            try:
                return await self._run(sql, arguments)
            except BackendError as error:
                if pinned or not self._repeats(error):
                    raise
        return await self._run(sql, arguments)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for as long as the block lasts, besides those that run statements.

        Raises:
            UnavailableError: None could be had.
        """
        if self._pool is not None:
            connection = await self._acquire(self._pool)
            try:
                yield connection
            finally:
                await _release(self._pool, connection)
            return
        try:
            connection = await self._connect()
        except _NO_CONNECTION as exc:
            raise connect_error(exc, self._binding) from exc
        try:
            yield connection
        finally:
            with suppress(*DRIVER_ERRORS):
                await connection.close(timeout=CONNECT_TIMEOUT)

    async def local_ip(self) -> str | None:
        """The IP address by which the server knows this host; loopback's if both are the same. None: not known.

        Raises:
            UnavailableError: No connection could be had.
        """
        if self._pool is not None:
            async with self.connection() as connection:
                return local_ip(connection)
        keeper, kept = await self._take()
        keeper.release(kept)
        return local_ip(kept.connection)

    async def close(self) -> None:
        """Close our own connections; a later statement opens another one."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            # One that had not begun does not say that it has ended.
            self._renewing = None
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.close()

    async def _run(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        if self._pool is not None:
            return await self._run_in_pool(self._pool, sql, arguments)
        keeper, kept = await self._take()
        try:
            if self._pooled:
                rows = await _pinned(kept.connection, sql, arguments)
            else:
                rows = await kept.fetch(sql, arguments)
        except DRIVER_ERRORS as exc:
            error = statement_error(exc)
            lost = isinstance(error, ConnectionLostError)
            if lost or error.sqlstate in _REPLACE_CONNECTIONS or isinstance(exc, asyncpg.InvalidCachedStatementError):
                # The login may have been rotated or the primary moved, and a connection seldom breaks alone.
                keeper.expire()
            keeper.discard(kept) if lost else keeper.release(kept)
            raise error from exc
        except BaseException:
            # Cancelled in the middle: what the server still answers is nobody's.
            keeper.discard(kept)
            raise
        keeper.release(kept)
        return rows

    async def _run_in_pool(self, pool: asyncpg.Pool, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        connection = await self._acquire(pool)
        try:
            if not self._pooled:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments, timeout=STATEMENT_TIMEOUT)
                return rows
            async with asyncio.timeout(STATEMENT_TIMEOUT):
                return await _pinned(connection, sql, arguments)
        except DRIVER_ERRORS as exc:
            error = statement_error(exc)
            if isinstance(error, ConnectionLostError):
                # It may only have timed out: never use it again.
                drop(connection)
            raise error from exc
        finally:
            await _release(pool, connection)

    def _repeats(self, error: BackendError) -> bool:
        """Whether to repeat at once what the server refused before it executed anything."""
        if isinstance(error.__cause__, asyncpg.InvalidCachedStatementError):
            return self._pool is None
        if error.sqlstate not in _SESSION_CHANGED:
            return False
        self._note_pooler()
        return True

    def _note_pooler(self) -> None:
        if not self._pooled:
            logger.info(
                "a pooler hands the server's sessions around between transactions: each statement gets a transaction "
                "of its own, and new messages are not listened for"
            )
        self._pooled = True

    async def _take(self) -> tuple[Keeper, Kept]:
        if self._keeper is None:
            self._keeper = Keeper(self._connect)
            self._look_later()
        keeper = self._keeper
        try:
            return keeper, await keeper.acquire()
        except _NO_CONNECTION as exc:
            raise connect_error(exc, self._binding) from exc

    async def _connect(self) -> asyncpg.Connection:
        if self._binding is None:
            raise RuntimeError("only a database with a binding connects by itself")
        binding = self._binding = await asyncio.to_thread(self._binding.reload)
        return await _open(binding)

    def _look_later(self) -> None:
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_INTERVAL, self._look)

    def _look(self) -> None:
        self._look_later()
        if self._renewing is None and self._in_use is not None and not self._in_use.is_current:
            self._renewing = asyncio.create_task(self._renew(self._in_use), name="bus_renew")

    async def _renew(self, former: Binding) -> None:
        """Go over to the binding as it is now; if that does not work, the next look tries again."""
        binding = former
        try:
            binding = await asyncio.to_thread(former.reload)
            if (binding.uri, binding.generation) != (former.uri, former.generation) and self._keeper is not None:
                await self._keeper.renew(lambda: _open(binding))
                self.renewals += 1
                logger.info(
                    "binding %r: going on with generation %s of the credentials (before: %s)",
                    binding.name,
                    binding.generation,
                    former.generation,
                )
            self._in_use = binding
            self._outage.recovered()
            for tell in tuple(self.on_renewed):
                tell()
        except _NO_CONNECTION as exc:
            self._outage.failed(connect_error(exc, binding))
        finally:
            self._renewing = None

    async def _acquire(self, pool: asyncpg.Pool) -> Any:
        try:
            connection = await pool.acquire(timeout=CONNECT_TIMEOUT)
        except DRIVER_ERRORS as exc:
            raise connect_error(exc) from exc
        if self._pooled is None:
            try:
                async with asyncio.timeout(STATEMENT_TIMEOUT):
                    direct = await is_direct(connection)
            except BaseException as exc:
                drop(connection)
                await _release(pool, connection)
                if isinstance(exc, DRIVER_ERRORS):
                    raise connect_error(exc) from exc
                raise
            self._pooled = False
            if not direct:
                # Which mode it is in does not show, and the pool's statements have names that others use as well.
                self._note_pooler()
        return connection


_NO_AUTHORITY = (
    "; or nobody says which authority the server's certificate must be from: spec.caSecretRef of the BusDatabase does,"
    " or PGSSLROOTCERT"
)


async def _open(binding: Binding) -> asyncpg.Connection:
    # The driver alone would not heed a port in the query of a URI that has a host before.
    place = {} if binding.server is None else dict(zip(("host", "port"), binding.server, strict=True))
    try:
        connection = await asyncpg.connect(
            binding.uri,
            **place,
            ssl=context_of(binding),
            timeout=CONNECT_TIMEOUT,
            # Every role of the server can see this name in pg_stat_activity: it tells nothing about the channel.
            server_settings={"application_name": f"bus_runtime/{__version__} g{binding.generation}"},
        )
    except ssl.SSLCertVerificationError:
        # A ValueError as well.
        raise
    except ValueError:
        unverifiable = not binding.authority and "sslmode=verify-" in binding.uri
        # Without what the driver says: it may quote a part of the password.
        raise BindingError(
            f"the uri of binding {binding.name!r} cannot be used: its host or port is none, or a character such as"
            f" / : @ # in the password is not percent-encoded{_NO_AUTHORITY if unverifiable else ''}"
        ) from None
    notice_death(connection)
    return connection


async def is_direct(connection: Any) -> bool:
    """Whether nothing stands between: a pooler does not pass on the server's process id."""
    rows = await _pinned(connection, "select pg_backend_pid()", ())
    return bool(rows[0][0] == connection.get_server_pid())


async def _pinned(connection: Any, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
    """Run a statement in a transaction of its own: from its beginning to its end a pooler keeps to one session.

    It has no name there, so that it neither meets nor leaves anything in that session.
    """
    async with connection.transaction():
        statement = await connection.prepare(sql, name="")
        rows: list[asyncpg.Record] = await statement.fetch(*arguments)
        return rows


async def _release(pool: asyncpg.Pool, connection: Any) -> None:
    """Give the connection back. One that cannot be reset is dropped by the pool, which is all that matters."""
    try:
        await pool.release(connection, timeout=CONNECT_TIMEOUT)
    except DRIVER_ERRORS:
        drop(connection)
