"""The server's notification queue, full: any login can fill it, and nobody's bus stops."""

import asyncio
from collections.abc import Iterator

import asyncpg
import postgres
import pytest
from wire import Peer, payloads


@pytest.fixture(scope="module")
def small_queue() -> Iterator[postgres.Server]:
    """A server whose queue holds half a megabyte instead of eight gigabytes: from 17 on that can be set."""
    server = postgres.start_server(18, "-c", "max_notify_queue_pages=64")
    try:
        postgres.create_template(server)
        yield server
    finally:
        server.remove()


@pytest.mark.parametrize("durability", ["Sync", "Async", "Unlogged"])
async def test_a_full_queue_stops_nobody(small_queue: postgres.Server, durability: str):
    database = await postgres.create_database(small_queue)
    channel = await database.create_channel("victim", durability=durability)
    hostile = await database.create_channel("hostile")
    holder, flooder = await hostile.connect(), await hostile.connect()
    session = await channel.connect()
    try:
        # Listening, and in a transaction since: what is in the queue stays there. The time-out is each session's own.
        await holder.execute("set idle_in_transaction_session_timeout = 0")
        await holder.execute("listen anything")
        await holder.execute("begin; select 1")
        flood = "select pg_notify('x', repeat('y', 7000) || n) from generate_series(1, 5) as n"
        while await flooder.fetchval("select pg_notification_queue_usage()") < 0.9:
            await flooder.execute(flood)
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="too many notifications in the NOTIFY queue"):
            await flooder.execute(flood.replace("5", "50"))
        # All that notifies: joining, publishing and polling as the reference client does, and the runtimes' own calls.
        peer = await Peer.join(session, "victim")
        former, foreign = await Peer.join(session, "victim"), await Peer.bus_join(session, "victim")
        await peer.publish(1)
        await foreign.bus_publish(2)
        await session.execute("select pgmq_bus_v1.publish('victim', $1, array['3'::jsonb])", former.queue)
        await peer.notify()
        assert payloads(await foreign.bus_subscribe()) == [1, 2, 3]
        assert payloads(await peer.read()) == [1, 2, 3]
        # Once it has room again, whoever listens is woken again.
        await holder.execute("rollback")
        woken = asyncio.Event()
        await session.add_listener(peer.joined["wake"], lambda *_: woken.set())
        async with asyncio.timeout(20):
            while not woken.is_set():
                await foreign.bus_publish(4)
                await foreign.bus_subscribe()
    finally:
        for opened in (holder, flooder, session):
            opened.terminate()
        await postgres.drop_database(database)
