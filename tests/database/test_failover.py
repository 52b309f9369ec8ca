"""A standby takes over: for a channel that is a crash, even if nothing was lost."""

import dataclasses
import shutil
import signal
from pathlib import Path

import postgres
import pytest
from recorder import Recorder, eventually, note
from standby import clone
from wire import Peer, Row, payloads

from bus_runtime import PgmqBus


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


async def test_a_peer_whose_joining_is_lost_joins_again(pair, tmp_path: Path):
    """To a standby that had not heard of it: once it was new, once the former process's place is all that is known."""
    primary, standby = pair
    database = await postgres.create_database(primary)
    channels = {name: await database.create_channel(name) for name in ("new", "known")}
    for name, channel in channels.items():
        channel.binding_dir(tmp_path / name, name)

    def make(name: str, told: list[int]) -> PgmqBus:
        return PgmqBus.from_binding(
            name, root=tmp_path / name, peer="ledger", on_lost=told.append, on_redelivered=told.append
        )

    former = make("known", [])
    await former.start()
    await former.stop()
    admin, replica = await primary.connect(), await standby.connect()
    lsn = await admin.fetchval("select pg_current_wal_insert_lsn()::text")
    while not await replica.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn):
        await replica.execute("select pg_sleep(0.05)")
    await replica.execute("alter system set primary_conninfo = ''")
    await replica.execute("select pg_reload_conf()")
    while await admin.fetchval("select count(*) from pg_stat_replication"):
        await admin.execute("select pg_sleep(0.05)")
    admin.terminate()

    buses: dict[str, PgmqBus] = {}
    recorders = {name: Recorder() for name in channels}
    told: dict[str, list[int]] = {name: [] for name in channels}
    try:
        for name, recorder in recorders.items():
            bus = buses[name] = make(name, told[name])
            await bus.subscribe(recorder)
            await bus.start()
            await bus.publish(note(1), raise_on_error=True)
        await eventually(lambda: all(recorder.numbers == [1] for recorder in recorders.values()))
        primary.stop(signal.SIGQUIT)
        for name, channel in channels.items():
            endpoint = dataclasses.replace(channel.endpoint, port=standby.port)
            dataclasses.replace(channel, endpoint=endpoint).binding_dir(tmp_path / name, name)
        assert await replica.fetchval("select pg_promote()") is True
        # Nobody publishes: each finds out by itself.
        await eventually(lambda: all(bus.stats().rejoined == 1 for bus in buses.values()), seconds=30)
        for name, bus in buses.items():
            await bus.publish(note(2), raise_on_error=True)
            assert bus.stats().state == "running", name
        await eventually(lambda: all(recorder.numbers == [1, 2] for recorder in recorders.values()))
        assert told == {name: [] for name in channels}
        await eventually(lambda: all(bus.stats().acknowledged == bus.stats().position for bus in buses.values()))
    finally:
        for bus in buses.values():
            await bus.stop()
        replica.terminate()
