"""Installing, installing again, migrating, and putting right what somebody changed."""

import asyncio

import asyncpg
import postgres
import pytest
from pgmq.install import get_embedded_install_sql
from structure import structure
from wire import Peer, payloads

from bus_operator import actions, catalog, plan, provision, render, sql
from bus_operator.errors import SpecError

CATALOG_ROWS = """
select 'role ' || rolname as object, xmin::text from pg_authid where rolname like 'pgmq\\_bus%'
union all select 'schema ' || nspname, xmin::text from pg_namespace where nspname !~ '^pg_(temp|toast)'
union all select 'relation ' || oid, xmin::text from pg_class where relnamespace::regnamespace::text ~ 'pgmq'
union all select 'function ' || oid, xmin::text from pg_proc where pronamespace::regnamespace::text ~ 'pgmq|public'
union all select 'database', xmin::text from pg_database where datname = current_database()
union all select 'default privilege', xmin::text from pg_default_acl
union all select 'installation', xmin::text from pgmq_bus.installation
order by 1, 2
"""


@pytest.fixture
async def session(database: postgres.Database):
    """The operator's session in a database of its own."""
    async with database.session() as connection:
        yield connection


@pytest.fixture
async def bare(server: postgres.Server):
    """A database in which nothing is installed."""
    created = await postgres.create_database(server, "template0")
    yield created
    await postgres.drop_database(created)


async def test_installing_twice_changes_nothing(bare: postgres.Database):
    async with bare.session() as session:
        observed, done = await provision.install(session)
        assert any(isinstance(action, actions.InstallSchema) for action in done)
        assert observed.schema_version == sql.schema_version()
        before = await session.fetch(CATALOG_ROWS)
        assert len(before) > 40
        again, done = await provision.install(session)
        assert done == []
        assert again == observed
        assert await session.fetch(CATALOG_ROWS) == before


async def install_version_1(session: asyncpg.Connection) -> None:
    """What the first version's installer left: its tables, and no functions that anybody could still need."""
    await session.execute(get_embedded_install_sql())
    async with session.transaction():
        for statement in (*render.create_schemas(), *render.grant_pgmq(), render.set_local_role("pgmq_bus_owner")):
            await session.execute(statement)
        version, migration = sql.migrations()[0]
        assert version == 1
        await session.execute(migration)
        await session.execute("insert into pgmq_bus.installation (schema_version) values (1)")


async def test_a_migrated_schema_is_a_fresh_one(bare: postgres.Database, session: asyncpg.Connection):
    async with bare.session() as old:
        await install_version_1(old)
        _, done = await provision.install(old)
        assert actions.MigrateSchema(1, sql.schema_version()) in done
        migrated, fresh = await structure(old), await structure(session)
    for part, expected in fresh.items():
        assert len(expected) >= 1, part
        assert migrated[part] == expected, part


async def test_data_survives_a_migration(bare: postgres.Database):
    async with bare.session() as session:
        await install_version_1(session)
        await session.execute(
            """
            create role bus_channel_0123456789ab_old nologin;
            grant pgmq_bus_client to bus_channel_0123456789ab_old;
            set role pgmq_bus_owner;
            select pgmq.create('bus_old');
            insert into pgmq_bus.channel (
                name, queue, role, wake, owner_uid, owner_reference, durability, self_delivery,
                max_peers, max_message_bytes, max_connections, peer_timeout
            )
            values (
                'orders', 'bus_old', 'bus_channel_0123456789ab_old', 'w', 'uid-orders', 'test/test', 'Sync', true,
                9, 2048, 9, '5 minutes'
            );
            insert into pgmq_bus.channel_state (channel_id) select id from pgmq_bus.channel;
            insert into pgmq_bus.peer (queue, channel_id, login, acknowledged, delivered, position)
            select 'oldqueue', id, 'someone', 1, 1, 1 from pgmq_bus.channel;
            insert into pgmq.q_bus_old (vt, message) select now(), to_jsonb(n) from generate_series(1, 3) as n;
            reset role
            """
        )
        try:
            await provision.install(session)
            channel = await bare.create_channel("orders")
            peer = Peer(await channel.connect(), "orders", "oldqueue", {"token": "old"}, after=1)
            assert payloads(await peer.read()) == [2, 3]
            await peer.publish("new")
            assert payloads(await peer.bus_subscribe()) == [2, 3, "new"]
            peer.session.terminate()
        finally:
            await provision.deprovision(session, "orders", "uid-orders", "Delete")
    assert await session_of(bare, "select count(*) from pg_roles where rolname ~ '_old$'") == 0


async def session_of(database: postgres.Database, query: str):
    async with database.session() as session:
        return await session.fetchval(query)


TAMPERING = {
    "functions replaced": [
        "create or replace function public.bus_join(p_channel text) returns text language sql as $$ select 'x' $$",
        "alter function pgmq_bus_v1.join_channel reset search_path",
        "alter function public.bus_archive security invoker",
        "create function pgmq_bus_v1.extra() returns text language sql security definer as $$ select 'x' $$",
    ],
    "functions dropped": [
        "drop function pgmq_bus_v1.roster",
        "drop function pgmq_bus.trim",
        "drop function public.bus_leave",
        "create function public.bus_leave(other text, names text) returns integer language sql as 'select 1'",
    ],
    "functions of another owner": [
        "alter function public.bus_archive owner to postgres",
        "alter function pgmq_bus.append owner to postgres",
        "drop function public.bus_join",
        "create function public.bus_join(p_channel text) returns text language sql as $$ select 'x' $$",
    ],
    "privileges granted": [
        "grant execute on function pgmq_bus.append to public",
        "grant execute on function pgmq_bus_v1.roster to public",
        "grant usage on schema pgmq_bus to public",
        "grant create on schema pgmq_bus_v1 to pgmq_bus_client",
        "grant select on pgmq_bus.peer to public",
        "grant update (acknowledged) on pgmq_bus.peer to pgmq_bus_client",
        "grant usage on sequence pgmq_bus.channel_id_seq to pgmq_bus_client",
    ],
    "a column granted": ["grant select (wake) on pgmq_bus.channel to public"],
    "privileges revoked": [
        "revoke execute on function public.bus_leave from pgmq_bus_client",
        "revoke usage on schema pgmq_bus_v1 from pgmq_bus_client",
    ],
    "a schema dropped": ["drop schema pgmq_bus_v1 cascade"],
    "a schema of another owner": [
        "alter schema pgmq_bus_v1 owner to postgres",
        "alter schema pgmq_bus_channel owner to postgres",
    ],
    "the channels' schema opened": [
        "grant create on schema pgmq_bus_channel to pgmq_bus_client",
        "revoke usage on schema pgmq_bus_channel from pgmq_bus_client",
    ],
}


@pytest.mark.parametrize("tampering", TAMPERING.values(), ids=TAMPERING)
async def test_what_was_changed_by_hand_is_put_right(shared: postgres.Database, admin: asyncpg.Connection, tampering):
    async with shared.session() as session:
        expected = before = await structure(session)
        for statement in tampering:
            await admin.execute(statement)
            after = await structure(session)
            assert after != before, statement
            before = after
        _, done = await provision.install(session)
        assert done
        assert await structure(session) == expected
        assert (await provision.install(session))[1] == []


async def test_a_channel_works_on_after_its_functions_were_put_right(database, session: asyncpg.Connection):
    channel = await database.create_channel()
    peer = await Peer.join(await channel.connect(), channel.name)
    await peer.bus_publish(1)
    await session.execute(
        "drop schema pgmq_bus_v1 cascade; drop function public.bus_join; drop function pgmq_bus.append"
    )
    assert (await provision.install(session))[1]
    await peer.bus_publish(2)
    assert payloads(await peer.read()) == [1, 2]
    peer.session.terminate()


async def test_clients_get_in_where_the_database_is_closed_to_public(database, session: asyncpg.Connection):
    await session.execute(f"revoke connect on database {database.name} from public")
    channel = await database.create_channel()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await channel.connect()
    _, done = await provision.install(session)
    assert done == [actions.GrantConnect()]
    await (await channel.connect()).close()


@pytest.mark.parametrize("schema", ["public", "pgmq"])
async def test_a_schema_that_everybody_may_write_is_refused(session: asyncpg.Connection, schema):
    await session.execute(f"grant create on schema {schema} to public")
    with pytest.raises(SpecError, match=r"REVOKE CREATE ON SCHEMA public FROM PUBLIC") as caught:
        await provision.install(session)
    assert caught.value.reason == "PublicSchemaWritable"


async def test_a_newer_schema_is_left_alone(session: asyncpg.Connection):
    await session.execute("update pgmq_bus.installation set schema_version = schema_version + 1")
    with pytest.raises(SpecError, match="upgrade the operator") as caught:
        await provision.install(session)
    assert caught.value.reason == "SchemaTooNew"


async def test_another_operators_functions_are_replaced(session: asyncpg.Connection):
    observed = await catalog.observe_database(session)
    assert plan.plan_installation(observed, sql.schema_version(), sql.functions_digest()) == []
    assert plan.plan_installation(observed, sql.schema_version(), "other") == [
        actions.InstallFunctions(sql.schema_version(), in_place=True)
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("language plpgsql", "cost 1000\nlanguage plpgsql"),
        ("p_address", "p_where"),
        ("p_listens boolean)", "p_listens boolean, p_more integer default null)"),
        ("returns bigint", "returns numeric"),
    ],
)
async def test_another_version_of_a_function(session: asyncpg.Connection, monkeypatch, old: str, new: str):
    """Whether it can be replaced or not, nothing of the other version stays."""
    expected = await structure(session)
    functions = sql.functions()
    changed = tuple(text.replace(old, new) if "function pgmq_bus_v1.wake_by" in text else text for text in functions)
    assert changed != functions
    monkeypatch.setattr(sql, "functions", lambda: changed)
    done = [actions.InstallFunctions(sql.schema_version(), in_place=True)]
    assert (await provision.install(session))[1] == done
    assert await structure(session) != expected
    assert (await provision.install(session))[1] == []
    monkeypatch.undo()
    assert (await provision.install(session))[1] == done
    assert await structure(session) == expected


async def test_a_function_that_is_no_longer_shipped(session: asyncpg.Connection, monkeypatch):
    expected = await structure(session)
    more = "create or replace function pgmq_bus.more() returns void language sql set search_path = '' as 'select 1'"
    functions = (*sql.functions(), more)
    monkeypatch.setattr(sql, "functions", lambda: functions)
    await provision.install(session)
    assert await structure(session) != expected
    monkeypatch.undo()
    await provision.install(session)
    assert await structure(session) == expected


async def test_clients_do_not_notice_that_functions_are_replaced(database: postgres.Database, monkeypatch):
    channel = await database.create_channel()
    functions = sql.functions()
    done = asyncio.Event()

    async def publish_and_read() -> None:
        peer = await Peer.join(await channel.connect(), channel.name)
        while not done.is_set():
            await peer.publish("message")
            await peer.read(limit=10)
        peer.session.terminate()

    async def publish_and_poll() -> None:
        peer = await Peer.bus_join(await channel.connect(), channel.name)
        while not done.is_set():
            await peer.bus_publish("message")
            rows = await peer.bus_subscribe(seconds=1)
            await peer.bus_archive(rows[-1].msg_id)
        peer.session.terminate()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(publish_and_read())
            group.create_task(publish_and_poll())
        for number in range(15):
            changed = tuple(f"{text}\n-- {number}" for text in functions)
            monkeypatch.setattr(sql, "functions", lambda changed=changed: changed)
            async with database.session() as session:
                assert (await provision.install(session))[1]
        done.set()


async def test_a_failed_installation_leaves_nothing(bare: postgres.Database, monkeypatch):
    monkeypatch.setattr(sql, "functions", lambda: ("select 1", "select no_such_function()"))
    async with bare.session() as session:
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await provision.install(session)
        assert await session.fetchval("select to_regnamespace('pgmq_bus')") is None
        assert await session.fetchval("select to_regnamespace('pgmq')") is None
        monkeypatch.undo()
        await provision.install(session)
        assert (await provision.install(session))[1] == []
