"""Connections of the operator to PostgreSQL, and the one place where driver errors become ours."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode, urlsplit

import asyncpg

from bus_operator import sql, tls
from bus_operator.errors import (
    AuthenticationFailedError,
    BusError,
    ConnectionFailedError,
    InsufficientPrivilegeError,
    SecretError,
    TransientError,
)

if TYPE_CHECKING:  # importing the models takes longer than most commands of busctl
    from bus_operator.model import ClientEndpoint

APPLICATION_NAME = "pgmq-bus-operator"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
IDLE_IN_TRANSACTION = 5
"""Seconds after which the server ends a transaction in which nothing happens.

Shorter than the operator's Lease: what a leader that is frozen, or whose node is lost, had begun is rolled back, and
its locks are free, before another leads. Where that timeout does not apply, `end_silent_sessions` does the same.
"""
CONNECT_TIMEOUT = 10.0
"""Seconds until an address that does not answer counts as unreachable."""

READER_TIMEOUT = 4.0
"""The same where somebody waits for it at a terminal."""

LONGEST_WORDS = 2000
"""Characters of what a server says of a failure that are told."""

COMMAND_TIMEOUT = 25.0
"""Seconds until a session in which a statement is not answered counts as lost; locks are waited for 10 s at most."""


@dataclass(frozen=True)
class Endpoint:
    """Where a database is: everything of a connection URI but the credential."""

    host: str
    port: int
    database: str
    ssl_mode: str
    authority: str | None = field(repr=False, default=None)
    """Certificates in PEM by which the server's is judged; None: those that libpq's variables name."""

    @property
    def tls(self) -> str | ssl.SSLContext:
        """What asyncpg takes as `ssl`."""
        return tls.for_driver(self.ssl_mode, self.authority)

    def for_clients(self, override: "ClientEndpoint") -> "Endpoint":
        """The address that pods get."""
        return replace(
            self,
            host=override.host or self.host,
            port=override.port or self.port,
            ssl_mode=override.ssl_mode or self.ssl_mode,
        )

    def uri(self, username: str, password: str) -> str:
        """A libpq URI. A host that is a directory (a Unix socket) goes into the query, as libpq wants it."""
        query = {"sslmode": self.ssl_mode}
        if self.host.startswith("/"):
            query = {"host": self.host, "port": str(self.port)} | query
            authority = ""
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            authority = f"{host}:{self.port}"
        return (
            f"postgresql://{quote(username, safe='')}:{quote(password, safe='')}@{authority}"
            f"/{quote(self.database, safe='')}?{urlencode(query, quote_via=quote)}"
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True)
class AdminConnection:
    """An administrator's way into a database. The password is kept out of `repr`."""

    endpoint: Endpoint
    username: str
    password: str | None = field(repr=False, default=None)

    def for_database(self, name: str) -> "AdminConnection":
        """The same credential's way into another database of the server."""
        return replace(self, endpoint=replace(self.endpoint, database=name))

    @classmethod
    def from_uri(cls, uri: str, authority: str | None = None) -> "AdminConnection":
        """Parses `postgresql://user:password@host:port/dbname?sslmode=...`. Raises SecretError without echoing it.

        With an authority the server is verified unless the URI says otherwise.
        """
        try:
            parts = urlsplit(uri.strip())
            query = _query(parts.query)
            port = parts.port or int(query.get("port", 5432))
            if not 0 < port < 65536:
                raise ValueError(port)
        except ValueError:
            # Not chained: what is taken for a port is often the end of a password with an unescaped character.
            raise SecretError(
                "the connection URI cannot be parsed: its port is not a number, or a special character of the user or"
                " the password is not written as %XX"
            ) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise SecretError("the connection URI must look like postgresql://user:password@host:5432/dbname")
        host = unquote(_hostname(parts.netloc)) or query.get("host", "")
        database = unquote(parts.path.lstrip("/")) or query.get("dbname", "")
        username = unquote(parts.username or "") or query.get("user", "")
        for name, value in (("a host", host), ("a database name", database), ("a user", username)):
            if not value:
                raise SecretError(
                    f"the connection URI names no {name.split(' ', 1)[1]}: write postgresql://user:password@host:5432/dbname"
                )
        return cls(
            endpoint=Endpoint(_host(host), port, database, _ssl_mode(query, authority), authority),
            username=username,
            password=unquote(parts.password) if parts.password else query.get("password"),
        )

    @classmethod
    def from_secret(cls, data: Mapping[str, str], key: str, authority: str | None = None) -> "AdminConnection":
        """Reads a Secret: a URI under `key`, else the keys host, port, dbname, username, password."""
        if key in data:
            return cls.from_uri(data[key], authority)
        missing = [name for name in ("host", "dbname", "username", "password") if not data.get(name)]
        if missing:
            raise SecretError(
                f"it has neither the key {key!r} with a connection URI nor the basic-auth keys;"
                f" missing: {', '.join(missing)}"
            )
        port = data.get("port") or "5432"
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise SecretError("its key 'port' is not a port number")
        return cls(
            endpoint=Endpoint(_host(data["host"]), int(port), data["dbname"], _ssl_mode(data, authority), authority),
            username=data["username"],
            password=data["password"],
        )


def _query(text: str) -> dict[str, str]:
    """A URI's parameters as libpq reads them: unlike in a form, a plus sign is a plus sign."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _hostname(authority: str) -> str:
    """The host of an authority as it is written: `urlsplit` would lower a directory's name."""
    host = authority.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _host(name: str) -> str:
    if not name.startswith("/"):
        try:
            # As the resolver will; its UnicodeError would look like a defect.
            name.encode("idna")
        except UnicodeError:
            raise SecretError("its host is no host name: a part is empty or longer than 63 characters") from None
    return name


def _ssl_mode(settings: Mapping[str, str], authority: str | None) -> str:
    # As libpq has it with sslrootcert=system: who names an authority wants it asked.
    mode = settings.get("sslmode") or ("prefer" if authority is None else "verify-full")
    if mode not in SSL_MODES:
        raise SecretError(f"its sslmode must be one of {', '.join(SSL_MODES)}")
    return mode


_open: set[asyncpg.Connection] = set()


def open_sessions() -> int:
    """How many sessions this process has open as an administrator."""
    return len(_open)


async def open_session(
    admin: AdminConnection, *, reader: str | None = None, patience: float = CONNECT_TIMEOUT
) -> asyncpg.Connection:
    """An administrator's session with a pinned search_path and timeouts.

    Args:
        admin: How.
        reader: The application's name, for a session in which the server refuses to write; None: it is the operator's.
        patience: Seconds until the server counts as unreachable.

    Raises ConnectionFailedError and AuthenticationFailedError.
    """
    with translate(str(admin.endpoint)):
        connection = await asyncpg.connect(
            host=admin.endpoint.host,
            port=admin.endpoint.port,
            user=admin.username,
            password=admin.password,
            database=admin.endpoint.database,
            ssl=admin.endpoint.tls,
            timeout=patience,
            command_timeout=COMMAND_TIMEOUT,
            # A pooler in transaction mode in front of the server has no place for prepared statements.
            statement_cache_size=0,
        )
        try:
            await connection.execute(
                "SET search_path = pg_catalog, pg_temp;"
                f"SET application_name = '{reader or APPLICATION_NAME}';"
                + ("SET default_transaction_read_only = on;" if reader else "")
                + "SET lock_timeout = '10s';"
                f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}s';"
                "SET check_function_bodies = off;"
                "SET client_min_messages = warning"
            )
        except BaseException:
            connection.terminate()
            raise
    _open.add(connection)
    connection.add_termination_listener(_open.discard)
    return connection


async def end_silent_sessions(connection: asyncpg.Connection, silence: float = IDLE_IN_TRANSACTION) -> int:
    """Ends sessions of the operator whose client keeps a transaction open and says nothing, on the whole server.

    Args:
        connection: An administrator's; it is the same role's sessions that are ended.
        silence: Seconds.

    Returns how many there were.
    """
    return int(await connection.fetchval(sql.query("end_silent_sessions"), APPLICATION_NAME, silence))


async def close_session(connection: asyncpg.Connection) -> None:
    """Says goodbye, if the server still listens."""
    try:
        await connection.close(timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


Connect = Callable[[AdminConnection], AbstractAsyncContextManager[asyncpg.Connection]]
"""Gives a session for one use: `connect` opens one each time, the operator keeps them (see sessions.py)."""


@asynccontextmanager
async def connect(admin: AdminConnection) -> AsyncIterator[asyncpg.Connection]:
    """A session as `open_session` opens it, closed at the end.

    Raises what `open_session` raises and, for what fails inside, what `translate` makes of it.
    """
    async with _closed(admin, await open_session(admin)) as connection:
        yield connection


@asynccontextmanager
async def connect_to_read(admin: AdminConnection, reader: str = "busctl") -> AsyncIterator[asyncpg.Connection]:
    """The same, but the server refuses to write in it, and nobody waits for it long; `reader` as of `open_session`."""
    async with _closed(admin, await open_session(admin, reader=reader, patience=READER_TIMEOUT)) as connection:
        yield connection


@asynccontextmanager
async def _closed(admin: AdminConnection, connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    try:
        with translate(str(admin.endpoint)):
            yield connection
    finally:
        await close_session(connection)


class translate:  # noqa: N801 - reads as a statement: with translate(...):
    """Turns driver errors into BusErrors that name the database. Recognised by class (SQLSTATE), never by text."""

    def __init__(self, database: str) -> None:
        self._database = database

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, BusError | asyncio.CancelledError):
            return
        translated = _translated(self._database, error)
        if translated is not None:
            raise translated from error


def _translated(where: str, error: BaseException) -> BusError | None:
    match error:
        case asyncpg.PostgresError():
            return _said_by_server(where, error)
        case ssl.SSLCertVerificationError():
            return ConnectionFailedError(
                f"{where} shows a certificate that is not trusted: {error.verify_message.rstrip('.')}. Compare its"
                " issuer with the authority in spec.caSecretRef of the BusDatabase, or in PGSSLROOTCERT, and the"
                " address with its names",
                reason="ServerCertificateRefused",
            )
        # TimeoutError is an OSError and has no text of its own. InternalClientError is raised by a session that was
        # idle when the server ended it, and has not noticed yet.
        case OSError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return ConnectionFailedError(
                f"{where} cannot be reached: {str(error) or 'it does not answer'}. Is the server up, and does a"
                " NetworkPolicy let it be reached?"
            )
    return None


_LETS_IN = ", and that the server's pg_hba.conf lets it log in from here"
_PASSES = ". It is being started or stopped: try again in a moment; its log says what it waits for"


def _said_by_server(where: str, error: asyncpg.PostgresError) -> BusError:
    text = _text(error)
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            lets_in = "" if isinstance(error, asyncpg.InvalidPasswordError) else _LETS_IN
            return AuthenticationFailedError(
                f"{where} refuses the administrator's credential: {text}. Check its user and password{lets_in}."
            )
        case asyncpg.InsufficientPrivilegeError():
            return InsufficientPrivilegeError(
                f"{where}: the administrator's credential lacks a right: {text}."
                " It needs CREATEROLE and INHERIT, must own the database, and from PostgreSQL 16 on needs the ADMIN"
                " OPTION on roles that another administrator made, or that are from an older server."
            )
        case asyncpg.TooManyConnectionsError():
            return ConnectionFailedError(
                f"{where} has no connection left: {text}. End what holds them, or raise max_connections of the server",
                reason="ConnectionsExhausted",
            )
        case asyncpg.ReadOnlySQLTransactionError():
            return TransientError(
                f"{where}: {text}; a failover is under way, or the address is a standby's: it must be the primary's",
                reason="DatabaseReadOnly",
            )
        case asyncpg.PostgresConnectionError() | asyncpg.InvalidCatalogNameError() | asyncpg.CannotConnectNowError():
            passes = _PASSES if isinstance(error, asyncpg.CannotConnectNowError) else ""
            return ConnectionFailedError(f"{where}: {text}{passes}")
    return TransientError(f"{where}: {text} (SQLSTATE {error.sqlstate})", reason="DatabaseError")


def _text(error: asyncpg.PostgresError) -> str:
    """The server's words with detail and hint, as one line for a condition. A hostile server may have many."""
    return " ".join(str(error)[:LONGEST_WORDS].split()).rstrip(".")
