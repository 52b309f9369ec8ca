"""An administrator who is no superuser: what he needs, and what he is told when it is missing.

What he needs: LOGIN, CREATEROLE (and INHERIT, the default), to own the database, and CREATEDB for shards that nobody
else made. Nothing else, on every version, although 16 changed what CREATEROLE may do: from then on a role's creator may
administer it, and nobody else's.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import postgres
import pytest
from pgmq.install import get_embedded_install_sql, get_embedded_sql_version
from recorder import eventually
from wire import Peer, payloads

from bus_operator import actions, provision, shards
from bus_operator.actions import DesiredChannel
from bus_operator.cli.channel_access import FetchedBinding
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import AuthenticationFailedError, InsufficientPrivilegeError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules
from bus_runtime import AccessDeniedError, IsolatedPgmqBackend
from bus_runtime.wire import Wire


@pytest.fixture(scope="module", params=postgres.SUPPORTED, ids=lambda version: f"pg{version}")
def untouched(request) -> Iterator[postgres.Server]:
    """A server of its own: roles belong to the whole server, and here nobody else may have made ours."""
    running = postgres.start_server(request.param)
    yield running
    running.remove()


@dataclass
class Owned:
    """A database and the administrator who owns it."""

    database: str
    admin: AdminConnection


@pytest.fixture
async def superuser(untouched: postgres.Server):
    session = await untouched.connect()
    yield session
    await session.close()


@pytest.fixture
def make_administrator(untouched: postgres.Server, superuser: asyncpg.Connection):
    """Creates an administrator with these attributes, and a database that he or somebody else owns."""

    async def make(attributes: str = "createrole", *, owns: bool = True, database: str | None = None) -> Owned:
        name, password = f"admin_{secrets.token_hex(4)}", secrets.token_hex(8)
        await superuser.execute(f"create role {name} login {attributes} password '{password}'")
        if database is None:
            database = f"db_{name}"
            await superuser.execute(f"create database {database} template template0 {f'owner {name}' if owns else ''}")
        return Owned(database, untouched.admin(database, name, password))

    return make


@pytest.fixture(autouse=True)
async def no_trace(untouched: postgres.Server, superuser: asyncpg.Connection):
    """Each test finds a server on which nothing of ours is."""
    yield
    for (name,) in await superuser.fetch("select datname from pg_database where datname like 'db\\_admin%'"):
        await superuser.execute(f"drop database {name} with (force)")
    for _ in range(2):  # a role goes after those that it granted something
        for (name,) in await superuser.fetch("select rolname from pg_roles where rolname ~ '^(bus_|pgmq_bus_|admin_)'"):
            try:
                await superuser.execute(f"drop owned by {name} cascade; drop role {name}")
            except asyncpg.DependentObjectsStillExistError:
                continue
    assert await superuser.fetchval("select count(*) from pg_roles where rolname ~ '^(bus_|pgmq_bus_)'") == 0


def desire(uid: str = "uid", name: str = "orders", **spec) -> DesiredChannel:
    parsed = ChannelSpec.model_validate({"channel": "orders", **spec})
    return DesiredChannel.from_spec(parsed, namespace="team", name=name, uid=Uid(uid))


AT_ONCE = RotationRules(overlap=timedelta(0))
"""The login before the one before ends with the next plan."""


async def use(owned: Owned, credential: HeldCredential) -> asyncpg.Connection:
    return await asyncpg.connect(owned.admin.endpoint.uri(credential.username, credential.password))


async def test_createrole_and_the_database_are_enough(make_administrator, superuser):
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        observed, done = await provision.install(session)
        assert actions.GrantOwnerToSelf() in done
        assert observed.schema_version is not None
        assert (await provision.install(session))[1] == []

        held = []
        sessions = []
        for generation in (1, 2, 3):  # the third drops the first, whose session is open and owns a temporary table
            provisioned = await provision.provision(session, desire(), None, rotation=AT_ONCE)
            assert provisioned.generation == generation
            held.append(HeldCredential(provisioned.issued.username, provisioned.issued.password))
            client = await use(owned, held[-1])
            peer = await Peer.join(client, "orders")
            await peer.publish(generation)
            assert payloads(await peer.read()) == [generation]
            await client.execute("create temp table t (a int)")
            sessions.append(client)
        assert (await provision.provision(session, desire(), held[-1])).actions == ()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await use(owned, held[0])
        changed = desire(limits={"maxConnections": 2})
        assert (await provision.provision(session, changed, held[-1])).issued is None

        assert isinstance(await provision.deprovision(session, "orders", Uid("uid"), "Retain"), actions.ReleaseChannel)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await use(owned, held[-1])
        again = await provision.provision(session, desire("uid-2"), None)
        assert again.issued is not None
        assert isinstance(await provision.deprovision(session, "orders", Uid("uid-2"), "Delete"), actions.DropChannel)
    assert await superuser.fetchval("select count(*) from pg_roles where rolname ~ '^bus_'") == 0
    for client in sessions:
        client.terminate()


async def test_channels_can_be_looked_into(make_administrator, untouched):
    """As `busctl tail --database URI` does it: from 16 on the administrator is a member of the roles that he made."""
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        await provision.provision(session, desire(), None)
    uri = owned.admin.endpoint.uri(owned.admin.username, owned.admin.password)
    seen = []
    backend = IsolatedPgmqBackend(binding=FetchedBinding(name="orders", directory=Path(), channel="orders", uri=uri))
    wire = Wire(backend, "orders", application="busctl tail", receive=lambda *message: seen.append(message))
    if untouched.version < 16:
        with pytest.raises(AccessDeniedError):
            await wire.start()
        await backend.close()
        return
    await wire.start()
    assert await wire.publish(b'{"order": "A-1"}') == 1
    await eventually(lambda: seen == [(1, b'{"order": "A-1"}')])
    await wire.stop()


async def test_what_a_client_left_elsewhere_blocks_nothing(make_administrator, untouched, superuser):
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        first = await provision.provision(session, desire(), None)
        credential = HeldCredential(first.issued.username, first.issued.password)
        client = await asyncpg.connect(untouched.uri("postgres", credential.username, credential.password))
        large_object = await client.fetchval("select lo_create(0)")
        for _ in range(2):
            await provision.provision(session, desire(), None, rotation=AT_ONCE)
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await use(owned, credential)
        assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")
        client.terminate()
    # What is left is a role that can do nothing; who may remove the object in that database may remove the role.
    left = await superuser.fetch("select rolname, rolcanlogin from pg_roles where rolname ~ '^bus_'")
    assert [tuple(row) for row in left] == [(credential.username, False)]
    await superuser.execute(f"select lo_unlink({large_object})")


KEEPERS = [
    # As the group that all clients are in: nobody's login, so what is made as it stays.
    "set role pgmq_bus_client; select lo_create(4711); grant select on large object 4711 to {kept}",
    "select lo_create(4711); grant select on large object 4711 to {kept}",
    "create temp table t (); grant select on t to {kept}",
    "begin; create temp table t (); grant select on t to {kept}",
]


@pytest.mark.parametrize("statement", KEEPERS, ids=["group", "large object", "temporary table", "transaction"])
async def test_no_client_can_keep_another_credential_alive(make_administrator, statement):
    """What was granted to a role keeps it from being dropped, and only who granted it can take it back."""
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        issued = (await provision.provision(session, desire(), None)).issued
        role = await session.fetchval("select role from pgmq_bus.channel")
        accomplice = (await provision.provision(session, desire("other", name="other", channel="other"), None)).issued
        holder = await use(owned, HeldCredential(accomplice.username, accomplice.password))
        await holder.execute(statement.format(kept=f"{issued.username}, {role}"))

        async with asyncio.timeout(20):
            assert await provision.withdraw(session, "orders", Uid("uid"))
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await use(owned, HeldCredential(issued.username, issued.password))
        again = (await provision.provision(session, desire(), None)).issued
        client = await use(owned, HeldCredential(again.username, again.password))
        assert await Peer.join(client, "orders")
        async with asyncio.timeout(20):
            assert isinstance(await provision.deprovision(session, "orders", Uid("uid"), "Delete"), actions.DropChannel)
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await use(owned, HeldCredential(again.username, again.password))
        # Whatever is left of them is a member of nothing.
        left = await session.fetchval(
            "select count(*) from pg_auth_members where member::regrole::text in ($1, $2, $3)",
            issued.username, again.username, role,
        )  # fmt: skip
        assert left == 0
        client.terminate()
        holder.terminate()


async def test_who_locks_anothers_log_is_ended(make_administrator):
    """PostgreSQL locks a sequence before it looks whether somebody may use it, to the end of his transaction."""
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        await provision.provision(session, desire(), None)
        issued = (await provision.provision(session, desire("other", name="other", channel="other"), None)).issued
        queue = await session.fetchval("select queue from pgmq_bus.channel where name = 'orders'")
        members = "select count(*) from pg_auth_members where roleid = to_regrole($1)"
        before = await session.fetchval(members, issued.username)
        holder = await use(owned, HeldCredential(issued.username, issued.password))
        await holder.execute(
            f"begin; do $$ begin perform nextval(oid) from pg_class where relname = 'q_{queue}_msg_id_seq';"
            " exception when insufficient_privilege then null; end $$"
        )
        assert (await provision.provision(session, desire(durability="Unlogged"), None)).channel.log_unlogged
        await eventually(holder.is_closed)
        assert await session.fetchval(members, issued.username) == before


async def test_who_uses_a_replaced_credential_is_seen_without_superuser(make_administrator):
    """Where sessions come from is shown to members of their role only."""
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        issued = (await provision.provision(session, desire(), None)).issued
        client = await use(owned, HeldCredential(issued.username, issued.password))
        second = (await provision.provision(session, desire(), None)).issued
        held = HeldCredential(second.username, second.password)
        done = await provision.provision(session, desire(), held)
        assert [user.address for user in done.before.logins[0].users] == ["127.0.0.1"]
        await client.close()
        gone = RotationRules(unused=timedelta(0))
        async with asyncio.timeout(10):
            while actions.DropLogin(issued.username, 1) not in done.actions:
                done = await provision.provision(session, desire(), held, rotation=gone)
        assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")


async def test_damage_is_repaired_without_superuser(make_administrator):
    owned = await make_administrator()
    async with connect(owned.admin) as session:
        await provision.install(session)
        first = await provision.provision(session, desire(), None)
        held = HeldCredential(first.issued.username, first.issued.password)
        await session.execute("drop function public.bus_join; drop schema pgmq_bus_v1 cascade")
        queue, role = await session.fetchrow("select queue, role from pgmq_bus.channel")
        await session.execute(
            f"drop table pgmq.q_{queue}; grant {role} to current_user; drop owned by {role}; drop role {role}"
        )
        assert (await provision.install(session))[1]
        second = await provision.provision(session, desire(), held)
        assert second.generation == 2
        client = await use(owned, HeldCredential(second.issued.username, second.issued.password))
        assert (await Peer.join(client, "orders")).joined["position"] == 1_000_000_000
        client.terminate()


@pytest.mark.parametrize(
    ("attributes", "owns", "told"),
    [
        ("nocreaterole", True, "CREATEROLE"),
        ("createrole", False, "must own the database"),
        ("createrole noinherit", True, "INHERIT"),
    ],
)
async def test_a_missing_right_is_named(make_administrator, superuser, attributes, owns, told):
    owned = await make_administrator(attributes, owns=owns)
    with pytest.raises(InsufficientPrivilegeError) as caught:
        async with connect(owned.admin) as session:
            await provision.install(session)
    assert caught.value.reason == "InsufficientPrivilege"
    assert told in str(caught.value)
    assert str(owned.admin.endpoint) in str(caught.value)
    assert await superuser.fetchval("select count(*) from pg_roles where rolname ~ '^pgmq_bus_'") == 0


async def test_a_wrong_password_is_an_authentication_failure(make_administrator):
    owned = await make_administrator()
    wrong = AdminConnection(owned.admin.endpoint, owned.admin.username, "wrong")
    with pytest.raises(AuthenticationFailedError, match="Check its user and password"):
        async with connect(wrong):
            pass


async def test_a_second_administrator_of_the_same_database(make_administrator, untouched, superuser):
    """Another administrator takes over what the first installed: 15 lets CREATEROLE do it, 16 wants to be asked."""
    first = await make_administrator()
    async with connect(first.admin) as session:
        await provision.install(session)
        await provision.provision(session, desire(), None)
    second = await make_administrator(database=first.database)
    await superuser.execute(f"alter database {first.database} owner to {second.admin.username}")
    if untouched.version >= 16:
        with pytest.raises(InsufficientPrivilegeError, match="pgmq_bus_owner") as caught:
            async with connect(second.admin) as session:
                await provision.install(session)
        assert "needs the ADMIN OPTION on roles that another administrator made" in str(caught.value)
        roles = await superuser.fetch("select rolname from pg_roles where rolname ~ '^(bus|pgmq_bus)_'")
        names = ", ".join(row[0] for row in roles)
        await superuser.execute(f"grant {names} to {second.admin.username} with admin option")
    async with connect(second.admin) as session:
        await provision.install(session)
        assert (await provision.install(session))[1] == []
        for _ in range(2):
            provisioned = await provision.provision(session, desire(), None)
        assert provisioned.generation == 3
        assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")


async def test_a_second_database_of_the_same_server(make_administrator, untouched, superuser):
    """The group roles are the server's: from 16 on a second administrator needs them granted, or the same role."""
    first, second = await make_administrator(), await make_administrator()
    async with connect(first.admin) as session:
        await provision.install(session)
    if untouched.version >= 16:
        with pytest.raises(InsufficientPrivilegeError, match="pgmq_bus_owner"):
            async with connect(second.admin) as session:
                await provision.install(session)
        await superuser.execute(f"grant pgmq_bus_owner, pgmq_bus_client to {second.admin.username} with admin option")
    async with connect(second.admin) as session:
        await provision.install(session)
        assert (await provision.provision(session, desire(), None)).generation == 1
        assert (await provision.install(session))[1] == []
        assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")


async def test_the_same_administrator_may_own_several_databases(make_administrator, superuser):
    first = await make_administrator()
    await superuser.execute(f"create database {first.database}_2 template template0 owner {first.admin.username}")
    second = AdminConnection(
        postgres.Endpoint(first.admin.endpoint.host, first.admin.endpoint.port, f"{first.database}_2", "disable"),
        first.admin.username,
        first.admin.password,
    )
    for admin in (first.admin, second):
        async with connect(admin) as session:
            await provision.install(session)
            assert (await provision.provision(session, desire(), None)).generation == 1
    async with asyncio.timeout(20):
        for admin in (first.admin, second):
            async with connect(admin) as session:
                assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")


async def install_shards(owned: Owned, count: int) -> shards.Report:
    async with connect(owned.admin) as session:
        return await shards.install(session, owned.admin, count)


async def use_every_shard(owned: Owned, where: shards.Shards) -> None:
    """Everything that is done to a channel, in each shard."""
    for number in range(len(where.usable)):
        name = f"orders-{number}"
        async with shards.placed(where, name) as (shard, session, _):
            assert shard.index == number
            for _ in range(3):
                issued = (await provision.provision(session, desire(channel=name), None)).issued
        shard_admin = Owned(shard.admin.endpoint.database, shard.admin)
        peer = await Peer.join(await use(shard_admin, HeldCredential(issued.username, issued.password)), name)
        await peer.publish(number)
        assert payloads(await peer.read()) == [number]
        peer.session.terminate()
    for number, shard in enumerate(where.usable):
        async with connect(shard.admin) as session:
            assert await provision.deprovision(session, f"orders-{number}", Uid("uid"), "Delete")


async def test_shards_need_createdb(make_administrator, superuser):
    owned = await make_administrator("createrole createdb")
    report = await install_shards(owned, 3)
    assert (report.failure, len(report.shards.usable)) == (None, 3)
    await use_every_shard(owned, report.shards)
    assert (await install_shards(owned, 3)).done == {}
    # Not to keep them.
    await superuser.execute(f"alter role {owned.admin.username} nocreatedb")
    report = await install_shards(owned, 3)
    assert (report.failure, len(report.shards.usable)) == (None, 3)


async def test_without_createdb_the_remedy_is_given_and_what_is_there_is_used(make_administrator, superuser):
    owned = await make_administrator()
    report = await install_shards(owned, 2)
    name, shard = owned.admin.username, f"{owned.database}_bus_1"
    assert report.failure.reason == "ShardMissing"
    remedies = [f'ALTER ROLE "{name}" CREATEDB', f'CREATE DATABASE "{shard}" OWNER "{name}"']
    assert str(report.failure) == (
        f"shard 1 needs the database {shard}, and {name} may not create databases: as a superuser run"
        f" {remedies[0]}; or {remedies[1]};"
    )
    # It cannot hold anything: new channels go to what is there.
    assert not report.shards.unseen
    await use_every_shard(owned, report.shards)
    await superuser.execute(remedies[1])
    report = await install_shards(owned, 2)
    assert (report.failure, len(report.shards.usable)) == (None, 2)
    await use_every_shard(owned, report.shards)
    await superuser.execute(remedies[0])
    assert len((await install_shards(owned, 3)).shards.usable) == 3


@pytest.mark.parametrize("untouched", [18], ids=["pg18"], indirect=True)
async def test_pgmq_comes_from_the_extension_where_the_server_offers_it(make_administrator, untouched, superuser):
    """PostgreSQL 18 finds extensions in a directory that a setting names. SQL and control file are as PGMQ's own."""
    home = untouched.directory / "extensions"
    files = home / "extension"
    files.mkdir(parents=True)
    version = get_embedded_sql_version()
    (files / "pgmq.control").write_text(
        f"default_version = '{version}'\nschema = 'pgmq'\nrelocatable = false\nsuperuser = false\n"
    )
    (files / f"pgmq--{version}.sql").write_text(get_embedded_install_sql())
    owned = await make_administrator()
    await superuser.execute(f"alter database {owned.database} set extension_control_path = '$system:{home}'")
    async with connect(owned.admin) as session:
        observed, done = await provision.install(session)
        assert actions.InstallPgmq(extension=True) in done
        assert observed.pgmq_extension_version == observed.pgmq_version == version
        assert (await provision.install(session))[1] == []
        extension = await session.fetchval("select oid from pg_extension where extname = 'pgmq'")
        assert await session.fetchval("select count(*) from pg_depend where refobjid = $1", extension) > 20

        issued = (await provision.provision(session, desire(), None)).issued
        peer = await Peer.join(await use(owned, HeldCredential(issued.username, issued.password)), "orders")
        await peer.publish("through the extension's queue")
        assert payloads(await peer.read()) == ["through the extension's queue"]
        peer.session.terminate()
        assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")
        assert await session.fetch("select * from pgmq.list_queues()") == []
