"""The functions of `bus_runtime`: explicit cursors, acknowledgements, heartbeats, limits."""

import asyncio

import asyncpg
import pytest
from wire import Row, payloads

from bus_operator import sql

HUGE = 2**63 - 1
CURSORS = "select acknowledged, delivered from pgmq_bus.peer where queue = $1"


async def test_join_says_what_a_client_needs(make_channel, join, admin):
    channel = await make_channel(peerTimeout="1m30s", durability="Async", limits={"maxMessageBytes": 2048})
    peer = await join(channel, application="app", host="h", runtime="r")
    wake = peer.joined.pop("wake")
    queue = peer.joined.pop("queue")
    assert len(queue) == 32
    assert peer.joined.pop("key") == (await peer.fetch_roster())["key"]
    assert wake.startswith("bus_")
    assert len(wake) == 36
    assert peer.joined == {
        "token": await admin.fetchval("select substr(queue, 5) from pgmq_bus.channel where name = $1", channel.name),
        "position": 0, "delivered": 0, "head": 0, "since": None,
        "durability": "Async", "self_delivery": True, "max_message_bytes": 2048,
        "peer_timeout_seconds": 90.0, "schema_version": sql.schema_version(), "resumed": False, "peers": 1,
        "foreign": False,
    }  # fmt: skip
    second = await join(channel)
    assert second.joined["wake"] == wake
    assert second.joined["peers"] == 2
    assert second.joined["foreign"] is False
    await admin.fetchval("select public.bus_join($1)", channel.name)
    assert (await join(channel)).joined["foreign"] is True


async def test_join_is_at_the_head_of_the_log(make_channel, join):
    channel = await make_channel()
    early = await join(channel)
    ids = await early.publish("before")
    late = await join(channel)
    assert late.joined["position"] == late.joined["delivered"] == ids[0]
    await early.publish("after")
    assert payloads(await late.read()) == ["after"]


async def test_publish_keeps_the_order_of_the_array(make_channel, join):
    peer = await join(await make_channel())
    ids = await peer.publish(*range(50))
    assert ids == list(range(ids[0], ids[0] + 50))
    assert payloads(await peer.read(after=0)) == list(range(50))


async def test_an_explicit_cursor_reads_the_same_again(make_channel, join):
    peer = await join(await make_channel())
    first, second, third = await peer.publish("a", "b", "c")
    assert len(await peer.read(after=0)) == 3
    assert [row.msg_id for row in await peer.read(after=first)] == [second, third]
    assert [row.msg_id for row in await peer.read(after=first)] == [second, third]
    assert [row.msg_id for row in await peer.read(after=second, limit=1)] == [third]
    assert await peer.read(after=third) == []
    assert await peer.read(after=HUGE) == []


async def test_one_call_acknowledges_and_reads(make_channel, join, admin):
    peer = await join(await make_channel())
    first, second = await peer.publish("a", "b")
    assert [row.msg_id for row in await peer.read(after=0, limit=1)] == [first]
    assert [row.msg_id for row in await peer.read(after=first, acknowledge=first)] == [second]
    assert await peer.read(after=second, acknowledge=second, limit=0) == []
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (second, second)


@pytest.mark.parametrize("number", [3, HUGE])
async def test_acknowledgements_end_at_the_head_of_the_log(make_channel, join, admin, number):
    channel = await make_channel()
    peer, other = await join(channel), await join(channel)
    first, second = await peer.publish("a", "b")
    await peer.read(after=number, acknowledge=number, limit=0)
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (second, second)
    assert payloads(await other.read()) == ["a", "b"]
    await other.publish("c")
    assert payloads(await peer.read(after=first)) == ["b", "c"]


async def test_nothing_can_be_acknowledged_in_an_empty_log(make_channel, join, admin):
    peer = await join(await make_channel())
    await peer.read(acknowledge=HUGE, limit=0)
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (0, 0)
    await peer.publish("a")
    assert payloads(await peer.read()) == ["a"]


@pytest.mark.parametrize("number", [None, -HUGE - 1, -1, 0, 1])
async def test_acknowledgements_never_go_back(make_channel, join, admin, elapse, number):
    peer = await join(await make_channel())
    first, second = await peer.publish("a", "b")
    await peer.read(after=0, limit=1)
    await peer.read(acknowledge=first, limit=0)
    await peer.read(after=0, acknowledge=number, limit=0)
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (first, first)
    # Nor with a heartbeat, which writes.
    await elapse(peer, "9 minutes")
    await peer.read(after=0, acknowledge=number, limit=0)
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (first, first)
    assert [row.msg_id for row in await peer.read(after=first)] == [second]


async def test_a_heartbeat_acknowledges_nothing(make_channel, join, admin, elapse):
    peer = await join(await make_channel(peerTimeout="10m"))
    await peer.publish("a", "b")
    for _ in range(3):
        await elapse(peer, "9 minutes")
        assert await peer.read(limit=0) == []
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (0, 0)
    assert payloads(await peer.read()) == ["a", "b"]


async def test_a_heartbeat_keeps_a_silent_peer_alive(make_channel, join, elapse, admin):
    peer = await join(await make_channel(peerTimeout="10m"))
    query = "select last_seen > clock_timestamp() - interval '30 seconds' from pgmq_bus.peer where queue = $1"
    await elapse(peer, "50 seconds")
    await peer.read(limit=0)
    assert not await admin.fetchval(query, peer.queue)  # noted often enough: a tenth of the timeout
    await elapse(peer, "11 seconds")
    await peer.read(limit=0)
    assert await admin.fetchval(query, peer.queue)


async def test_a_heartbeat_tells_how_far_the_peer_has_read(make_channel, join, elapse, admin):
    peer = await join(await make_channel())
    ids = await peer.publish("a", "b")
    await peer.read(limit=1)
    await elapse(peer, "9 minutes")
    await peer.read(limit=0)
    assert tuple(await admin.fetchrow(CURSORS, peer.queue)) == (0, ids[0])


async def test_leave_returns_whether_there_was_such_a_peer(make_channel, join):
    channel = await make_channel()
    peer = await join(channel, peer="worker")
    assert await peer.leave() is True
    assert await peer.leave() is False
    assert (await join(channel, peer="worker")).joined["resumed"] is False


async def test_two_that_leave_as_the_same_peer_leave_once(make_channel, join, connect, waits):
    channel = await make_channel()
    peer, holder = await join(channel), await join(channel)
    sessions = [await connect(channel) for _ in range(2)]
    async with holder.session.transaction():
        await holder.publish("held")
        leaving = [
            asyncio.create_task(
                session.fetchval("select pgmq_bus_v1.leave($1, $2)", peer.channel, peer.queue), name="leave"
            )
            for session in sessions
        ]
        for session in sessions:
            await waits(session)
    assert sorted(await asyncio.gather(*leaving)) == [False, True]


async def test_the_limit_on_peers(make_channel, join):
    channel = await make_channel(limits={"maxPeers": 2})
    first, _ = await join(channel), await join(channel, peer="worker")
    with pytest.raises(asyncpg.ProgramLimitExceededError) as caught:
        await join(channel)
    assert caught.value.message == "bus: channel has its maximum of 2 peers"
    assert caught.value.hint == "Stop a peer, or raise limits.maxPeers of the BusChannel."
    # A durable peer that comes back is none more.
    assert (await join(channel, peer="worker")).joined["resumed"] is True
    await first.leave()
    await join(channel)


async def test_the_limit_on_peers_holds_when_many_join_at_once(make_channel, join, connect):
    channel = await make_channel(limits={"maxPeers": 5})
    sessions = [await connect(channel) for _ in range(12)]
    results = await asyncio.gather(*(join(channel, session) for session in sessions), return_exceptions=True)
    assert sum(isinstance(result, asyncpg.ProgramLimitExceededError) for result in results) == 7


async def test_the_limit_on_connections(make_channel, connect):
    """One more than the manifest says: the operator logs in as well, to see what the login can do."""
    channel = await make_channel(limits={"maxConnections": 2})
    for _ in range(3):
        await connect(channel)
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await connect(channel)


async def test_a_rolled_back_publish_leaves_no_message_and_no_lock(make_channel, join):
    channel = await make_channel()
    one, two = await join(channel), await join(channel)
    transaction = one.session.transaction()
    await transaction.start()
    await one.publish("never")
    await transaction.rollback()
    await two.publish("later")
    assert payloads(await two.read(after=0)) == ["later"]
    assert payloads(await one.read(after=0)) == ["later"]


async def test_own_messages_are_rows_without_a_message(make_channel, join):
    channel = await make_channel(selfDelivery=False)
    peer, other = await join(channel), await join(channel)
    mine = await peer.publish(1, 2)
    theirs = await other.publish("x")
    more = await peer.publish(3)
    assert await peer.read() == [Row(mine[0], None), Row(mine[1], None), Row(theirs[0], "x"), Row(more[0], None)]
    assert await peer.read(after=mine[0], limit=1) == [Row(mine[1], None)]
    assert await other.read() == [Row(mine[0], 1), Row(mine[1], 2), Row(theirs[0], None), Row(more[0], 3)]


async def test_messages_published_before_a_takeover_are_still_ones_own(make_channel, join):
    channel = await make_channel(selfDelivery=False)
    first = await join(channel, peer="worker")
    ids = await first.publish("mine")
    second = await join(channel, peer="worker")
    assert await second.read() == [Row(ids[0], None)]


@pytest.mark.parametrize(("durability", "expected"), [("Sync", "on"), ("Async", "off"), ("Unlogged", "off")])
async def test_who_waits_for_the_disk(make_channel, join, durability, expected):
    peer = await join(await make_channel(durability=durability))

    async def after(*calls) -> str:
        async with peer.session.transaction():
            for call in calls:
                await call()
            return await peer.session.fetchval("show synchronous_commit")

    async def publish() -> None:
        await peer.publish("message", "message")

    async def acknowledge() -> None:
        await peer.read(acknowledge=HUGE, limit=0)

    assert await after(publish) == expected
    assert await after(publish, acknowledge) == expected
    await publish()
    assert await after(acknowledge) == "off"
    await publish()
    assert await after(acknowledge, publish) == expected
    assert await after(lambda: peer.read(after=HUGE)) == "on"  # wrote nothing
    assert await after(lambda: peer.wake_by(None)) == "on"
    assert await after(acknowledge, lambda: peer.wake_by(None)) == "on"
    await peer.session.execute("set synchronous_commit = off")
    assert await after(publish) == expected
    assert await after(peer.leave) == "on"
