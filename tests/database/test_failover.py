"""A standby takes over: for a channel that is a crash, even if nothing was lost."""

import dataclasses
import shutil
import signal

import postgres
import pytest
from standby import clone
from wire import Peer, Row, payloads


@pytest.fixture
def pair(server):
    primary = postgres.start_server(server.version)
    standby = None
    try:
        postgres.create_template(primary)
        standby = clone(primary)
        yield primary, standby
    finally:
        primary.remove()
        if standby is not None:
            standby.remove()
            shutil.rmtree(standby.directory, ignore_errors=True)


async def test_ids_go_on_higher_on_a_promoted_standby(pair, connect):
    primary, standby = pair
    database = await postgres.create_database(primary)
    channels = [await database.create_channel(durability, durability=durability) for durability in ("Sync", "Unlogged")]
    peers = []
    for channel in channels:
        peer = await Peer.join(await connect(channel), channel.name)
        ids = await peer.publish("before", "unread")
        await peer.read(limit=1)
        await peer.read(acknowledge=ids[0], limit=0)
        peers.append((channel, peer, ids))
    admin = await primary.connect()
    await admin.execute("checkpoint")
    lsn = await admin.fetchval("select pg_current_wal_insert_lsn()::text")
    replica = await standby.connect()
    while not await replica.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn):
        await replica.execute("select pg_sleep(0.05)")
    # PostgreSQL 15 promotes an unlogged sequence without its first page where the standby has just been told of it.
    await replica.execute("checkpoint")
    admin.terminate()
    primary.stop(signal.SIGQUIT)
    assert await replica.fetchval("select pg_promote()") is True
    replica.terminate()
    for channel, peer, ids in peers:
        endpoint = dataclasses.replace(channel.endpoint, port=standby.port)
        peer.session = await connect(dataclasses.replace(channel, endpoint=endpoint))
        (after,) = await peer.publish("after")
        assert after > ids[-1] + 1_000_000
        rows = await peer.read()
        if channel.name == "Sync":
            assert payloads(rows) == ["unread", "after"]
        else:
            # A standby never has what is not logged, and the registry does not know what nobody had acknowledged.
            assert rows == [Row(after, "after")]
