"""Somebody with a schema of his own, and the right to create in `public` as up to PostgreSQL 14, plants for others.

Everything planted tells on whoever runs it: neither the functions of the bus, nor a client that calls them, nor the
operator may.
"""
# ruff: noqa: E501  tables, with a row a line

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

from bus_operator import catalog, drift_look, isolation, provision
from bus_operator.database import connect
from bus_operator.errors import SpecError
from bus_operator.roles import IssuedCredential

TRAP = "begin insert into planter.caught values (current_user, session_user, '{what}'); {result} end"

FUNCTIONS = [
    # name, arguments, result: those that the functions of the bus, or the statements of clients and operator, name.
    ("pg_has_role", "name, regrole, text", "boolean", "return true;"),
    ("to_regrole", "text", "regrole", "return null;"),
    ("cardinality", "text[]", "integer", "return 1;"),
    ("octet_length", "text", "integer", "return 1;"),
    ("set_config", "text, text, boolean", "text", "return null;"),
    ("current_setting", "text, boolean", "text", "return null;"),
    ("current_setting", "text", "text", "return null;"),
    ("pg_notify", "text, text", "void", "return;"),
    ("clock_timestamp", "", "timestamptz", "return null;"),
    ("jsonb_build_object", "text, bigint", "jsonb", "return null;"),
    ("jsonb_typeof", "jsonb", "text", "return 'object';"),
    ("starts_with", "text, text", "boolean", "return true;"),
    ("format", "text, text", "text", "return 'select 1';"),
    ("replace", "text, text, text", "text", "return 'x';"),
    ("pg_notification_queue_usage", "", "double precision", "return 1;"),
    ("gen_random_uuid", "", "uuid", "return null;"),
    ("lock_channel", "integer", "void", "return;"),
    ("current_database", "", "text", "return 'x';"),
    ("length", "text", "integer", "return 1;"),
    ("now", "", "timestamptz", "return null;"),
]
OPERATORS = [
    ("=", "integer", "integer"), ("=", "text", "text"), ("=", "name", "text"), ("=", "text", "name"), ("=", "bigint", "bigint"),
    (">", "bigint", "bigint"), ("<", "timestamptz", "timestamptz"), ("-", "timestamptz", "interval"), ("||", "text", "text"),
    ("@>", "jsonb", "jsonb"), ("->>", "jsonb", "text"), ("?", "jsonb", "text"), ("=", "oid", "oid"), ("~", "text", "text"),
]  # fmt: skip
RELATIONS = [
    "peer",
    "channel",
    "membership",
    "login",
    "installation",
    "meta",
    "pg_roles",
    "pg_class",
    "pg_proc",
    "pg_authid",
]
TYPES = ["text", "jsonb", "bigint", "integer", "boolean", "name"]


@dataclass
class Field:
    """A database in which somebody has planted."""

    database: postgres.Database
    planter: asyncpg.Connection
    superuser: asyncpg.Connection

    async def caught(self) -> set[tuple[str, str, str]]:
        """Who ran what."""
        return {tuple(row) for row in await self.superuser.fetch("select * from planter.caught")}


@pytest.fixture
async def field(database: postgres.Database) -> AsyncIterator[Field]:
    name, password = f"planter_{secrets.token_hex(4)}", secrets.token_hex(8)
    superuser = await database.server.connect(database.name)
    await superuser.execute(
        f"create role {name} login password '{password}'; create schema planter authorization {name};"
        f" grant create on schema public to {name}"
    )
    planter = await asyncpg.connect(database.server.uri(database.name, name, password))
    try:
        yield Field(database, planter, superuser)
    finally:
        planter.terminate()
        await superuser.execute(f"drop owned by {name} cascade; drop role {name}")
        superuser.terminate()


async def plant(planter: asyncpg.Connection) -> None:
    await planter.execute(
        "create table planter.caught (who text, login text, what text); grant insert on planter.caught to public;"
        " grant usage on schema planter to public"
    )
    for schema in ("public", "planter"):
        for name, arguments, result, answer in FUNCTIONS:
            body = TRAP.format(what=f"{name}({arguments})", result=answer)
            await planter.execute(
                f"create function {schema}.{name}({arguments}) returns {result} language plpgsql as $f$ {body} $f$"
            )
        for number, (name, left, right) in enumerate(OPERATORS):
            body = TRAP.format(what=f"{left} {name} {right}", result="return null;")
            await planter.execute(
                f"create function {schema}.o{number}({left}, {right}) returns boolean language plpgsql as $f$ {body} $f$;"
                f" create operator {schema}.{name} (leftarg = {left}, rightarg = {right}, function = {schema}.o{number})"
            )
        for name in RELATIONS:
            body = TRAP.format(what=f"view {name}", result="return 1;")
            await planter.execute(
                f"create function {schema}.v_{name}() returns integer language plpgsql as $f$ {body} $f$;"
                f" create view {schema}.{name} as select {schema}.v_{name}() as id; grant all on {schema}.{name} to public"
            )
        for name in TYPES:
            await planter.execute(f'create domain {schema}."{name}" as pg_catalog.int4')
    # A cast from a type of its own, which it owns, to what the functions take.
    body = TRAP.format(what="cast", result="return 'victim';")
    await planter.execute(
        f"create type planter.own as (a pg_catalog.int4); create function planter.to_text(planter.own) returns pg_catalog.text"
        f" language plpgsql as $f$ {body} $f$;"
        " create cast (planter.own as pg_catalog.text) with function planter.to_text(planter.own) as implicit"
    )


async def test_nobody_picks_it_up(field: Field):
    """Everything that functions, clients and the operator do, before a client says otherwise."""
    before = await field.database.create_channel("before")
    await plant(field.planter)
    async with connect(field.database.admin) as operator:
        await provision.install(operator)
        await catalog.survey(operator)
        assert await drift_look.look(operator) == []
    after = await field.database.create_channel("after")
    for channel in (before, after):
        session = await channel.connect()
        peer = await Peer.join(session, channel.name, peer="billing", address="10.0.0.1:5000")
        foreign = await Peer.bus_join(session, channel.name)
        await peer.publish(1, 2)
        await foreign.bus_publish(3)
        assert payloads(await peer.read()) == [1, 2, 3]
        rows = await foreign.bus_subscribe()
        assert payloads(rows) == [1, 2, 3]
        assert await foreign.bus_archive(rows[-1].msg_id)
        await peer.wake_by(None, listens=True)
        await peer.fetch_roster()
        await peer.notify()
        await foreign.bus_leave()
        await peer.leave()
        session.terminate()
        async with connect(field.database.admin) as operator:
            subject = await isolation.find_subject(operator, channel.name)
        assert subject is not None
        issued = IssuedCredential(channel.username, channel.password, channel.generation)
        verdict = await isolation.verify(channel.endpoint, issued, subject)
        assert verdict.reason == "Verified"
    assert await field.caught() == set()
    # It does catch whoever looks there first.
    await field.superuser.execute(
        "set search_path = public, pg_catalog; select pg_notify('x', 'y'), 1 = 1::bigint; reset search_path"
    )
    assert {what for _, _, what in await field.caught()} >= {"pg_notify(text, text)"}


async def test_what_a_caller_brings_runs_as_the_caller(field: Field):
    """A cast of a type of its own is carried out before the function begins, with the caller's rights: it gains nothing."""
    channel = await field.database.create_channel("victim")
    await plant(field.planter)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await field.planter.execute("select public.bus_join(row(1)::planter.own)")
    session = await channel.connect()
    await session.execute("select public.bus_join(row(1)::planter.own)")
    session.terminate()
    assert await field.caught() == {(channel.username, channel.username, "cast")}


async def test_an_overload_in_public_is_told_of(field: Field):
    """It takes calls that do not say of which type their arguments are, with their caller's rights: as documented."""
    await field.planter.execute(
        "create function public.bus_leave(name, name) returns pg_catalog.text language sql as $$ select null::text $$"
    )
    async with connect(field.database.admin) as operator:
        (found,) = await drift_look.look(operator)
    assert "function public.bus_leave(name,name): can be called in place of a function of the bus" in str(found)


@pytest.fixture
async def bare(server: postgres.Server) -> AsyncIterator[Field]:
    """A database in which nothing is installed yet, and somebody may make schemas."""
    name, password = f"planter_{secrets.token_hex(4)}", secrets.token_hex(8)
    database = await postgres.create_database(server, "template0")
    superuser = await server.connect(database.name)
    await superuser.execute(f"create role {name} login password '{password}'")
    await superuser.execute(f"grant create on database {database.name} to {name}")
    planter = await asyncpg.connect(server.uri(database.name, name, password))
    await planter.execute(
        "create schema planter; grant usage on schema planter to public;"
        " create table planter.caught (who text, login text, what text); grant insert on planter.caught to public"
    )
    try:
        yield Field(database, planter, superuser)
    finally:
        planter.terminate()
        await superuser.execute(f"drop owned by {name} cascade; drop role {name}")
        superuser.terminate()
        await postgres.drop_database(database)


async def test_a_registry_that_was_planted_before_is_not_looked_into(bare: Field):
    """Where the owner role is there already, of another database of the server."""
    body = TRAP.format(what="installation", result="return 1;")
    await bare.planter.execute(
        f"create function planter.f() returns integer language plpgsql as $f$ {body} $f$; create schema pgmq_bus;"
        " create view pgmq_bus.installation as select planter.f() as schema_version, null::text as functions_fingerprint,"
        " null::text as pgmq_version; grant usage on schema pgmq_bus to public; grant all on pgmq_bus.installation to public"
    )
    assert await bare.superuser.fetchval("select to_regrole('pgmq_bus_owner') is not null")
    async with connect(bare.database.admin) as operator:
        assert await drift_look.look(operator) == []
        with pytest.raises(asyncpg.DuplicateTableError):
            await provision.install(operator)
    assert await bare.caught() == set()
    await installs_without(bare, "pgmq_bus")


async def test_a_pgmq_that_was_planted_before_is_not_used(bare: Field):
    """It would be run as the owner role by an administrator's session, which can become the administrator again."""
    body = TRAP.format(what="create", result="")
    await bare.planter.execute(
        "create schema pgmq; grant usage on schema pgmq to public;"
        " create table pgmq.meta (queue_name text, is_partitioned boolean, is_unlogged boolean, created_at timestamptz);"
        f" create function pgmq.create(text) returns void language plpgsql as $f$ {body} $f$"
    )
    with pytest.raises(SpecError, match=r"belongs to role planter_.*DROP SCHEMA pgmq CASCADE") as caught:
        async with connect(bare.database.admin) as operator:
            await provision.keep(operator)
    assert caught.value.reason == "PublicSchemaWritable"
    await installs_without(bare, "pgmq")


async def installs_without(bare: Field, planted: str):
    """Once the remedy is taken, all works, and nothing of what was planted was run."""
    await bare.superuser.execute(f"drop schema {planted} cascade")
    async with connect(bare.database.admin) as operator:
        await provision.keep(operator)
    assert (await bare.database.create_channel("orders")).username
    assert await bare.caught() == set()


async def test_an_event_trigger_cannot_be_planted(field: Field):
    await field.planter.execute("create function planter.f() returns event_trigger language plpgsql as 'begin end'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await field.planter.execute("create event trigger planted on ddl_command_end execute function planter.f()")
