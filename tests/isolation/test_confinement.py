"""What a login finds that is not its own: it can read nothing of it, change nothing, and stand in for nothing."""

import base64
import json

import asyncpg
import pytest
from intruders import CALLS, JOINS, OWN_CALLS, SECRET_NAME, Scene, former_queue, refusal

FUNCTION_SCHEMAS = ["public", "pgmq", "pgmq_bus", "pgmq_bus_v1", "pgmq_bus_channel"]


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


async def test_no_function_can_be_called_but_those_of_the_protocol(scene: Scene, intruder):
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
    token = scene.own.joined["token"]
    its_own = {f"publish_{token}", f"read_{token}"} if intruder is scene.stranger else set()
    assert len([row for row in functions if row["nspname"] == "pgmq_bus_channel"]) == 4
    v1_functions = {"join_channel", "leave", "notify", "publish", "read", "roster", "wake_by"}
    assert callable_ones == wrappers | v1_functions | its_own


async def test_the_other_channel_is_named_nowhere(scene: Scene, intruder):
    """Every row of every relation that the login may read, as text."""
    key = (await scene.victim.fetch_roster())["key"]
    secrets = [
        SECRET_NAME, "app-of-the-victim", scene.victim.queue, await former_queue(scene), scene.victim.joined["wake"],
        "10.99.98.97", key, base64.b64decode(key).hex(),
    ]  # fmt: skip
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


async def test_a_member_cannot_hand_on_what_it_may_execute(scene: Scene):
    function = f"pgmq_bus_channel.publish_{scene.own.joined['token']}(text, text[])"
    await scene.stranger.execute(f"grant execute on function {function} to public")  # only warns
    assert await scene.foreigner.fetchval("select has_function_privilege($1, 'execute')", function) is False


SHADOWS = [
    "create temp table peer (queue text, channel text)",
    "create temp table channel (id int, name text, role name, queue text)",
    "create temp table membership (queue text, channel text)",
    "create temp table installation (schema_version int)",
    "create temp table q_own (msg_id bigint, message jsonb)",
    "create temp table q_bus_{token} (msg_id bigint, message jsonb)",
    "create temp table channel_state (channel_id int, trimmed bigint)",
    "create temp table channel_alive (channel_id int)",
    "create temp sequence q_bus_{token}_msg_id_seq start 1000",
    "create function pg_temp.cardinality(text[]) returns integer language sql as 'select 1'",
    "create function pg_temp.octet_length(text) returns integer language sql as 'select 1'",
    "create function pg_temp.set_config(text, text, boolean) returns text language sql as 'select null::text'",
    "create function pg_temp.current_setting(text, boolean) returns text language sql as $$ select 'yes' $$",
    "create function pg_temp.pg_notify(text, text) returns void language sql as ''",
    "create function pg_temp.jsonb_build_object(text, bigint) returns jsonb language sql as 'select null::jsonb'",
    "create function pg_temp.eq(integer, integer) returns boolean language sql as 'select true'",
    "create operator pg_temp.= (leftarg = integer, rightarg = integer, function = pg_temp.eq)",
    "create function pg_temp.contains(jsonb, jsonb) returns boolean language sql as 'select false'",
    "create operator pg_temp.@> (leftarg = jsonb, rightarg = jsonb, function = pg_temp.contains)",
    "create type pg_temp.bigint as (a int)",
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
        token = scene.own.joined["token"]
        own_calls = [call.format(token=token) for call in OWN_CALLS]
        for statement in (*CALLS, *JOINS, *own_calls):  # before: the driver looks up types by statements of its own
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.fetch(statement, *(["x", "y"] if "$2" in statement else ["x"]))
        for statement in SHADOWS:
            await session.execute(statement.format(token=token))
        await session.execute("select pg_catalog.set_config('search_path', $1, false)", search_path)
        for statement in CALLS:
            denied = await refusal(session, statement, SECRET_NAME, scene.victim.queue)
            assert denied["message"] == "bus: access denied"
        for statement in own_calls:
            assert (await refusal(session, statement, scene.victim.queue))["message"] == "bus: access denied"
        for statement in JOINS:
            assert (await refusal(session, statement, SECRET_NAME))["message"] == "bus: access denied"
        joined = json.loads(await session.fetchval("select pgmq_bus_v1.join_channel('own', null)"))
        assert await session.fetchval("select public.bus_publish('own', $1, '1')", joined["queue"])
        publish = f"select ids from pgmq_bus_channel.publish_{joined['token']}($1, $2)"
        assert len(await session.fetchval(publish, joined["queue"], ["2", "3"])) == 2
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await session.fetch(publish, joined["queue"], ['"' + "x" * 2_000_000 + '"'])
        rows = await session.fetch("select * from public.bus_subscribe($1, 'own', 30, 10, 0)", joined["queue"])
        assert [row["message"] for row in rows] == ["1", "2", "3"]
        read = (
            f"select message from pgmq_bus_channel.read_{joined['token']}($1, $2, null, 10, 0) where msg_id is not null"
        )
        rows = await session.fetch(read, joined["queue"], joined["position"])
        assert [row["message"] for row in rows] == ["1", "2", "3"]
    finally:
        session.terminate()
