"""Two channels in one database, and a login of another database on the same server: what each can do to the other.

Every login of a server can read most of its catalogs, so a channel is safe when nothing there names it, nothing of it
may be touched, and each function refuses a stranger in the same words whether the channel exists or not.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import asyncpg
import postgres
import pytest
from wire import Peer

SECRET_NAME = "confidential-merger-talks"
FUNCTION_SCHEMAS = ["public", "pgmq", "pgmq_bus", "pgmq_bus_v1"]


@dataclass
class Scene:
    """A victim with a peer and messages, and the sessions of those who are not members of it."""

    server: postgres.Server
    victim: Peer
    victim_channel: postgres.Channel
    own: Peer
    stranger: asyncpg.Connection
    foreigner: asyncpg.Connection


@pytest.fixture(scope="module")
def databases(server):
    """One database with two channels, and another database with one."""

    async def build():
        one, two = await postgres.create_database(server), await postgres.create_database(server)
        victim = await one.create_channel(SECRET_NAME)
        return one, two, victim, await one.create_channel("own"), await two.create_channel("elsewhere")

    built = asyncio.run(build())
    yield built
    for created in built[:2]:
        asyncio.run(postgres.drop_database(created))


@pytest.fixture
async def scene(server, databases):
    _, _, victim_channel, own_channel, elsewhere = databases
    victim_session = await victim_channel.connect()
    victim = await Peer.join(victim_session, SECRET_NAME, peer="victim", application="app-of-the-victim")
    await victim.publish({"secret": "offer"})
    await victim.read()
    stranger = await own_channel.connect()
    own = await Peer.join(stranger, "own")
    # The login of another database's channel may connect here: roles belong to the whole server.
    foreigner = await asyncpg.connect(victim_channel.endpoint.uri(elsewhere.username, elsewhere.password))
    yield Scene(server, victim, victim_channel, own, stranger, foreigner)
    for session in (victim_session, stranger, foreigner):
        session.terminate()


@pytest.fixture(params=["stranger", "foreigner"])
def intruder(request, scene: Scene) -> asyncpg.Connection:
    """A login of the same database's other channel, and one of another database's channel."""
    return getattr(scene, request.param)


def full_error(error: asyncpg.PostgresError) -> dict[str, Any]:
    """Everything of an error that reaches a client."""
    return {key: value for key, value in error.as_dict().items() if key not in ("server_source_line",)}


async def refusal(session: asyncpg.Connection, statement: str, *arguments: Any) -> dict[str, Any]:
    """The error that the statement ends with."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.fetch(statement, *arguments)
    return full_error(caught.value)


CALLS = [
    "select public.bus_publish($1, $2, '1')",
    "select * from public.bus_subscribe($2, $1, 1, 1, 0)",
    "select public.bus_archive($2, $1, 1)",
    "select pgmq_bus_v1.publish($1, $2, array['1'::pg_catalog.jsonb])",
    "select * from pgmq_bus_v1.read($1, $2, 0, 1, 30, 10)",
    "select * from pgmq_bus_v1.read($1, $2, null, null, 30, 0)",
]
JOINS = ["select public.bus_join($1)", 'select pgmq_bus_v1.join_channel($1, \'{"peer": "victim"}\')']


async def test_foreign_names_and_queues_are_refused_in_one_voice(scene: Scene, intruder):
    for statement in CALLS:
        await refused_in_one_voice(scene, intruder, statement)


async def refused_in_one_voice(scene: Scene, intruder: asyncpg.Connection, statement: str) -> None:
    unknown = await refusal(intruder, statement, "no-such-channel", "no-such-queue")
    assert unknown["message"] == "bus: access denied"
    assert unknown["sqlstate"] == "42501"
    assert not {"detail", "hint"} & unknown.keys()
    pairs = [
        (SECRET_NAME, scene.victim.queue),
        (SECRET_NAME, "no-such-queue"),
        (SECRET_NAME, scene.own.queue),
        ("own", scene.victim.queue),
        ("no-such-channel", scene.victim.queue),
        (None, None),
    ]
    if intruder is scene.foreigner:
        pairs.append(("own", scene.own.queue))
    for channel, queue in pairs:
        assert await refusal(intruder, statement, channel, queue) == unknown, (statement, channel, queue)


@pytest.mark.parametrize("statement", JOINS)
async def test_joining_tells_nothing(intruder, statement):
    unknown = await refusal(intruder, statement, "no-such-channel")
    assert (unknown["message"], unknown["sqlstate"]) == ("bus: access denied", "42501")
    assert await refusal(intruder, statement, SECRET_NAME) == unknown
    assert await refusal(intruder, statement, None) == unknown


async def test_leaving_tells_and_does_nothing(scene: Scene, intruder):
    for channel, queue in [
        (SECRET_NAME, scene.victim.queue), ("own", scene.victim.queue), (SECRET_NAME, scene.own.queue), ("x", "y"),
    ]:  # fmt: skip
        assert await intruder.fetchval("select pgmq_bus_v1.leave($1, $2)", channel, queue) is False
        await intruder.execute("select public.bus_leave($2, $1)", channel, queue)
    assert await scene.victim.publish("still here")
    assert await scene.own.publish("still here")


async def test_no_relation_can_be_read_or_written(scene: Scene, intruder):
    relations = await intruder.fetch(
        "select n.nspname, c.relname, c.relkind::text as kind from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname = any ($1) and c.relkind in ('r', 'v', 'S', 'm', 'p', 'f')",
        FUNCTION_SCHEMAS,
    )
    assert {"channel", "peer", "login", "membership", "meta"} <= {row["relname"] for row in relations}
    assert sum(row["relname"].startswith("q_bus_") and row["kind"] == "r" for row in relations) == 2
    for row in relations:
        name = f'{row["nspname"]}."{row["relname"]}"'
        statements = [f"select * from {name}", f"select count(*) from {name}"]
        if row["kind"] != "S":
            statements += [f"delete from {name}", f"insert into {name} default values", f"lock table {name}"]
        statements += [f"drop table {name}", f"truncate {name}", f"copy {name} to stdout"]
        for statement in statements:
            if "copy" in statement:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await intruder.copy_from_query(f"select * from {name}", output="/dev/null")
                continue
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.WrongObjectTypeError)):
                async with intruder.transaction():
                    await intruder.execute(statement)


async def test_no_function_can_be_called_but_those_of_the_protocol(intruder):
    functions = await intruder.fetch(
        "select n.nspname, p.proname,"
        " array(select pg_catalog.format_type(t, null) from pg_catalog.unnest(p.proargtypes) as t) as types"
        " from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace"
        " where n.nspname = any ($1)",
        FUNCTION_SCHEMAS,
    )
    assert len([row for row in functions if row["nspname"] == "pgmq"]) > 20
    callable_ones = set()
    for row in functions:
        arguments = ", ".join(f"null::{kind}" for kind in row["types"] if kind != "trigger")
        try:
            await intruder.fetch(f"select * from {row['nspname']}.{row['proname']}({arguments})")
            callable_ones.add(row["proname"])
        except asyncpg.InsufficientPrivilegeError as error:
            if str(error) == "bus: access denied":
                callable_ones.add(row["proname"])
        except (asyncpg.InvalidParameterValueError, asyncpg.NullValueNotAllowedError):
            callable_ones.add(row["proname"])
    wrappers = {"bus_join", "bus_publish", "bus_subscribe", "bus_archive", "bus_leave"}
    assert callable_ones == wrappers | {"join_channel", "publish", "read", "leave"}


async def test_the_other_channel_is_named_nowhere(scene: Scene, intruder):
    """Every row of every relation that the login may read, as text."""
    secrets = [SECRET_NAME, "app-of-the-victim", scene.victim.queue, scene.victim.joined["wake"]]
    public = (
        scene.victim_channel.username
    )  # names of roles are no secret: they show that the search finds what is there
    found = await occurrences(intruder, [*secrets, public])
    assert {relation for relation, text in found if text == public} >= {"pg_catalog.pg_roles"}
    assert {(relation, text) for relation, text in found if text != public} == set()


async def occurrences(session: asyncpg.Connection, texts: list[str]) -> set[tuple[str, str]]:
    """The relations with rows that hold one of the texts. Of pg_stat_activity not the session that searches."""
    await session.execute("set jit = off")  # compiling takes longer than reading
    relations = await session.fetch(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'v', 'm', 'p') and n.nspname not like 'pg_temp%'"
        " and pg_catalog.has_table_privilege(c.oid, 'select')"
    )
    assert len(relations) > 150
    found = set()
    for (name,) in [tuple(row) for row in relations]:
        others = "r.pid <> pg_backend_pid()" if name == "pg_catalog.pg_stat_activity" else "true"
        # "offset 0": each row becomes text once, not once for each text.
        rows_as_text = f"select r::text as content from {name} as r where {others} offset 0"
        matches = f"select distinct t from ({rows_as_text}) as x, unnest($1::text[]) as t where strpos(content, t) > 0"
        try:
            rows = await session.fetch(matches, texts)
        except asyncpg.InsufficientPrivilegeError:  # a view over a function that may not be called
            continue
        found |= {(name, row["t"]) for row in rows}
    return found


async def test_columns_that_may_be_read_without_the_table_name_nothing_either(intruder):
    granted = await intruder.fetch(
        "select a.attrelid::regclass::text from pg_attribute as a where a.attnum > 0 and not a.attisdropped"
        " and has_column_privilege(a.attrelid, a.attnum, 'select') and not has_table_privilege(a.attrelid, 'select')"
    )
    assert {row[0] for row in granted} <= {"pg_subscription"}


async def test_no_other_role_can_be_assumed(scene: Scene, intruder):
    login = scene.victim_channel.username
    channel_role = login.rsplit("_g", 1)[0].replace("login", "channel")
    assert await intruder.fetchval("select to_regrole($1) is not null", channel_role)
    for role in ("pgmq_bus_owner", "postgres", "pg_monitor", login, channel_role):
        for statement in (f"set role {role}", f"set session authorization {role}", f"grant {role} to current_user"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await intruder.execute(statement)


FORBIDDEN = [
    "create schema mine",
    "create table public.t ()",
    "create function public.bus_join(integer) returns text language sql as ''",
    "create table pgmq_bus.t ()",
    "create table pgmq.t ()",
    "create function pgmq_bus_v1.f() returns text language sql as ''",
    "create or replace function public.bus_join(p_channel text) returns text language sql as $$ select 'x' $$",
    "drop function public.bus_join(text)",
    "alter function public.bus_join(text) reset all",
    "alter function public.bus_join(text) security invoker",
    "create role mine",
    "alter role current_user createrole",
    "alter role current_user superuser",
    "alter role current_user connection limit -1",
    "alter role current_user valid until 'infinity'",
    "alter role pgmq_bus_owner set search_path to pg_temp",
    "alter role pgmq_bus_client password 'x'",
    "alter default privileges for role pgmq_bus_owner grant execute on functions to public",
    "alter database {database} set search_path to pg_temp",
    "comment on schema pgmq_bus is 'x'",
    "select pg_catalog.pg_read_file('PG_VERSION')",
    "select pg_catalog.pg_ls_dir('.')",
    "copy (select 1) to program 'true'",
    "select rolpassword from pg_catalog.pg_authid",
    "select subconninfo from pg_catalog.pg_subscription",
    "select pg_catalog.pg_sequence_last_value('pgmq.meta'::pg_catalog.regclass)",
]


async def test_what_a_login_may_not_do(intruder):
    database = await intruder.fetchval("select current_database()")
    outcomes = {}
    for statement in FORBIDDEN:
        try:
            await intruder.execute(statement.format(database=database))
            outcomes[statement] = "done"
        except asyncpg.PostgresError as error:
            outcomes[statement] = error.sqlstate
    assert {statement: code for statement, code in outcomes.items() if code != "42501"} == {}


async def test_another_channels_sessions_cannot_be_ended(scene: Scene, intruder):
    pid = scene.victim.session.get_server_pid()
    for function in ("pg_terminate_backend", "pg_cancel_backend"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await intruder.fetchval(f"select {function}($1)", pid)


SHADOWS = [
    "create temp table peer (queue text, channel text)",
    "create temp table channel (id int, name text, role name, queue text)",
    "create temp table membership (queue text, channel text)",
    "create temp table installation (schema_version int)",
    "create temp table q_own (msg_id bigint, message jsonb)",
    "create function pg_temp.pg_has_role(name, regrole, text) returns boolean language sql as 'select true'",
    "create function pg_temp.to_regrole(text) returns regrole language sql as 'select null::regrole'",
    "create function pg_temp.clock_timestamp() returns timestamptz language sql as 'select now()'",
    "create function pg_temp.lock_channel(integer) returns void language sql as ''",
    "create function pg_temp.eq(text, text) returns boolean language sql as 'select true'",
    "create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.eq)",
    "create function pg_temp.eq(text, name) returns boolean language sql as 'select true'",
    "create operator pg_temp.= (leftarg = text, rightarg = name, function = pg_temp.eq)",
    "create function pg_temp.jsonb_typeof(jsonb) returns text language sql as $$ select 'object' $$",
    "create type pg_temp.text as (a int)",
    "create domain pg_temp.jsonb as pg_catalog.text",
]


@pytest.mark.parametrize(
    "search_path", ["pg_temp, public, pgmq_bus, pgmq_bus_v1, pg_catalog", "pg_temp", "", "pgmq_bus, pgmq"]
)
async def test_temporary_objects_shadow_nothing(scene: Scene, databases, search_path):
    channel = databases[3]
    session = await channel.connect()
    try:
        for statement in (*CALLS, *JOINS):  # before: the driver looks up types by statements of its own
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.fetch(statement, *(["x", "y"] if "$2" in statement else ["x"]))
        for statement in SHADOWS:
            await session.execute(statement)
        await session.execute("select pg_catalog.set_config('search_path', $1, false)", search_path)
        for statement in CALLS:
            denied = await refusal(session, statement, SECRET_NAME, scene.victim.queue)
            assert denied["message"] == "bus: access denied"
        for statement in JOINS:
            assert (await refusal(session, statement, SECRET_NAME))["message"] == "bus: access denied"
        joined = json.loads(await session.fetchval("select pgmq_bus_v1.join_channel('own', null)"))
        assert await session.fetchval("select public.bus_publish('own', $1, '1')", joined["queue"])
        rows = await session.fetch("select * from public.bus_subscribe($1, 'own', 30, 10, 0)", joined["queue"])
        assert [row["message"] for row in rows] == ["1"]
    finally:
        session.terminate()


async def test_a_login_that_is_no_member_any_more_is_refused_at_once(database):
    channel = await database.create_channel()
    peer = await Peer.join(await channel.connect(), channel.name)
    admin = await database.server.connect(database.name)
    role = await admin.fetchval("select role from pgmq_bus.channel")
    await admin.execute(f'revoke "{role}" from "{channel.username}"')
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await peer.read()
    peer.session.terminate()
    await admin.close()
