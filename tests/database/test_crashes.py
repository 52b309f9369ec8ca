"""The server crashes: no id is given twice, peers go on where they were, and are told the truth about what is lost."""

import asyncio
import signal

import asyncpg
import postgres
import pytest
from crashes import OPTIONS, losing_the_end, reconnect
from logs import log_ids, trim_all, trim_state
from wire import Peer, Row, payloads

from bus_operator import catalog, provision
from bus_operator.actions import DesiredChannel
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential

DURABILITIES = ["Sync", "Async", "Unlogged"]
JUMP = 1_000_000


@pytest.fixture(scope="module")
def fragile(server):
    """A server that other tests do not mind."""
    with postgres.running_server(server.version, *OPTIONS) as running:
        yield running


@pytest.fixture
async def database(fragile):
    """A database of its own."""
    return await postgres.create_database(fragile)


@pytest.fixture
async def inspect(database):
    """Calls with a superuser's session of the moment."""

    async def call(function, *arguments):
        session = await database.server.connect(database.name)
        try:
            return await function(session, *arguments)
        finally:
            session.terminate()

    return call


async def test_ids_do_not_go_back_where_the_end_of_the_log_is_lost(database, inspect, join, connect):
    channel = await database.create_channel(durability="Async")
    peer = await join(channel)
    poller = await Peer.bus_join(await connect(channel), "orders")
    kept = await peer.publish("a", "b", "c")
    assert payloads(await peer.read()) == ["a", "b", "c"]
    assert payloads(await poller.bus_subscribe()) == ["a", "b", "c"]
    await poller.bus_archive(kept[-1])
    async with losing_the_end(database):
        lost, version = await peer.publish_texts(["1", "2", "3", "4", "5"])
        assert payloads(await peer.read()) == [1, 2, 3, 4, 5]
        await peer.read(acknowledge=lost[-1])
        rows = await poller.bus_subscribe()
        assert payloads(rows) == [1, 2, 3, 4, 5]
        await poller.bus_archive(lost[-1])
    assert await inspect(log_ids, "orders") == kept  # else this test tests nothing
    await reconnect(connect, channel, peer, poller)
    (after,), later = await peer.publish_texts(['"new"'])
    assert after > lost[-1]
    assert later > version
    # Both positions, the one that only the process knows and the one in the registry, come before it.
    assert payloads(await peer.read()) == ["new"]
    assert payloads(await poller.bus_subscribe()) == ["new"]
    # Only once, whoever publishes.
    assert await peer.publish("x", "y") == [after + 1, after + 2]
    assert await poller.bus_publish("z") == [after + 3]
    # The gap counts for nothing.
    counts = await inspect(catalog.count_channel, 1)
    assert (counts.stored, counts.backlog) == (3 + 4, 3 + 4)
    await peer.read(acknowledge=after, limit=0)
    await poller.bus_archive(after)
    await inspect(trim_all, "orders")
    assert await inspect(log_ids, "orders") == [after + 1, after + 2, after + 3]


async def test_a_sync_channel_loses_nothing(database, inspect, join, connect):
    channel = await database.create_channel()
    peer = await join(channel, peer="worker")
    async with losing_the_end(database):
        ids = await peer.publish("a", "b")
        ids += await peer.publish("c")
        ids += await peer.bus_publish("d")
        # An acknowledgement does not wait for the disk, also of a session that publishes.
        await peer.read(acknowledge=ids[-1], limit=0)
    assert await inspect(log_ids, "orders") == ids
    await reconnect(connect, channel, peer)
    back = await join(channel, peer.session, peer="worker")
    assert payloads(await back.read()) == ["a", "b", "c", "d"]
    (after,) = await back.publish("e")
    assert after > ids[-1]
    assert payloads(await back.read()) == ["e"]


async def test_what_a_join_leave_or_change_made_of_the_roster_is_not_lost(database, join, connect):
    channel = await database.create_channel(durability="Unlogged")
    peer, other = [await join(channel) for _ in range(2)]
    async with losing_the_end(database):
        await join(channel, other.session)
        await other.leave()
        version = await peer.wake_by("10.0.0.1:4000")
    await reconnect(connect, channel, peer)
    roster = await peer.fetch_roster()
    assert roster["version"] == version
    assert roster["peers"] == 2
    assert (await peer.publish_texts(["1"]))[1] > version


@pytest.mark.parametrize("read_first", [True, False])
async def test_an_unlogged_channel_loses_its_log_and_says_so(database, inspect, read_first, join, connect):
    channel = await database.create_channel(durability="Unlogged")
    quick, slow = [await join(channel) for _ in range(2)]
    ids = await quick.publish(*range(5))
    await quick.read()
    await slow.read(limit=2)
    async with losing_the_end(database):
        # Sync: what the registry says of how far they are is on disk.
        await quick.session.execute("set synchronous_commit = on")
        await quick.read(acknowledge=ids[4], limit=0)
        await quick.wake_by(None)
    assert await inspect(log_ids, "orders") == []
    await reconnect(connect, channel, quick, slow)
    if read_first:
        assert await slow.read() == await quick.read() == []
    late = await join(channel)
    (after,) = await quick.publish("new")
    assert after > ids[-1]
    assert await quick.read() == [Row(after, "new")]
    assert await slow.read() == [Row(ids[4], None, 3), Row(after, "new")]
    assert await late.read() == [Row(after, "new")]
    assert await quick.publish("more") == [after + 1]
    await quick.read(acknowledge=after + 1)
    await slow.read(acknowledge=after + 1)
    await late.read(acknowledge=after + 1)
    await inspect(trim_all, "orders")
    assert (await inspect(catalog.count_channel, 1)).stored == 0


async def test_bytes_of_a_lost_log_are_not_counted(database, inspect, join, connect):
    channel = await database.create_channel(durability="Unlogged", retention={"maxBytes": 65536, "maxMessages": 40})
    peer, _stalled = [await join(channel) for _ in range(2)]
    await peer.publish(*(["x" * 1500] * 30))
    await peer.read(limit=0)
    async with losing_the_end(database):
        pass
    await reconnect(connect, channel, peer)
    ids = await peer.publish(*(["x" * 1500] * 39))
    await inspect(trim_all, "orders")
    assert await inspect(log_ids, "orders") == ids
    state = await inspect(trim_state, "orders")
    assert state["measured_messages"] == 39


async def test_a_failed_first_publish_changes_nothing(database, inspect, join, connect):
    channel = await database.create_channel(retention={"maxMessages": 100})
    peer, slow = [await join(channel) for _ in range(2)]
    ids = await peer.publish(1, 2)
    async with losing_the_end(database):
        pass
    await reconnect(connect, channel, peer, slow)
    for bad in (['"'], ["1", None]):
        with pytest.raises(asyncpg.DataError):
            await peer.publish_texts(bad)
    transaction = peer.session.transaction()
    await transaction.start()
    await peer.publish("never")
    await transaction.rollback()
    (after,) = await peer.publish(3)
    assert after > ids[-1]
    await peer.publish(*range(100))
    await inspect(trim_all, "orders")
    assert (await slow.read(limit=1))[0] == Row(after, None, 3)


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_clean_restart_changes_nothing(database, inspect, durability, join, connect):
    channel = await database.create_channel(durability=durability)
    peer = await join(channel)
    ids, version = await peer.publish_texts(["1", "2"])
    peer.session.terminate()
    database.server.stop(signal.SIGINT)
    database.server.start()
    await reconnect(connect, channel, peer)
    assert payloads(await peer.read()) == [1, 2]
    assert await peer.publish_texts(["3"]) == ([ids[-1] + 1], version)
    assert await inspect(log_ids, "orders") == [*ids, ids[-1] + 1]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_ids_do_not_go_back_after_an_immediate_shutdown(database, durability, join, connect):
    channel = await database.create_channel(durability=durability)
    peer = await join(channel)
    given: list[int] = []
    for _ in range(2):
        for n in range(20):
            given += await peer.publish(n)
        given += await peer.publish(*range(20))
        await peer.read(acknowledge=given[-1])
        await asyncio.to_thread(database.server.stop, signal.SIGQUIT)
        await asyncio.to_thread(database.server.start)
        await reconnect(connect, channel, peer)
    given += await peer.publish("last")
    assert given == sorted(set(given))
    assert given[-1] > 2 * JUMP
    assert payloads(await peer.read(after=given[-2])) == ["last"]


async def test_a_crash_after_a_crash_does_not_give_ids_again(database, join, connect):
    """Also where the second one loses every trace of what was published since the first."""
    for durability in ("Async", "Unlogged"):
        channel = await database.create_channel(durability, durability=durability)
        peer = await join(channel)
        given = await peer.publish("before")
        for _ in range(3):
            async with losing_the_end(database):
                pass
            await reconnect(connect, channel, peer)
            async with losing_the_end(database):
                given += await peer.publish("lost")
                assert payloads(await peer.read(after=given[-1] - 1)) == ["lost"]
            await reconnect(connect, channel, peer)
        given += await peer.publish("last")
        assert given == sorted(set(given))
        assert payloads(await peer.read(after=given[-2])) == ["last"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_many_publish_at_once_after_a_crash(database, durability, join, connect):
    channel = await database.create_channel(durability=durability)
    peers = [await join(channel) for _ in range(8)]
    (before,) = await peers[0].publish("before")
    async with losing_the_end(database):
        pass
    await reconnect(connect, channel, *peers)
    rest = [asyncio.create_task(peer.publish(n, n)) for n, peer in enumerate(peers)]
    newcomer = asyncio.create_task(join(channel))
    ids = sorted(msg_id for given in await asyncio.gather(*rest) for msg_id in given)
    assert ids == list(range(ids[0], ids[0] + 16))
    jump = 1000 * JUMP if durability == "Unlogged" else JUMP
    assert before + jump <= ids[0] <= before + jump + 100
    joined = await newcomer
    assert joined.joined["position"] in range(ids[0] - 1, ids[-1] + 1)


async def test_a_log_that_was_dropped_by_hand_goes_on_where_nobody_is(database, inspect, join, connect):
    channel = await database.create_channel()
    peer = await join(channel)
    ids = await peer.publish(*range(5))
    await peer.read()  # it keeps to itself how far it is
    await inspect(lambda admin: admin.execute(f"drop table pgmq.q_bus_{peer.joined['token']}"))
    spec = ChannelSpec.model_validate({"channel": channel.name})
    desired = DesiredChannel.from_spec(spec, namespace="test", name="test", uid=Uid(f"uid-{channel.name}"))
    async with database.session() as session:
        await provision.provision(session, desired, HeldCredential(channel.username, channel.password))
    (after,) = await peer.publish("new")
    assert after > ids[-1]
    assert await peer.read() == [Row(after, "new")]


async def test_a_transaction_that_began_before_another_recovered_is_told_to_try_again(database, join, connect):
    channel = await database.create_channel()
    one, two = [await join(channel) for _ in range(2)]
    async with losing_the_end(database):
        pass
    await reconnect(connect, channel, one, two)
    transaction = one.session.transaction(isolation="repeatable_read")
    await transaction.start()
    await one.session.execute("select 1")
    (first,) = await two.publish("two")
    with pytest.raises(asyncpg.SerializationError):
        await one.publish("one")
    await transaction.rollback()
    assert await one.publish("one") == [first + 1]
