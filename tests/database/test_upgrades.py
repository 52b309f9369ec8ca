"""Upgrades: former clients beside today's, and migrations under clients that go on publishing and reading."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import former
import postgres
import pytest
from structure import structure
from wire import Peer

from bus_operator import actions, catalog, migrations, plan, provision, sql
from bus_operator.drift import DriftReport
from bus_operator.errors import TransientError

MORE = """
-- What a later version may do, to all that clients use most.
alter table pgmq_bus.peer add column later_note text, add column later_count integer not null default 0;
alter table pgmq_bus.channel add column later_note text;
alter table pgmq_bus.channel_state add column later_note text;
create table pgmq_bus.more (channel_id integer primary key references pgmq_bus.channel on delete cascade);
insert into pgmq_bus.more select id from pgmq_bus.channel;
create view pgmq_bus.later as select id, later_note from pgmq_bus.peer;
"""


@pytest.fixture
async def bare(server: postgres.Server) -> AsyncIterator[postgres.Database]:
    """A database in which nothing is installed."""
    created = await postgres.create_database(server, "template0")
    yield created
    await postgres.drop_database(created)


@pytest.fixture
def one_version_more(monkeypatch: pytest.MonkeyPatch) -> int:
    """As if this operator shipped a further migration. Returns its version."""
    version = sql.schema_version() + 1
    landed = sql.migrations()
    monkeypatch.setattr(sql, "migrations", lambda: (*landed, (version, MORE)))
    assert sql.schema_version() == version
    return version


@asynccontextmanager
async def traffic(uri: str, channel: str, clients: Sequence[int | str]) -> AsyncIterator[list[former.Worker]]:
    """Workers that publish and read until the block ends; each receives everything, and complains of nothing."""
    async with AsyncExitStack() as stack:
        joining = [
            stack.enter_async_context(former.worker(f"worker{number}", client, uri, channel))
            for number, client in enumerate(clients)
        ]
        workers = list(await asyncio.gather(*joining))
        for worker in workers:
            await worker.say("go")
        yield workers
        for name, report in (await former.finish(workers)).items():
            assert report["failed"] == [], name
            assert report["complaints"] == [], name
            for source, numbers in report["received"].items():
                assert numbers == list(range(len(numbers))), f"{name} from {source}"


async def published(session: asyncpg.Connection, channel: str) -> int:
    """How many messages the channel ever had."""
    head = "select pgmq_bus.head(id) from pgmq_bus.channel where name = $1"
    return int(await session.fetchval(head, channel) or 0)


async def flows(database: postgres.Database, channel: str, messages: int = 100) -> None:
    """Waits until so many more messages were published."""
    session = await database.server.connect(database.name)
    try:
        before = await published(session, channel)
        async with asyncio.timeout(former.SECONDS):
            while await published(session, channel) < before + messages:
                await asyncio.sleep(0.02)
    finally:
        await session.close()


async def peers_left(database: postgres.Database) -> int:
    async with database.session() as session:
        return int(await session.fetchval("select count(*) from pgmq_bus.peer"))


@pytest.mark.parametrize("version", former.VERSIONS)
async def test_a_former_runtime_works(database: postgres.Database, version: int) -> None:
    """Joins, publishes, reads, acknowledges and leaves, beside today's runtime and the reference client."""
    channel = await database.create_channel()
    async with traffic(channel.uri, channel.name, [version, former.TODAY, "reference"]):
        await flows(database, channel.name, 200)
    assert await peers_left(database) == 0
    async with database.session() as session:
        assert await session.fetchval("select trimmed from pgmq_bus.channel_state") == await published(
            session, channel.name
        )


@pytest.mark.parametrize("version", former.VERSIONS)
@pytest.mark.slow
async def test_clients_go_on_while_a_former_schema_is_migrated(bare: postgres.Database, version: int) -> None:
    """First the schema and the shared functions, then the channel's own functions, and then newer clients come."""
    uri = await former.create_channel(version, bare, "orders")
    async with traffic(uri, "orders", [version, version, "reference"]):
        await flows(bare, "orders")
        status, output = await former.run_operator(former.TODAY, bare, "install")
        assert status == 0, output
        await flows(bare, "orders")
        await bare.create_channel("orders", uid="uid-orders")
        await flows(bare, "orders")
        async with traffic_of_one(uri, bare):
            await flows(bare, "orders")


@asynccontextmanager
async def traffic_of_one(uri: str, database: postgres.Database) -> AsyncIterator[None]:
    """Today's runtime comes, reads what is published, and goes."""
    async with former.worker("newcomer", former.TODAY, uri, "orders") as worker:
        yield
        await worker.say("leave")


@pytest.mark.parametrize("version", former.VERSIONS)
async def test_what_a_former_operator_installed_looks_untouched(bare: postgres.Database, version: int) -> None:
    """Else what it recorded is taken for somebody's doing, and functions are dropped that clients are in."""
    await former.create_channel(version, bare, "orders")
    remedy = "the digest is made in another way than before: keep it as it is, and look at what is new apart from it"
    async with bare.session() as session:
        database = await catalog.observe_database(session)
        assert plan.was_installed(database.installed_fingerprint, database.actual_fingerprint or ""), remedy
        _, done, drift = await provision.keep(session)
        assert actions.MigrateSchema(version, sql.schema_version()) in done
        assert drift == DriftReport()
        if version > migrations.GATED_VERSION:
            channel = await catalog.observe_channel(session, "orders")
            assert channel is not None
            assert plan.was_installed(channel.installed_fingerprint, channel.actual_fingerprint), remedy


@pytest.mark.slow
async def test_clients_go_on_while_the_next_version_is_installed(
    database: postgres.Database, one_version_more: int
) -> None:
    """With idle long polls around, which are what a migration waits for most."""
    channel = await database.create_channel()
    idle = await database.create_channel("idle")
    async with (
        traffic(channel.uri, channel.name, [former.TODAY, former.TODAY, "reference"]),
        traffic_that_waits(idle, 10),
    ):
        await flows(database, channel.name)
        async with database.session() as session:
            observed, done = await provision.install(session)
            assert actions.MigrateSchema(one_version_more - 1, one_version_more) in done
            assert observed.schema_version == one_version_more
        await flows(database, channel.name)
    log = database.server.log
    assert "deadlock detected" not in log


@asynccontextmanager
async def traffic_that_waits(channel: postgres.Channel, peers: int) -> AsyncIterator[None]:
    """Peers that poll where nothing is published. None of their calls fails."""
    done = asyncio.Event()

    async def poll() -> None:
        session = await channel.connect()
        peer = await Peer.bus_join(session, channel.name)
        while not done.is_set():
            await peer.bus_subscribe(seconds=5)
        await session.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(peers):
            group.create_task(poll())
        yield
        done.set()


@pytest.mark.slow
async def test_publishers_wait_briefly_for_a_migration_that_waits(
    database: postgres.Database, one_version_more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member keeps a transaction open: the migration gives up again and again, and clients publish in between."""
    monkeypatch.setattr(migrations, "GIVE_UP", 4.0)
    channel, busy = await database.create_channel(), await database.create_channel("busy")
    holder = await Peer.join(await busy.connect(), busy.name)
    publisher = await Peer.join(await channel.connect(), channel.name)
    transaction = holder.session.transaction()
    await transaction.start()
    await holder.publish("kept open")

    async def migrate() -> None:
        async with database.session() as session:
            await provision.install(session)

    task = asyncio.create_task(migrate())
    longest = 0.0
    while not task.done():
        begun = time.monotonic()
        await publisher.publish("meanwhile")
        longest = max(longest, time.monotonic() - begun)
        await asyncio.sleep(0.01)
    with pytest.raises(TransientError, match="pg_stat_activity") as caught:
        await task
    assert caught.value.reason == "SchemaBusy"
    # The role's limit for a statement is 30 seconds; who waits for a migration without a limit meets it.
    assert longest < 10
    await transaction.rollback()
    await migrate()
    await publisher.publish("afterwards")
    for peer in (holder, publisher):
        await peer.session.close()


@pytest.mark.parametrize("version", former.VERSIONS)
@pytest.mark.slow
async def test_an_operator_that_is_killed_while_it_migrates(bare: postgres.Database, version: int) -> None:
    """What it has done is undone or can be gone on with, whatever clients do."""
    uri = await former.create_channel(version, bare, "orders")
    blocker = await bare.server.connect(bare.name)
    async with traffic(uri, "orders", [version, "reference"]):
        await flows(bare, "orders", 20)
        transaction = blocker.transaction()
        await transaction.start()
        # What a reader holds: the migration has to wait.
        await blocker.fetch(
            "select from pgmq_bus.channel, pgmq_bus.peer, pgmq_bus.installation, pgmq_bus.channel_state"
        )
        operator = asyncio.create_task(former.run_operator(former.TODAY, bare, "install"))
        waiting = "select exists (select from pg_locks where not granted and mode = 'AccessExclusiveLock')"
        watcher = await bare.server.connect(bare.name)
        async with asyncio.timeout(former.SECONDS):
            while not operator.done() and not await watcher.fetchval(waiting):
                await asyncio.sleep(0.01)
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)
        await flows(bare, "orders", 20)
        await transaction.rollback()
        await flows(bare, "orders", 20)
        status, output = await former.run_operator(former.TODAY, bare, "install")
        assert status == 0, output
        await flows(bare, "orders", 20)
        assert await watcher.fetchval("select schema_version from pgmq_bus.installation") == sql.schema_version()
        await watcher.close()
    await blocker.close()


@pytest.mark.parametrize("version", former.VERSIONS)
async def test_a_former_schema_becomes_a_fresh_one(
    bare: postgres.Database, database: postgres.Database, version: int
) -> None:
    """By two operators at once; and the former one then refuses to touch it."""
    uri = await former.create_channel(version, bare, "orders")
    outcomes = await asyncio.gather(*(former.run_operator(former.TODAY, bare, "install") for _ in range(2)))
    assert {status for status, _ in outcomes} <= {0, 1}
    assert all(status == 0 or output.startswith("Conflict") for status, output in outcomes), outcomes
    await bare.create_channel("orders", uid="uid-orders")
    await database.create_channel("orders")
    async with bare.session() as session, database.session() as other:
        assert (await provision.install(session))[1] == []
        migrated, fresh = await structure(session), await structure(other)
        for part, expected in fresh.items():
            assert migrated[part] == expected, part
        if version < sql.schema_version():
            for command in (["install"], ["channel", "orders", "{}"]):
                status, output = await former.run_operator(version, bare, *command)
                assert status == 1
                assert output.startswith("SchemaTooNew: "), output
            assert await structure(session) == migrated
    connection = await asyncpg.connect(uri)
    assert await (await Peer.join(connection, "orders")).publish("with the former credential")
    await connection.close()


async def test_what_an_earlier_migration_3_left_works(database: postgres.Database) -> None:
    """While version 3 was being made, its view had two more columns. Nobody asks for them; they may stay."""
    async with database.session() as session:
        view = await session.fetchval("select pg_get_viewdef('pgmq_bus.membership'::regclass)")
        view = view.replace("p.acknowledged", "s.trimmed, s.trim_after, p.acknowledged")
        view = view.replace("WHERE", "LEFT JOIN pgmq_bus.channel_state s ON s.channel_id = c.id WHERE")
        assert "trim_after" in view
        await session.execute(
            f"{sql.query('drop_functions')}; drop view pgmq_bus.membership; set role pgmq_bus_owner;"
            f"create view pgmq_bus.membership as {view}; reset role"
        )
        assert (await provision.install(session))[1]
        assert (await provision.install(session))[1] == []
    channel = await database.create_channel()
    peer = await Peer.join(await channel.connect(), channel.name)
    other = await Peer.bus_join(await channel.connect(), channel.name)
    await peer.publish(1)
    await other.bus_publish(2)
    assert [row.message for row in await peer.read()] == [row.message for row in await other.bus_subscribe()] == [1, 2]
    await peer.leave()
    await other.bus_leave()
    for one in (peer, other):
        await one.session.close()


def test_relations_that_a_migration_needs_for_itself() -> None:
    assert sql.changed_relations(MORE) == {"peer", "channel", "channel_state", "more", "later"}
    assert sql.changed_relations("create index on pgmq_bus.login (role);\nDROP VIEW pgmq_bus.seen") == {"seen"} | {
        "login"
    }
