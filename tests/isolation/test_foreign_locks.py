"""Locks and transactions that a login can hold: other channels, and the operator, go on. And where they do not."""
# ruff: noqa: E501  a table, with a row a line

import asyncio
from collections.abc import Iterator

import asyncpg
import postgres
import pytest
from attempts_page import PAGE
from intruders import Scene
from wire import Peer, payloads

from bus_operator import provision
from bus_operator.model import Uid

HELD = [
    "select pg_advisory_lock(n) from generate_series(0, 3000) as n",
    "select pg_advisory_lock(c.oid::integer, n) from pg_class as c, generate_series(0, 3) as n where c.relname in ('channel', 'peer')",
    "select pg_advisory_lock_shared(hashtext(rolname)) from pg_roles",
    "begin; lock table pg_catalog.pg_proc, pg_catalog.pg_class, pg_catalog.pg_roles in access share mode",
    "begin isolation level serializable; select count(*) from pg_class",
    "begin; create temp table mine (); lock table mine",
    "begin; select * from pgmq_bus_channel.publish_{token}('{queue}', array['1'])",
    "begin; select pgmq_bus_v1.wake_by('own', '{queue}', null, true)",
    "begin; select lo_create(0) from generate_series(1, 100)",
    "begin; declare c cursor with hold for select * from pg_class; commit; begin; declare d cursor for select * from pg_proc; fetch d",
]  # fmt: skip


async def test_no_function_takes_an_advisory_lock(scene: Scene):
    """Anybody may take any of them, and keep it."""
    names = await scene.stranger.fetch(
        "select p.oid::regprocedure::text from pg_proc as p where p.prosrc like '%advisory%' and p.oid >= 16384"
    )
    assert [name for (name,) in names if "bus" in name] == []


@pytest.mark.parametrize("statement", HELD)
async def test_the_victim_and_the_operator_go_on(scene: Scene, databases, statement: str):
    holder = await databases[3].connect()
    peer = await Peer.join(holder, "own")
    await holder.execute(statement.format(token=peer.joined["token"], queue=peer.queue))
    newcomer = await scene.victim_channel.connect()
    try:
        async with asyncio.timeout(20):
            # What the victim may wait for is less than this, whoever holds what.
            await newcomer.execute("set lock_timeout = '2s'")
            ids = await scene.victim.publish("during")
            assert payloads(await scene.victim.read(after=ids[0] - 1)) == ["during"]
            other = await Peer.join(newcomer, scene.victim.channel)
            foreign = await Peer.bus_join(newcomer, scene.victim.channel)
            await foreign.bus_publish("too")
            assert payloads(await foreign.bus_subscribe()) == ["too"]
            assert await other.leave()
            created = await databases[0].create_channel(f"made-{abs(hash(statement)) % 10**9}")
            session = await created.connect()
            assert await (await Peer.join(session, created.name)).publish(1)
            session.terminate()
    finally:
        holder.terminate()
        newcomer.terminate()


async def test_pgmqs_own_lock_on_a_queue_stops_no_deletion(databases):
    """It follows from the queue's name, which every login can read in pg_class."""
    database = databases[0]
    channel = await database.create_channel("doomed")
    holder = await databases[3].connect()
    token = channel.username.split("_")[2]
    await holder.execute(f"select pg_advisory_lock(hashtext('pgmq.queue_bus_{token}'))")
    try:
        async with database.session() as session:
            await session.execute("set lock_timeout = '2s'")
            assert await provision.deprovision(session, "doomed", Uid("uid-doomed"), "Delete")
            assert await session.fetchval("select to_regclass($1)", f"pgmq.q_bus_{token}") is None
            assert await session.fetchval("select to_regclass($1)", f"pgmq.a_bus_{token}") is None
            meta = "select exists (select from pgmq.meta where queue_name = $1)"
            assert await session.fetchval(meta, f"bus_{token}") is False
    finally:
        holder.terminate()


def documented_remedy() -> str:
    """The statements that the page recommends to a superuser."""
    section = PAGE.read_text().split("a test runs exactly these statements", 1)[1]
    return section.split("```sql\n", 1)[1].split("```", 1)[0]


@pytest.fixture(scope="module")
def small_server() -> Iterator[postgres.Server]:
    """A server with room for few locks: what takes millions elsewhere takes thousands here."""
    server = postgres.start_server(18, "-c", "max_connections=30", "-c", "max_locks_per_transaction=10")
    try:
        postgres.create_template(server)
        yield server
    finally:
        server.remove()


async def test_the_servers_table_of_locks_can_be_filled_until_a_superuser_says_no(small_server: postgres.Server):
    """Not defended by the operator, who is no superuser; the page says what a superuser does about it."""
    database = await postgres.create_database(small_server)
    victim, hostile = await database.create_channel("victim"), await database.create_channel("hostile")
    peer = await Peer.join(await victim.connect(), "victim")
    flooder = await hostile.connect()
    flood = "select pg_advisory_lock(n) from generate_series(1, 100000) as n"
    with pytest.raises(asyncpg.OutOfMemoryError):
        await flooder.execute(flood)
    with pytest.raises(asyncpg.OutOfMemoryError):
        await Peer.join(await victim.connect(), "victim")
    flooder.terminate()
    superuser = await small_server.connect(database.name)
    await superuser.execute(documented_remedy().replace("DATABASE bus", f"DATABASE {database.name}"))
    again = await hostile.connect()
    for statement in (flood, "create temp table mine ()", "select lo_create(0)", "select lo_from_bytea(0, 'x')"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await again.execute(statement)
    await peer.publish("goes on")
    assert payloads(await peer.read()) == ["goes on"]
    foreign = await Peer.bus_join(await victim.connect(), "victim")
    await foreign.bus_publish("too")
    rows = await foreign.bus_subscribe()
    assert payloads(rows) == ["too"]
    assert await foreign.bus_archive(rows[0].msg_id)
    # The operator neither.
    assert (await database.create_channel("made-afterwards")).username
    foreign.session.terminate()
    for session in (peer.session, again, superuser):
        session.terminate()
