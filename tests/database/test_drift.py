"""What somebody changes by hand is found, named, and put right where it is ours; else nothing is found."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import postgres
import pytest
from tamperings import STRANGE, TAMPERINGS
from wire import Peer, payloads

from bus_operator import drift_look, provision, sql
from bus_operator.database import connect
from bus_operator.drift import Repair
from bus_operator.drift_look import ALL_FUNCTIONS
from bus_operator.model import Uid


@dataclass(frozen=True)
class Tampered:
    """A database with two channels, of which `orders` is tampered with."""

    database: postgres.Database
    orders: postgres.Channel

    @property
    def names(self) -> dict[str, str]:
        token = self.orders.username.removeprefix("bus_login_").removesuffix("_g1")
        return {
            "login": self.orders.username,
            "token": token,
            "role": f"bus_channel_{token}",
            "log": f"pgmq.q_bus_{token}",
            "archive": f"pgmq.a_bus_{token}",
            "database": self.database.name,
            "roster": next(text for text in sql.functions() if "function pgmq_bus_v1.roster(" in text).split("$$")[1],
        }


@pytest.fixture(scope="module")
def tampered(server: postgres.Server) -> Iterator[Tampered]:
    async def build() -> Tampered:
        database = await postgres.create_database(server)
        superuser = await server.connect(database.name)
        await superuser.execute("create role stranger; create schema strange; create table strange.things (a int)")
        await superuser.close()
        await database.create_channel("audit")
        return Tampered(database, await database.create_channel("orders"))

    built = asyncio.run(build())
    yield built

    async def clean() -> None:
        superuser = await server.connect(built.database.name)
        await superuser.execute("drop owned by stranger cascade; drop role stranger")
        await superuser.close()
        await postgres.drop_database(built.database)

    asyncio.run(clean())


@pytest.fixture
async def superuser(tampered: Tampered) -> AsyncIterator[asyncpg.Connection]:
    session = await tampered.database.server.connect(tampered.database.name)
    yield session
    await session.close()


@pytest.mark.parametrize(("tampering", "difference"), TAMPERINGS, ids=[case[0][:70] for case in TAMPERINGS])
async def test_what_was_changed_is_named_and_put_right(
    tampered: Tampered, superuser: asyncpg.Connection, tampering: str, difference: str
) -> None:
    await superuser.execute(tampering.format(**tampered.names))
    async with tampered.database.session() as session:
        _, _, report = await provision.keep(session)
        assert difference.format(**tampered.names) in "\n".join(map(str, report.repaired))
        assert report.remaining == ()
    peer = await Peer.join(await tampered.orders.connect(), "orders")
    await peer.publish(1)
    assert payloads(await peer.read()) == [1]
    await peer.session.close()


@pytest.mark.parametrize(
    ("planted", "difference", "remedy", "removal"), STRANGE, ids=[case[0][:40] for case in STRANGE]
)
async def test_what_is_somebody_elses_is_named_and_left(
    tampered: Tampered, superuser: asyncpg.Connection, planted: str, difference: str, remedy: str, removal: str
) -> None:
    await superuser.execute(planted)
    try:
        async with tampered.database.session() as session:
            for attempt in range(2):
                _, done, report = await provision.keep(session)
                assert attempt == 0 or done == []
                assert report.repaired == ()
                assert difference in [str(item) for item in report.remaining]
                assert f"(run: {remedy})" in "\n".join(item.remedy for item in report.remaining)
    finally:
        await superuser.execute(removal)
    async with tampered.database.session() as session:
        assert await drift_look.look(session) == []


async def test_what_a_login_sets_for_itself_is_told_of_shortly(tampered: Tampered) -> None:
    """It can be of any length, and the operator has little memory."""
    session = await tampered.orders.connect()
    await session.execute(
        "do $$ begin execute format('alter role current_user set application_name = %L',"
        " E'x\\nERROR forged' || repeat('y', 20000000)); end $$"
    )
    session.terminate()
    async with tampered.database.session() as admin:
        (found,) = await drift_look.look(admin)
        assert len(found.problem) < 1000
        assert "\n" not in found.problem
        assert not (await provision.keep(admin))[2].remaining
        assert await drift_look.look(admin) == []


SHARED = [
    "alter default privileges grant select on tables to {login}",
    "set role pgmq_bus_client; alter default privileges grant usage on types to {role}",
    "select lo_create(4711); grant select on large object 4711 to {login}",
    "create temp table t (a int); grant select on t to {role}",
    "create function pg_temp.f() returns void language sql as ''; grant execute on function pg_temp.f to {login}",
]


@pytest.mark.parametrize("statement", SHARED)
async def test_what_a_client_shares_of_its_own_is_nobodys_drift(tampered: Tampered, statement: str) -> None:
    """Else any client could have any BusDatabase say that somebody has to look."""
    other = await tampered.database.create_channel("sharing")
    session = await other.connect()
    await session.execute(statement.format(**tampered.names))
    async with tampered.database.session() as admin:
        assert await drift_look.look(admin) == []
        session.terminate()
        await provision.deprovision(admin, "sharing", Uid("uid-sharing"), "Delete")
        # What was made as the group stays.
        await admin.execute(
            "alter default privileges for role pgmq_bus_client revoke usage on types from {role}".format(
                **tampered.names
            )
        )


async def test_a_lost_login_is_left_to_the_channel(tampered: Tampered, superuser: asyncpg.Connection) -> None:
    """Its new password has to reach the binding."""
    other = await tampered.database.create_channel("lost")
    await superuser.execute(f"drop owned by {other.username}; drop role {other.username}")
    async with tampered.database.session() as session:
        (found,) = await drift_look.look(session)
        assert (found.channel, str(found)) == ("lost", f"role {other.username}: is missing")
        assert found.repair is Repair.CREDENTIAL
        await provision.deprovision(session, "lost", "uid-lost", "Delete")
        assert await drift_look.look(session) == []


async def test_one_channels_drift_alone(tampered: Tampered, superuser: asyncpg.Connection) -> None:
    names = tampered.names
    await superuser.execute(f"grant select on {names['log']} to stranger; grant usage on schema pgmq_bus to stranger")
    async with tampered.database.session() as session:
        ids = {row["name"]: row["id"] for row in await session.fetch("select id, name from pgmq_bus.channel")}
        (found,) = await drift_look.look(session, ids["orders"])
        assert (found.channel, str(found)) == ("orders", f"table {names['log']}: SELECT granted to stranger")
        assert await drift_look.look(session, ids["audit"]) == []
        await provision.keep(session)


async def test_a_channels_drift_hides_none_of_the_shared_functions(
    tampered: Tampered, superuser: asyncpg.Connection
) -> None:
    (renamed,) = (tampering for tampering, difference in TAMPERINGS if difference.startswith(ALL_FUNCTIONS))
    await superuser.execute(f"{renamed}; drop function pgmq_bus_channel.publish_{{token}}".format(**tampered.names))
    async with tampered.database.session() as session:
        _, _, report = await provision.keep(session)
        assert [(item.channel, item.problem) for item in report.repaired] == [
            ("orders", "is missing"),
            (None, "were changed"),
        ]
        assert report.remaining == ()


async def test_where_nothing_was_changed_the_fingerprint_is_taken_once(tampered: Tampered) -> None:
    statements: Counter[str] = Counter()
    async with tampered.database.session() as session:
        with session.query_logger(lambda record: statements.update([record.query])):
            _, done, report = await provision.keep(session)
    assert (done, bool(report)) == ([], False)
    assert statements[sql.query("functions_fingerprint")] == 1


async def test_a_damaged_registry_is_named(tampered: Tampered, server: postgres.Server) -> None:
    database = await postgres.create_database(server)
    try:
        async with database.session() as session:
            await session.execute("drop table pgmq_bus.channel_gate")
            found = [str(item) for item in await drift_look.look(session)]
            assert "table pgmq_bus.channel_gate: is missing" in found
    finally:
        await postgres.drop_database(database)


async def test_another_operators_functions_are_no_drift(database: postgres.Database, monkeypatch) -> None:
    """Those of an older version, until they are replaced."""
    await database.create_channel()
    shared, own = sql.functions(), sql.channel_functions()
    monkeypatch.setattr(sql, "functions", lambda: tuple(text.replace("begin", "begin -- new") for text in shared))
    monkeypatch.setattr(sql, "channel_functions", lambda: tuple(text.replace("begin", "begin -- new") for text in own))
    async with database.session() as session:
        assert await drift_look.look(session) == []
        _, done, report = await provision.keep(session)
        assert done
        assert not report
        assert await drift_look.look(session) == []


async def test_the_structure_is_as_it_is_written_down(database: postgres.Database) -> None:
    """After a migration: REWRITE_STRUCTURE=1 pytest tests/database/test_drift.py -k written_down."""
    async with database.session() as session:
        lines = [row["line"] for row in await session.fetch(sql.query("structure"))]
    if os.environ.get("REWRITE_STRUCTURE"):
        (Path(sql.__file__).parent / "structure.txt").write_text("\n".join(lines) + "\n")
    else:
        assert tuple(lines) == sql.structure(), "see this test's docstring"


async def test_an_administrator_who_is_no_superuser(server: postgres.Server) -> None:
    """He sees nothing where nothing is, repairs what his rights allow, and is told what a superuser has to run."""
    superuser = await server.connect()
    version = server.version
    name = f"keeper_{version}"
    await superuser.execute(f"create role {name} login createrole inherit password 'secret'")
    # On this server somebody else has made the roles of the server.
    await superuser.execute(f"grant pgmq_bus_owner, pgmq_bus_client to {name} with admin option")
    await superuser.execute(f"create database {name} owner {name} template template0")
    admin = server.admin(name, name, "secret")
    database = postgres.Database(server, name)
    try:
        async with connect(admin) as session:
            assert not (await provision.keep(session))[2]
            channel = await _provide(session)
            assert await drift_look.look(session) == []
            elevated = await server.connect(name)
            await elevated.execute(
                f"alter role {channel} createdb superuser; grant select on pgmq_bus.peer to {channel}"
            )
            _, _, report = await provision.keep(session)
            # Of a superuser he may change nothing at all.
            expected = {f"role {channel}: has SUPERUSER", f"role {channel}: has CREATEDB"}
            assert {str(item) for item in report.remaining} == expected
            assert "table pgmq_bus.peer: SELECT granted to" in str(report.repaired[-1])
            for item in report.remaining:
                await elevated.execute(item.statement)
            await elevated.close()
            assert await drift_look.look(session) == []
            await provision.deprovision(session, "orders", "uid", "Delete")
    finally:
        await postgres.drop_database(database)
        await superuser.execute(f"drop owned by {name} cascade; drop role {name}")
        await superuser.close()


async def _provide(session: asyncpg.Connection) -> str:
    from bus_operator.actions import DesiredChannel
    from bus_operator.model import ChannelSpec, Uid

    spec = ChannelSpec.model_validate({"channel": "orders"})
    desired = DesiredChannel.from_spec(spec, namespace="team", name="orders", uid=Uid("uid"))
    provisioned = await provision.provision(session, desired, None)
    assert provisioned.issued is not None
    return provisioned.issued.username
