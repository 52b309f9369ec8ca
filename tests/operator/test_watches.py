"""What is acted upon at once, because it is watched: the resync is an hour away here."""

import secrets
from collections.abc import Iterator

import asyncpg
import postgres
import pytest
from authorities import Authority
from control_plane import wait_until
from operator_process import Operator
from operator_world import Namespace, World

AT_ONCE = 20.0
"""Seconds, on a machine that does other work too: less than the half minute between looks at what is not watched."""


@pytest.fixture(scope="module", autouse=True)
def _no_resync(operator: Operator) -> Iterator[None]:
    operator.terminate()
    operator.start(BUS_RESYNC_SECONDS="3600")
    yield
    operator.terminate()
    operator.start()


async def test_a_secret_that_is_created(world: World, namespace: Namespace) -> None:
    database = namespace.database(None)
    channel = namespace.channel()
    database.wait_for("SecretNotFound")
    channel.wait_for("DatabaseUnavailable")
    namespace.put_secret("main-admin", {"uri": (await world.postgres()).dsn})
    database.wait_ready(seconds=AT_ONCE)
    channel.wait_ready(seconds=AT_ONCE)


async def test_a_secret_that_is_corrected(world: World, namespace: Namespace) -> None:
    uri = (await world.postgres()).dsn
    database = namespace.database("no URI")
    database.wait_for("SecretInvalid")
    namespace.put_secret("main-admin", {"uri": uri})
    database.wait_ready(seconds=AT_ONCE)


async def test_a_large_secret_that_is_corrected(world: World, namespace: Namespace) -> None:
    """Beside the URI it holds what somebody else needs; Secrets may be as large as a megabyte."""
    certificates = {"certificates.pem": "x" * 700_000}
    namespace.put_secret("main-admin", {"uri": "no URI"} | certificates)
    database = namespace.database(None)
    database.wait_for("SecretInvalid")
    namespace.put_secret("main-admin", {"uri": (await world.postgres()).dsn} | certificates)
    database.wait_ready(seconds=AT_ONCE)


async def test_another_secret(world: World, namespace: Namespace) -> None:
    """The watch moves to the Secret that is referred to now."""
    uri = (await world.postgres()).dsn
    database = namespace.database("no URI")
    database.wait_for("SecretInvalid")
    database.patch({"connectionSecretRef": {"name": "another"}})
    database.wait_for("SecretNotFound")
    namespace.put_secret("another", {"uri": uri})
    database.wait_ready(seconds=AT_ONCE)


async def test_an_authority_that_is_renewed(world: World, namespace: Namespace) -> None:
    """Its Secret has a watch of its own, and bindings follow, whether the server is asked for a certificate or not."""
    first, second = Authority(), Authority()
    database = namespace.database((await world.postgres()).dsn, caSecretRef={"name": "bus-ca"})
    channel = namespace.channel()
    database.wait_for("SecretNotFound")
    namespace.put_secret("bus-ca", {"ca.crt": first.pem})
    channel.wait_ready(seconds=AT_ONCE)
    before = namespace.secret("orders-bus") or {}
    assert before["ca.crt"] == first.pem
    namespace.put_secret("bus-ca", {"ca.crt": second.pem})
    after = before | {"ca.crt": second.pem}
    wait_until(lambda: namespace.secret("orders-bus") == after, "the binding follows", AT_ONCE)


async def test_the_administrators_password_is_changed(world: World, namespace: Namespace) -> None:
    """First in the server, then in the Secret. Nobody looks in between: it is seen when the Secret changes."""
    created = await world.postgres()
    role, passwords = f"admin_{secrets.token_hex(4)}", [secrets.token_hex(8), secrets.token_hex(8)]
    async with created.session() as session:
        await session.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{passwords[0]}'")
    database = namespace.database(world.server.uri(created.name, role, passwords[0]))
    database.wait_ready()
    async with created.session() as session:
        await session.execute(f"ALTER ROLE {role} PASSWORD '{passwords[1]}'")
        # Those that are open would go on.
        await session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
    # A new channel is the first to notice.
    channel = namespace.channel()
    database.wait_for("AuthenticationFailed")
    channel.wait_for("DatabaseUnavailable")
    namespace.put_secret("main-admin", {"uri": world.server.uri(created.name, role, passwords[1])})
    database.wait_ready(seconds=AT_ONCE)
    channel.wait_ready(seconds=AT_ONCE)
    async with created.session() as session:
        await session.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_database_that_is_created_after_its_channel(world: World, namespace: Namespace) -> None:
    named, by_default = namespace.channel(), namespace.channel("by-default", database=None)
    named.wait_for("DatabaseNotFound")
    by_default.wait_for("NoDefaultDatabase")
    namespace.database((await world.postgres()).dsn, default=True)
    named.wait_ready(seconds=AT_ONCE)
    by_default.wait_ready(seconds=AT_ONCE)


async def test_a_channel_that_notices_that_the_server_is_gone(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    """It tells the database, whose retries then bring both back."""
    database = namespace.database((await world.postgres(server=fragile_server)).dsn)
    first = namespace.channel("first")
    first.wait_ready()
    wait_until(lambda: database.status["channels"] == 1, "the channel is counted")
    fragile_server.stop()
    second = namespace.channel("second")
    second.wait_for("DatabaseUnavailable")
    database.wait_for("ConnectionFailed")
    first.wait_for("DatabaseUnavailable")
    fragile_server.start()
    for resource in (database, first, second):
        resource.wait_ready()


async def test_the_next_in_line_gets_a_name(world: World, namespace: Namespace) -> None:
    namespace.database((await world.postgres()).dsn)
    first = namespace.channel("first", channel="the-name", deletionPolicy="Delete")
    first.wait_ready()
    second = namespace.channel("second", channel="the-name")
    second.wait_for("ChannelConflict")
    first.delete()
    first.wait_gone()
    second.wait_ready(seconds=AT_ONCE)


async def test_the_oldest_gets_its_name_back(world: World, namespace: Namespace) -> None:
    """A younger BusChannel may have got there first, while the older one was not allowed in yet."""
    database = namespace.database((await world.postgres()).dsn)
    other = world.namespace()
    older = other.channel("older", channel="the-name", database=f"{namespace.name}/main")
    older.wait_for("NamespaceNotAllowed")
    world.wait_for_the_next_second(other, older)
    younger = namespace.channel("younger", channel="the-name")
    younger.wait_ready()
    database.patch({"allowedNamespaces": {"from": "All"}})
    older.wait_ready(seconds=AT_ONCE)
    younger.wait_for("ChannelConflict", seconds=AT_ONCE)
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with namespace.login("younger-bus"):
            pass


async def test_changes_while_a_status_is_being_written(world: World, namespace: Namespace) -> None:
    """The answer to a status write may be ahead of the watch: the change in it must not be taken for an echo."""
    namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    for peers in range(1, 40):
        channel.patch({"limits": {"maxPeers": peers}})
    channel.wait_ready(seconds=AT_ONCE)
    assert channel.status["observedGeneration"] == 40


async def test_a_binding_that_is_edited_after_a_rotation(world: World, namespace: Namespace) -> None:
    """A channel is watched as any other while a former credential of it goes on."""
    namespace.database((await world.postgres()).dsn)
    channel = namespace.channel(credentials={"overlap": "1h"})
    channel.wait_ready()
    channel.annotate({"pgmqbus.dev/rotate": "once"})
    channel.wait_event("Normal", "CredentialRotated")
    channel.wait_ready()
    for damage in ({"config.json": "damaged"}, {"channel": "damaged"}):
        before = namespace.secret("orders-bus")
        namespace.put_secret("orders-bus", damage)
        wait_until(lambda before=before: namespace.secret("orders-bus") == before, "it is put right", AT_ONCE)
