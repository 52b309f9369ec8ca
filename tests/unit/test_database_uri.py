"""The administrator's connection: how it is read, how a client's URI is written, and what failures are called."""

import ssl
import traceback

import asyncpg
import pytest

from bus_operator.database import AdminConnection, Endpoint, translate
from bus_operator.errors import (
    AuthenticationFailedError,
    BusError,
    ConnectionFailedError,
    InsufficientPrivilegeError,
    SecretError,
    SpecError,
    TransientError,
)
from bus_operator.model import ClientEndpoint

PASSWORD = "p/a?s#s@w%:d +&=ü"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://u:p@h:6432/d?sslmode=require", ("h", 6432, "d", "require", "u", "p")),
        ("postgres://u:p@h/d", ("h", 5432, "d", "prefer", "u", "p")),
        ("  postgresql://u:p@h/d\n", ("h", 5432, "d", "prefer", "u", "p")),
        ("postgresql://u@h/d", ("h", 5432, "d", "prefer", "u", None)),
        ("postgresql://u:p@[::1]:5433/d", ("::1", 5433, "d", "prefer", "u", "p")),
        ("postgresql:///d?host=/var/run/My%20Sockets&user=u&password=a+b%2Bc", (
            "/var/run/My Sockets", 5432, "d", "prefer", "u", "a+b+c")),
        ("postgresql://u:p@%2FVar%2FRun/d", ("/Var/Run", 5432, "d", "prefer", "u", "p")),
        ("postgresql://u:p@Host.Example/d", ("Host.Example", 5432, "d", "prefer", "u", "p")),
        ("postgresql://u%40v:p%3A%2Fq@h/my%20db", ("h", 5432, "my db", "prefer", "u@v", "p:/q")),
        ("postgresql://u:p@h?dbname=d&port=7000", ("h", 7000, "d", "prefer", "u", "p")),
        ("postgresql://u:@h/d", ("h", 5432, "d", "prefer", "u", None)),
    ],
)  # fmt: skip
def test_uris_are_read_as_libpq_reads_them(uri, expected):
    admin = AdminConnection.from_uri(uri)
    endpoint = admin.endpoint
    assert (
        endpoint.host, endpoint.port, endpoint.database, endpoint.ssl_mode, admin.username, admin.password,
    ) == expected  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "must look like postgresql://"),
        ("hunter2", "must look like postgresql://"),
        ("mysql://u:hunter2@h/d", "must look like postgresql://"),
        ("postgresql://u:hunter2@/d", "names no host"),
        ("postgresql://u:hunter2@h", "names no database name"),
        ("postgresql://:hunter2@h/d", "names no user"),
        ("postgresql://u:hunter2@h:no/d", "cannot be parsed"),
        ("postgresql://u:hunter2@h:99999/d", "cannot be parsed"),
        ("postgresql://u:hunter2/x@h/d", "cannot be parsed"),
        ("postgresql://u:hunter2@h/d?port=hunter2", "cannot be parsed"),
        ("postgresql://u:hunter2@h/d?port=99999", "cannot be parsed"),
        ("postgresql://u:hunter2@db..example/d", "its host is no host name"),
        ("postgresql://u:hunter2@" + "x" * 64 + ".example/d", "its host is no host name"),
        ("postgresql://u:hunter2@[::1/d", "cannot be parsed"),
        ("postgresql://u:hunter2@h1:1,h2:2/d", "cannot be parsed"),
        ("postgresql://u:hunter2@h/d?sslmode=hunter2", "sslmode must be one of disable, allow, prefer, require"),
    ],
)
def test_a_uri_that_is_no_use_is_refused_without_echoing_it(uri, message):
    with pytest.raises(SecretError) as caught:
        AdminConnection.from_uri(uri)
    assert message in str(caught.value)
    # Not in the chain of causes either, which a log would show.
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["db.example", "10.0.0.1", "::1", "/run/postgresql", "/var/run/my sockets"])
@pytest.mark.parametrize("database", ["orders", "my db/100%", "ü"])
def test_a_clients_uri_reads_back_as_it_was_meant(host, database):
    endpoint = Endpoint(host, 6543, database, "verify-full")
    uri = endpoint.uri("user@example", PASSWORD)
    assert "+" not in uri
    again = AdminConnection.from_uri(uri)
    assert again == AdminConnection(endpoint, "user@example", PASSWORD)


async def test_the_driver_reads_a_clients_uri_the_same_way():
    addresses = asyncpg.connect_utils._parse_connect_arguments
    uri = Endpoint("/var/run/my sockets", 6543, "my db", "disable").uri("u", PASSWORD)
    parsed, params, _ = addresses(
        dsn=uri, host=None, port=None, user=None, password=None, passfile=None, database=None, command_timeout=None,
        statement_cache_size=0, max_cached_statement_lifetime=0, max_cacheable_statement_size=0, ssl=None,
        direct_tls=None, server_settings=None, target_session_attrs=None, krbsrvname=None, gsslib=None, service=None,
        servicefile=None,
    )  # fmt: skip
    assert parsed == ["/var/run/my sockets/.s.PGSQL.6543"]
    assert (params.user, params.password, params.database) == ("u", PASSWORD, "my db")


def test_pods_may_get_another_address():
    admin = Endpoint("10.0.0.1", 5432, "orders", "disable")
    assert admin.for_clients(ClientEndpoint()) == admin
    assert admin.for_clients(ClientEndpoint(host="pooler", port=6432, ssl_mode="require")) == Endpoint(
        "pooler", 6432, "orders", "require"
    )
    assert str(admin) == "10.0.0.1:5432/orders"


BASIC = {"host": "h", "dbname": "d", "username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"uri": "postgresql://u:p@h/d", "host": "other"}, ("h", 5432, "d", "prefer")),
        (BASIC, ("h", 5432, "d", "prefer")),
        (BASIC | {"port": "6432", "sslmode": "verify-full"}, ("h", 6432, "d", "verify-full")),
    ],
)
def test_secrets_hold_a_uri_or_its_parts(data, expected):
    admin = AdminConnection.from_secret(data, "uri")
    endpoint = admin.endpoint
    assert (endpoint.host, endpoint.port, endpoint.database, endpoint.ssl_mode) == expected
    assert (admin.username, admin.password) == ("u", "p")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "neither the key 'uri' .* missing: host, dbname, username, password"),
        ({"host": "h", "dbname": "d"}, "missing: username, password"),
        (BASIC | {"host": ""}, "missing: host"),
        (BASIC | {"port": "http"}, "'port' is not a port number"),
        (BASIC | {"port": "0"}, "'port' is not a port number"),
        (BASIC | {"sslmode": "on"}, "sslmode must be one of"),
    ],
)
def test_a_secret_that_is_not_whole_says_what_is_missing(data, message):
    with pytest.raises(SecretError, match=message) as caught:
        AdminConnection.from_secret(data, "uri")
    assert caught.value.reason == "SecretInvalid"


def test_the_password_is_not_in_the_representation():
    assert "hunter2" not in repr(AdminConnection.from_uri("postgresql://u:hunter2@h/d"))


REFUSED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
REFUSED.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("error", "expected", "reason", "told"),
    [
        (asyncpg.InvalidPasswordError("no"), AuthenticationFailedError, "AuthenticationFailed", "user and password"),
        (asyncpg.InvalidAuthorizationSpecificationError("no"), AuthenticationFailedError, "AuthenticationFailed", "no"),
        (asyncpg.InvalidCatalogNameError("gone"), ConnectionFailedError, "ConnectionFailed", "gone"),
        (asyncpg.InsufficientPrivilegeError("x"), InsufficientPrivilegeError, "InsufficientPrivilege", "CREATEROLE"),
        (asyncpg.TooManyConnectionsError("full"), ConnectionFailedError, "ConnectionsExhausted", "full"),
        (asyncpg.ReadOnlySQLTransactionError("no"), TransientError, "DatabaseReadOnly", "primary"),
        (asyncpg.CannotConnectNowError("starting"), ConnectionFailedError, "ConnectionFailed", "starting"),
        (asyncpg.AdminShutdownError("bye"), TransientError, "DatabaseError", "57P01"),
        (asyncpg.LockNotAvailableError("busy"), TransientError, "DatabaseError", "55P03"),
        (REFUSED, ConnectionFailedError, "ServerCertificateRefused", "not trusted: self-signed certificate. Compare"),
        (TimeoutError(), ConnectionFailedError, "ConnectionFailed", "does not answer"),
        (ConnectionRefusedError("refused"), ConnectionFailedError, "ConnectionFailed", "refused"),
        (asyncpg.InterfaceError("closed"), ConnectionFailedError, "ConnectionFailed", "closed"),
    ],
)
def test_driver_errors_are_translated_at_one_place(error, expected, reason, told):
    with pytest.raises(BusError) as caught, translate("h:5432/d"):
        raise error
    assert type(caught.value) is expected
    assert caught.value.reason == reason
    assert caught.value.__cause__ is error
    assert told in str(caught.value)
    assert "h:5432/d" in str(caught.value)


@pytest.mark.parametrize("error", [SpecError("mine"), KeyError("bug"), GeneratorExit()])
def test_everything_else_passes(error):
    with pytest.raises(type(error)) as caught, translate("h:5432/d"):
        raise error
    assert caught.value is error


def test_what_cannot_change_by_itself_is_a_spec_error():
    assert issubclass(InsufficientPrivilegeError, SpecError)
    assert issubclass(SecretError, SpecError)
    assert not issubclass(AuthenticationFailedError, SpecError)
