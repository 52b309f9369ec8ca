"""What the catalog says about who owns what and who may do what: exactly this, and nothing else."""

import asyncpg
import pytest

WRAPPERS = [
    "bus_archive(text,text,bigint)",
    "bus_join(text)",
    "bus_leave(text,text)",
    "bus_publish(text,text,jsonb)",
    "bus_subscribe(text,text,integer,integer,integer)",
]
V1_FUNCTIONS = [
    "pgmq_bus_v1.join_channel(text,jsonb)",
    "pgmq_bus_v1.leave(text,text)",
    "pgmq_bus_v1.notify(text,text)",
    "pgmq_bus_v1.publish(text,text,jsonb[])",
    "pgmq_bus_v1.read(text,text,bigint,bigint,integer,integer)",
    "pgmq_bus_v1.roster(text,text)",
    "pgmq_bus_v1.wake_by(text,text,text,boolean)",
]
ARGUMENTS = {"publish": "text,text[]", "read": "text,bigint,bigint,integer,bigint"}
GENERIC = "n.nspname in ('pgmq_bus', 'pgmq_bus_v1') or (n.nspname = 'public' and p.proname like 'bus\\_%')"
OF_A_CHANNEL = "n.nspname = 'pgmq_bus_channel'"


async def select_functions(admin: asyncpg.Connection, which: str) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await admin.fetch(
        "select case when n.nspname = 'public' then '' else n.nspname || '.' end || p.proname || '(' ||"
        " replace(oidvectortypes(p.proargtypes), ', ', ',') || ')' as signature,"
        " n.nspname, p.proowner::regrole::text as owner, p.prosecdef as definer, p.proconfig as config, p.oid,"
        " array(select a.grantee::regrole::text || ':' || a.privilege_type || ':' || a.is_grantable"
        "       from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a order by 1) as acl"
        f" from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace where {which} order by 1"
    )
    return rows


@pytest.fixture
async def functions(admin):
    rows = await select_functions(admin, GENERIC)
    assert len(rows) > 20
    return rows


@pytest.fixture
async def channels(admin, make_channel):
    """The functions of two channels, and perhaps of others, with each one's role."""
    made = [(await make_channel()).username.removeprefix("bus_login_").removesuffix("_g1") for _ in range(2)]
    rows = await select_functions(admin, OF_A_CHANNEL)
    assert {f"{name}_{token}" for name in ("publish", "read") for token in made} <= {
        row["signature"].split(".")[1].split("(")[0] for row in rows
    }
    return rows


async def test_every_function_belongs_to_the_owner_role_and_pins_its_search_path(functions, channels):
    for row in (*functions, *channels):
        assert row["owner"] == "pgmq_bus_owner", row["signature"]
        assert "search_path=pg_catalog, pg_temp" in row["config"], row["signature"]


async def test_no_function_holds_what_a_setting_of_the_session_changes(admin, functions, channels):
    """With standard_conforming_strings off a backslash in a literal, and with it the function, means something else."""
    for row in (*functions, *channels):
        body = await admin.fetchval("select prosrc from pg_proc where oid = $1", row["oid"])
        assert "\\" not in body, row["signature"]


async def test_each_channels_functions_are_its_roles_alone(admin, channels):
    queues = {row[0] for row in await admin.fetch("select queue from pgmq_bus.channel")}
    for row in channels:
        name, token = row["signature"].removeprefix("pgmq_bus_channel.").split("(")[0].split("_")
        assert row["signature"] == f"pgmq_bus_channel.{name}_{token}({ARGUMENTS[name]})"
        assert f"bus_{token}" in queues
        assert row["definer"] is True
        assert row["acl"] == [f"bus_channel_{token}:EXECUTE:false", "pgmq_bus_owner:EXECUTE:false"]


async def test_only_the_protocols_functions_are_security_definer(functions):
    assert [row["signature"] for row in functions if row["definer"]] == WRAPPERS + V1_FUNCTIONS


async def test_clients_may_execute_those_and_nobody_anything_else(functions):
    for row in functions:
        expected = ["pgmq_bus_owner:EXECUTE:false"]
        if row["definer"]:
            expected.insert(0, "pgmq_bus_client:EXECUTE:false")
        assert row["acl"] == expected, row["signature"]


async def test_the_schemas_are_closed(admin):
    rows = await admin.fetch(
        "select n.nspname, n.nspowner::regrole::text as owner,"
        " array(select a.grantee::regrole::text || ':' || a.privilege_type from aclexplode(n.nspacl) as a order by 1)"
        " as acl from pg_namespace as n where n.nspname like 'pgmq\\_bus%' order by 1"
    )
    owner = ["pgmq_bus_owner:CREATE", "pgmq_bus_owner:USAGE"]
    assert [tuple(row) for row in rows] == [
        ("pgmq_bus", "pgmq_bus_owner", owner),
        ("pgmq_bus_channel", "pgmq_bus_owner", ["pgmq_bus_client:USAGE", *owner]),
        ("pgmq_bus_v1", "pgmq_bus_owner", ["pgmq_bus_client:USAGE", *owner]),
    ]
    may_create = "select pg_catalog.has_schema_privilege('pgmq_bus_owner', 'public', 'CREATE')"
    assert await admin.fetchval(may_create) is False


async def test_the_registry_belongs_to_the_owner_role_alone(admin):
    rows = await admin.fetch(
        "select c.relname, c.relowner::regrole::text as owner,"
        " array(select distinct a.grantee::regrole::text from aclexplode(c.relacl) as a) as grantees,"
        " exists (select from pg_attribute as a where a.attrelid = c.oid and a.attacl is not null) as column_grants"
        " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname = 'pgmq_bus' and c.relkind in ('r', 'v', 'S')"
    )
    assert {r["relname"] for r in rows} == {
        "channel", "channel_alive", "channel_gate", "channel_id_seq", "channel_state", "installation", "login",
        "membership", "peer", "peer_id_seq",
    }  # fmt: skip
    for row in rows:
        assert row["owner"] == "pgmq_bus_owner"
        assert set(row["grantees"]) <= {"pgmq_bus_owner"}, row["relname"]
        assert row["column_grants"] is False


async def test_the_logs_belong_to_the_owner_role_alone(admin, make_channel):
    await make_channel()
    rows = await admin.fetch(
        "select c.relname, c.relowner::regrole::text as owner,"
        " array(select distinct a.grantee::regrole::text from aclexplode(c.relacl) as a) as grantees"
        " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname = 'pgmq' and c.relname ~ '^[qa]_bus_' and c.relkind in ('r', 'S')"
    )
    assert len(rows) >= 3
    for row in rows:
        assert row["owner"] == "pgmq_bus_owner"
        assert set(row["grantees"]) <= {"pgmq_bus_owner"}, row["relname"]


async def test_what_the_owner_role_creates_later_is_closed_too(admin):
    defaults = await admin.fetch(
        "select d.defaclobjtype::text as kind, d.defaclacl::text as acl from pg_default_acl as d"
        " where d.defaclrole = 'pgmq_bus_owner'::regrole"
    )
    assert [tuple(row) for row in defaults] == [("f", "{pgmq_bus_owner=X/pgmq_bus_owner}")]
    # Nor does anybody else's default hand our schemas out.
    others = await admin.fetchval(
        "select count(*) from pg_default_acl as d join pg_namespace as n on n.oid = d.defaclnamespace"
        " where n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel', 'public')"
    )
    assert others == 0


async def test_the_group_roles_cannot_do_anything_by_themselves(admin):
    rows = await admin.fetch(
        "select rolname, rolcanlogin or rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls"
        " from pg_roles where rolname in ('pgmq_bus_owner', 'pgmq_bus_client') or rolname like 'bus\\_channel\\_%'"
    )
    assert len(rows) >= 2
    assert {row[1] for row in rows} == {False}


async def test_everything_that_names_a_client_role_is_known(admin):
    """All of this database's and the server's objects whose privileges mention pgmq_bus_client."""
    rows = await admin.fetch(
        "select distinct d.classid::regclass::text from pg_shdepend as d"
        " where d.refobjid = 'pgmq_bus_client'::regrole and d.refclassid = 'pg_authid'::regclass"
        " and d.dbid in (0, (select oid from pg_database where datname = current_database())) order by 1"
    )
    # Functions, schemas and the membership of channel roles; pg_auth_members appears there from 16 on.
    assert {row[0] for row in rows} <= {"pg_proc", "pg_namespace", "pg_auth_members", "pg_database"}


async def test_a_login_has_no_privilege_it_does_not_need(make_channel, connect, admin):
    channel = await make_channel(limits={"maxConnections": 7})
    row = await admin.fetchrow(
        "select rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,"
        " rolconnlimit, rolvaliduntil from pg_roles where rolname = $1",
        channel.username,
    )
    assert tuple(row) == (False, True, False, False, True, False, False, 8, None)
    memberships = await admin.fetch(
        "with recursive m as (select roleid, admin_option from pg_auth_members where member = to_regrole($1)"
        " union select a.roleid, a.admin_option from pg_auth_members as a join m on a.member = m.roleid)"
        " select roleid::regrole::text as role, admin_option from m order by 1",
        channel.username,
    )
    role = channel.username.rsplit("_g", 1)[0].replace("login", "channel")
    assert [tuple(row) for row in memberships] == [(role, False), ("pgmq_bus_client", False)]
