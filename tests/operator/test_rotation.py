"""Credentials are replaced: on demand, by age, and when the Secret was tampered with; nobody is cut off too early."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import postgres
import pytest
from control_plane import PATIENCE, wait_until
from operator_process import Operator
from operator_world import Namespace, Ref, World
from scraping import value, wait_for

from benchmarks.operator_scale.rows.rotation import rotate_under_load
from bus_operator import drift_look
from bus_operator.plan_credentials import MAX_LOGINS

OVERDUE = "pgmq_bus_channel_rotation_overdue_seconds"
LATER = "update pgmq_bus.login set published_at = published_at - $1::text::interval"


@pytest.fixture(scope="module", autouse=True)
def _impatient(operator: Operator) -> Iterator[None]:
    """Unused credentials end within a second."""
    operator.terminate()
    operator.start(BUS_CREDENTIAL_UNUSED_SECONDS="0.4")
    yield
    operator.terminate()
    operator.start()


@pytest.fixture
async def database(world: World) -> postgres.Database:
    return await world.postgres()


@pytest.fixture
def channel(namespace: Namespace, database: postgres.Database) -> Ref:
    namespace.database(database.dsn)
    made = namespace.channel(peerTimeout="10s")
    made.wait_ready()
    return made


def rotate(channel: Ref, value: str) -> None:
    channel.annotate({"pgmqbus.dev/rotate": value})


def generation(namespace: Namespace) -> int:
    return int((namespace.secret("orders-bus") or {}).get("generation", 0))


def told(channel: Ref, reason: str) -> list[str]:
    return [message for _, found, message in channel.events() if found == reason]


async def logins(database: postgres.Database) -> list[int]:
    async with database.session() as session:
        return [row[0] for row in await session.fetch("select generation from pgmq_bus.login order by 1")]


async def test_on_demand(world: World, namespace: Namespace, channel: Ref, database: postgres.Database) -> None:
    async with namespace.login() as before:
        peer = await before.join()
        rotate(channel, "monday")
        rotating = channel.wait_for("Rotating", "CredentialsCurrent")
        assert rotating["status"] == "True"
        assert rotating["message"].startswith(
            "generation 2 in Secret orders-bus; generation 1 ends when nobody uses it"
        )
        assert channel.condition()["status"] == "True"
        await before.publish(peer, "by the login of before")
        async with namespace.login() as after:
            assert await after.read(peer, acknowledge=True) == ["by the login of before"]
    channel.wait_for("Current", "CredentialsCurrent")
    status = channel.status
    assert (status["credentialGeneration"], status["rotationRequest"]) == (2, "monday")
    assert await logins(database) == [2]
    (message,) = told(channel, "CredentialRotated")
    assert message.startswith("credential generation 2: it was asked for by annotation; verified at 127.0.0.1:")
    assert told(channel, "CredentialRetired") == ["credential generation 1 has ended: nobody used it any more"]

    # Neither another look nor another operator does it again; another value does.
    world.operator.terminate()
    world.operator.start(BUS_CREDENTIAL_UNUSED_SECONDS="0.4")
    channel.patch({"limits": {"maxPeers": 7}})
    channel.wait_ready()
    assert generation(namespace) == 2
    rotate(channel, "tuesday")
    wait_until(lambda: channel.status["rotationRequest"] == "tuesday", "the next one is answered")
    channel.wait_for("Current", "CredentialsCurrent")
    assert generation(namespace) == 3


async def test_who_uses_it_to_the_end_is_named(
    world: World, namespace: Namespace, channel: Ref, database: postgres.Database
) -> None:
    pods = f"/api/v1/namespaces/{namespace.name}/pods"
    container = {"name": "app", "image": "app"}
    world.kube.create(f"/api/v1/namespaces/{namespace.name}/serviceaccounts", {"metadata": {"name": "app"}})
    pod = {"metadata": {"name": "legacy-0"}, "spec": {"containers": [container], "serviceAccountName": "app"}}
    world.kube.create(pods, pod)
    ips = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    world.kube.patch(f"{pods}/legacy-0/status", {"status": ips})
    async with namespace.login() as before, database.session() as session:
        # A peer calls itself what it likes.
        peer = await before.join(host="billing-7f9c\x1b[2J")
        rotate(channel, "now")
        channel.wait_for("Rotating", "CredentialsCurrent")
        rotate(channel, "and again")
        wait_until(
            lambda: channel.condition("CredentialsCurrent")["message"].endswith("that was asked for begins then"),
            "the next one waits",
        )
        await session.execute(LATER, "1 hour")
        (warning,) = wait_until(lambda: told(channel, "CredentialStillUsed"), "the users are named")
        assert r"is still used by billing-7f9c\x1b[2J, legacy-0. It ends at " in warning
        await before.publish(peer, "still works")
        await session.execute(LATER, "23 hours")
        (end,) = wait_until(lambda: told(channel, "CredentialRevoked"), "their time is over")
        assert r"while it was still used by billing-7f9c\x1b[2J, legacy-0: restart them" in end
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await before.publish(peer, "no more")
    wait_until(lambda: channel.status["rotationRequest"] == "and again", "the next one begins")
    assert len(told(channel, "CredentialStillUsed")) == 1
    assert generation(namespace) == 3


async def test_a_limit_that_changes_meanwhile_is_no_change_by_hand(
    namespace: Namespace, channel: Ref, database: postgres.Database
) -> None:
    """It is that of both logins, which a look at the database expects."""
    async with namespace.login(), database.session() as session:
        rotate(channel, "now")
        channel.wait_for("Rotating", "CredentialsCurrent")
        channel.patch({"limits": {"maxConnections": 7}})
        channel.wait_ready()
        # As the operator's session: fingerprints depend on it.
        await session.execute("set search_path = pg_catalog, pg_temp")
        assert await drift_look.look(session) == []


async def test_by_age(namespace: Namespace, channel: Ref, database: postgres.Database) -> None:
    channel.patch({"credentials": {"rotationInterval": "720h"}})
    channel.wait_ready()
    async with database.session() as session:
        await session.execute(LATER, "640 hours")
        channel.patch({"limits": {"maxPeers": 7}})
        channel.wait_ready()
        assert generation(namespace) == 1
        await session.execute(LATER, "80 hours")
    wait_until(lambda: generation(namespace) == 2, "its time has come")
    wait_until(lambda: told(channel, "CredentialRotated"), "it is told")
    assert "the rotation interval is over" in told(channel, "CredentialRotated")[0]


async def test_a_credential_that_does_not_work_is_not_published(
    world: World, namespace: Namespace, channel: Ref, database: postgres.Database, fragile_server: postgres.Server
) -> None:
    """Where pods connect, the server has no such logins: as a pooler with a list of its own."""
    main = Ref(world.kube, "busdatabases", namespace.name, "main")
    main.patch({"clientEndpoint": {"host": "127.0.0.1", "port": fragile_server.port}})
    wait_until(lambda: namespace.secret("orders-bus")["port"] == str(fragile_server.port), "the binding follows")
    before = namespace.secret("orders-bus")
    rotate(channel, "now")
    failed = channel.wait_for("VerificationFailed", "CredentialsCurrent")
    assert failed["status"] == "False"
    assert f"generation 2 does not work at 127.0.0.1:{fragile_server.port}" in failed["message"]
    assert "auth_query" in failed["message"]
    of = {"namespace": namespace.name, "name": channel.name, "database": f"{namespace.name}/main"}
    wait_until(lambda: (value(world.operator, OVERDUE, **of) or 0) > 0, "it is overdue")
    assert namespace.secret("orders-bus") == before
    main.patch({"clientEndpoint": None})
    wait_until(lambda: generation(namespace) == 2, "it goes on")
    wait_for(world.operator, None, OVERDUE, **of)
    channel.wait_for("Current", "CredentialsCurrent")
    assert await logins(database) == [2]
    async with namespace.login() as login:
        await login.join()


@pytest.mark.parametrize("damage", ["deleted", "edited", "put back"])
async def test_a_secret_that_was_tampered_with(
    namespace: Namespace, channel: Ref, database: postgres.Database, damage: str
) -> None:
    original: dict[str, Any] = namespace.secret("orders-bus") or {}
    expected = 2
    async with namespace.login() as before:
        peer = await before.join()
        if damage == "deleted":
            namespace.delete_secret("orders-bus")
        elif damage == "edited":
            namespace.put_secret("orders-bus", {"password": "guess"})
        else:
            rotate(channel, "now")
            wait_until(lambda: generation(namespace) == 2, "rotated")
            namespace.put_secret("orders-bus", original)
            expected = 3
        wait_until(lambda: generation(namespace) == expected, "there is another credential")
        await before.publish(peer, "who has the one of before goes on")
        async with namespace.login() as after:
            assert await after.read(peer) == ["who has the one of before goes on"]
            await after.publish(peer, "so does who has the new one")
    wait_until(lambda: channel.status["credentialGeneration"] == expected, "the status says so")
    channel.wait_for("Current", "CredentialsCurrent")
    assert await logins(database) == [expected]


async def test_who_else_writes_the_secret_is_told_of(
    world: World, namespace: Namespace, channel: Ref, database: postgres.Database
) -> None:
    """Four credentials are in use, and another is made when one of them is not; all the rest is done meanwhile."""
    async with AsyncExitStack() as users:
        for lost in range(1, MAX_LOGINS + 1):
            await users.enter_async_context(namespace.login())
            namespace.put_secret("orders-bus", {"password": "guess"})
            if lost < MAX_LOGINS:
                wait_until(lambda lost=lost: generation(namespace) == lost + 1, "there is another credential")
        contested = channel.wait_for("SecretContested", "CredentialsCurrent")
        assert "Find out who else writes the Secret" in contested["message"]
        assert contested["status"] == "False"
        assert channel.condition("Provisioned")["status"] == "True"
        of = {"namespace": namespace.name, "name": channel.name, "database": f"{namespace.name}/main"}
        wait_until(lambda: (value(world.operator, OVERDUE, **of) or 0) > 0, "it is overdue")
        channel.patch({"limits": {"maxPeers": 7}})
        async with database.session() as session:
            await until_limited(session, 7)
    wait_until(lambda: generation(namespace) == MAX_LOGINS + 1, "nobody uses those of before")
    channel.wait_for("Current", "CredentialsCurrent")


async def until_limited(session: asyncpg.Connection, peers: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await session.fetchval("select max_peers from pgmq_bus.channel") != peers:
            await asyncio.sleep(0.05)


async def test_pods_go_on_while_the_administrators_password_is_wrong(
    world: World, namespace: Namespace, database: postgres.Database
) -> None:
    """Changed in the server first: it is told what to do, nothing is touched, and the Secret brings it back at once."""
    role = f"admin_{namespace.name.replace('-', '_')}"
    async with database.session() as session:
        await session.execute(f"create role {role} login superuser password 'first'")
        main = namespace.database(world.server.uri(database.name, role, "first"))
        channel = namespace.channel()
        channel.wait_ready()
        async with namespace.login() as pod:
            peer = await pod.join()
            await session.execute(f"alter role {role} password 'second'")
            await session.fetch("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)
            refused = main.wait_for("AuthenticationFailed")
            assert "Check its user and password" in refused["message"]
            rotate(channel, "meanwhile")
            await pod.publish(peer, "goes on")
            namespace.put_secret("main-admin", {"uri": world.server.uri(database.name, role, "second")})
            main.wait_ready()
            channel.wait_ready()
            wait_until(lambda: generation(namespace) == 2, "what was asked for meanwhile is done")
            assert await pod.read(peer) == ["goes on"]
        await session.execute(f"reassign owned by {role} to postgres; drop owned by {role}; drop role {role}")


@pytest.mark.slow
def test_under_load_nothing_is_lost(world: World) -> None:
    """As `make bench-operator` measures it, smaller: real processes, which are given their files as kubelets do."""
    found = rotate_under_load(world, rotations=3, peers=3, rate=150)
    assert (found.failed, found.lost, found.again, found.dropped) == (0, 0, 0, 0)
    assert found.published > 0
