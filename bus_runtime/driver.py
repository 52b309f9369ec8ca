"""The boundary where asyncpg's errors become ours.

Errors are told apart by SQLSTATE (PostgreSQL documentation, appendix A) and by when they happen:
before a statement could be sent it certainly had no effect; an error that the server reports for it
means that it was rolled back; only a connection that breaks in between leaves the outcome open.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import asyncpg

from bus_runtime.errors import (
    AccessDeniedError,
    AuthenticationError,
    BackendError,
    ConnectionLostError,
    PeerRefusedError,
    RejectedError,
    TransientError,
    UnavailableError,
)

INSUFFICIENT_PRIVILEGE = "42501"
#: The bus functions' own: a later process joined as this durable peer.
PLACE_TAKEN = "BUS01"
READ_ONLY = "25006"
_AUTHENTICATION_CLASS = "28"

#: The statement's preparation met another session's, or is in another session: a pooler hands the server's sessions
#: around between transactions. Said before anything is executed.
NO_SUCH_PREPARED_STATEMENT = "26000"
DUPLICATE_PREPARED_STATEMENT = "42P05"

#: What the server's answer to a statement means to us, by the beginning of its SQLSTATE; the first match counts.
_STATEMENT_ERRORS: tuple[tuple[str, type[BackendError]], ...] = (
    (INSUFFICIENT_PRIVILEGE, AccessDeniedError),
    (PLACE_TAKEN, PeerRefusedError),
    ("22", RejectedError),  # data exception
    ("54", RejectedError),  # program limit exceeded
    ("40003", ConnectionLostError),  # statement completion unknown
    ("40", TransientError),  # serialization failure, deadlock
    ("53", TransientError),  # out of memory, disk, connections
    ("55P03", TransientError),  # lock not available
    ("57014", TransientError),  # statement cancelled or timed out
    (READ_ONLY, TransientError),  # a failover under way
    (NO_SUCH_PREPARED_STATEMENT, TransientError),
    (DUPLICATE_PREPARED_STATEMENT, TransientError),
    ("57P", ConnectionLostError),  # the server ends the session, possibly after the commit
    ("08", ConnectionLostError),  # connection exception, also the driver's own
    ("", BackendError),
)

#: What a driver call raises when the server or the connection is at fault.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


#: Without a sign of life from the other machine, a connection is broken after seven seconds: 3 + 2 x 2 if nothing is
#: under way, else so many milliseconds after the oldest that was not confirmed.
_DEATH = (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 7000))


def drop(connection: Any) -> None:
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
    if state is not None and (state.startswith(_AUTHENTICATION_CLASS) or state == INSUFFICIENT_PRIVILEGE):
        return AuthenticationError(f"the server does not accept the login: {exc}", sqlstate=state)
    return UnavailableError(f"no connection: {exc or type(exc).__name__}", sqlstate=state)


def notice_death(connection: Any) -> None:
    """Have the system break a connection whose other end's machine is gone, or what led to it.

    Without, a statement on it waits for as long as a statement may take; and one that is slow only is not concerned,
    since the server's machine still confirms what it receives: see tcp(7).
    """
    # asyncpg does not show its socket otherwise.
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None or found.family == socket.AF_UNIX:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has them all, nor this resolution: it then takes longer.
    for name, value in _DEATH:
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def local_ip(connection: Any) -> str | None:
    """The IP address of this end of a connection; loopback's where both ends are on this host without one.

    None when it cannot be told.
    """
    # As above.
    transport = getattr(connection, "_transport", None)
    name = None if transport is None else transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return str(name[0])
    return None if name is None else "127.0.0.1"
