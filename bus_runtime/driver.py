"""The boundary where asyncpg's errors become ours.

Errors are told apart by SQLSTATE (PostgreSQL documentation, appendix A) and by when they happen:
before a statement could be sent it certainly had no effect; an error that the server reports for it
means that it was rolled back; only a connection that breaks in between leaves the outcome open.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from bus_runtime.errors import (
    CONNECTIONS_BUSY,
    CONNECTIONS_EXHAUSTED,
    DATABASE_READ_ONLY,
    POOLER_IN_TRANSACTION_MODE,
    SERVER_CERTIFICATE_REFUSED,
    AccessDeniedError,
    AuthenticationError,
    BackendError,
    BusError,
    ConnectionLostError,
    PeerRefusedError,
    RejectedError,
    TransientError,
    UnavailableError,
    reason_of,
)

if TYPE_CHECKING:
    from bus_runtime.binding import Binding

INSUFFICIENT_PRIVILEGE = "42501"
#: The bus functions' own: a later process joined as this durable peer.
PLACE_TAKEN = "BUS01"
READ_ONLY = "25006"
LIMIT_EXCEEDED = "54000"
_AUTHENTICATION_CLASS = "28"
_TOO_MANY_CONNECTIONS = "53300"
_CANNOT_CONNECT_NOW = "57P03"

#: The statement's preparation met another session's, or is in another session: a pooler hands the server's sessions
#: around between transactions. Said before anything is executed.
NO_SUCH_PREPARED_STATEMENT = "26000"
DUPLICATE_PREPARED_STATEMENT = "42P05"

#: What the server's answer to a statement means to us, by the beginning of its SQLSTATE; the first match counts.
#: With the code, where it is not that of the class.
_STATEMENT_ERRORS: tuple[tuple[str, type[BackendError], str | None], ...] = (
    (INSUFFICIENT_PRIVILEGE, AccessDeniedError, None),
    (PLACE_TAKEN, PeerRefusedError, None),
    ("22", RejectedError, None),  # data exception
    ("54", RejectedError, None),  # program limit exceeded
    ("40003", ConnectionLostError, None),  # statement completion unknown
    ("40", TransientError, None),  # serialization failure, deadlock
    ("53", TransientError, None),  # out of memory, disk, connections
    ("55P03", TransientError, None),  # lock not available
    ("57014", TransientError, None),  # statement cancelled or timed out
    (READ_ONLY, TransientError, DATABASE_READ_ONLY),  # a failover under way
    (NO_SUCH_PREPARED_STATEMENT, TransientError, POOLER_IN_TRANSACTION_MODE),
    (DUPLICATE_PREPARED_STATEMENT, TransientError, POOLER_IN_TRANSACTION_MODE),
    ("57P", ConnectionLostError, None),  # the server ends the session, possibly after the commit
    ("08", ConnectionLostError, None),  # connection exception, also the driver's own
    ("", BackendError, None),
)

#: What to do about them, where the server's words do not say it.
_REMEDIES = {
    AccessDeniedError.code: "the channel is gone, it is another binding's, or this peer lost its place",
    PeerRefusedError.code: "stop one of the two processes, or give each a peer name of its own",
    DATABASE_READ_ONLY: "a failover is under way, or the address is a standby's: it must be the primary's",
    POOLER_IN_TRANSACTION_MODE: "where that lasts, use the pooler's session mode, or the server itself",
}

_PASSES = ". It is being started or stopped: try again in a moment; its log says what it waits for"

#: What a driver call raises when the server or the connection is at fault. InternalClientError: the server has ended a
#: session that was idle, and the connection is not closed yet.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


#: Without a sign of life from the other machine, a connection is broken after five seconds: 3 + 2 x 1 if nothing is
#: under way, else so many milliseconds after the oldest that was not confirmed. Half of the ten in which a bus has to
#: deliver again: connecting anew may meet another fault.
_DEATH = (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 5000))


def drop(connection: Any) -> None:
    """Close a connection at once. A pool detaches one that broke, and any call on it then raises."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def statement_error(exc: BaseException) -> BackendError:
    """Our error for what a statement raised after it may have been sent."""
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or ""
        kind, code = next((kind, code) for prefix, kind, code in _STATEMENT_ERRORS if state.startswith(prefix))
        remedy = _REMEDIES.get(code or kind.code)
        return kind(f"{_words(exc)}; {remedy}" if remedy else _words(exc), sqlstate=state or None, code=code)
    if isinstance(exc, asyncpg.InterfaceError):
        # asyncpg's own refusal to send on a connection that it knows to be closed.
        return UnavailableError(f"the connection is closed: {exc}")
    return ConnectionLostError(f"the connection was lost, and nobody knows whether it took effect: {_words(exc)}")


def connect_error(exc: BaseException, binding: Binding | None = None) -> UnavailableError:
    """Our error for what establishing a connection raised.

    Args:
        exc: What was raised.
        binding: What the connection was to be opened with, if not by a pool.
    """
    if isinstance(exc, BusError):
        return UnavailableError(exc.message, code=exc.code)
    where = "the pool's server" if binding is None else binding.address
    if not isinstance(exc, asyncpg.PostgresError):
        return _not_reached(exc, where)
    state = exc.sqlstate or ""
    if state.startswith(_AUTHENTICATION_CLASS) or state == INSUFFICIENT_PRIVILEGE:
        which = "pool" if binding is None else "binding"
        remedy = "" if binding is None else f" kubectl describe buschannel {binding.name} says whether it is withdrawn."
        return AuthenticationError(f"{where} refuses the {which}'s credential: {_words(exc)}.{remedy}", sqlstate=state)
    if state == _TOO_MANY_CONNECTIONS:
        return UnavailableError(
            f"{where} has no connection left: {_words(exc)}. Have fewer, or raise limits.maxConnections of the"
            " BusChannel or max_connections of the server",
            sqlstate=state,
            code=CONNECTIONS_EXHAUSTED,
        )
    passes = _PASSES if state == _CANNOT_CONNECT_NOW else ""
    return UnavailableError(f"{where}: {_words(exc)}{passes}", sqlstate=state)


def _not_reached(exc: BaseException, where: str) -> UnavailableError:
    if isinstance(exc, AllBusyError):
        return UnavailableError(
            f"all connections to {where} are busy with statements that take long", code=CONNECTIONS_BUSY
        )
    if isinstance(exc, ssl.SSLCertVerificationError):
        return UnavailableError(
            f"{where} shows a certificate that is not trusted: {exc.verify_message.rstrip('.')}. Compare its issuer"
            " with the authority in ca.crt of the binding, or in PGSSLROOTCERT, and the address with its names",
            code=SERVER_CERTIFICATE_REFUSED,
        )
    return UnavailableError(
        f"{where} cannot be reached: {str(exc) or 'it does not answer'}. Is the server up, and does a NetworkPolicy"
        " let it be reached?"
    )


@contextmanager
def limit_called(code: str) -> Iterator[None]:
    """Gives a limit that a statement exceeded its code: the server has one SQLSTATE for them all."""
    try:
        yield
    except RejectedError as error:
        if error.sqlstate == LIMIT_EXCEEDED:
            error.code = code
        raise


class AllBusyError(TimeoutError):
    """None of the connections there are became free in time, and no further one could be had."""


def _words(exc: BaseException) -> str:
    """What the server or the driver says, detail and hint included, on one line."""
    return " ".join(reason_of(exc).split()).rstrip(".")


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
