"""The functions of `bus_runtime`: explicit cursors, durable peers, limits."""

import asyncio

import asyncpg
import pytest
from wire import Row, payloads

DENIED = "^bus: access denied$"


async def test_join_says_what_a_client_needs(make_channel, join):
    channel = await make_channel(peerTimeout="1m30s", durability="Async", limits={"maxMessageBytes": 2048})
    peer = await join(channel, application="app", host="h", runtime="r")
    wake = peer.joined.pop("wake")
    queue = peer.joined.pop("queue")
    assert len(queue) == 32
    assert wake.startswith("bus_")
    assert len(wake) == 36
    assert peer.joined == {
        "position": 0, "durability": "Async", "self_delivery": True, "max_message_bytes": 2048,
        "peer_timeout_seconds": 90.0, "schema_version": 2, "resumed": False,
    }  # fmt: skip
    assert (await join(channel)).joined["wake"] == wake


async def test_publish_keeps_the_order_of_the_array(make_channel, join):
    peer = await join(await make_channel())
    ids = await peer.publish(*range(50))
    assert ids == list(range(ids[0], ids[0] + 50))
    assert payloads(await peer.read(after=0)) == list(range(50))


async def test_publish_wakes_listeners_after_its_commit(make_channel, join, connect):
    channel = await make_channel()
    peer = await join(channel)
    listener = await connect(channel)
    woken = asyncio.Event()
    await listener.add_listener(peer.joined["wake"], lambda *_: woken.set())
    transaction = peer.session.transaction()
    await transaction.start()
    await peer.publish(1)
    assert await listener.fetchval("select 1") == 1
    assert not woken.is_set()
    await transaction.commit()
    await asyncio.wait_for(woken.wait(), 5)


async def test_an_explicit_cursor_reads_the_same_again(make_channel, join):
    peer = await join(await make_channel())
    first, second, third = await peer.publish("a", "b", "c")
    assert len(await peer.read(after=0)) == 3
    assert [row.msg_id for row in await peer.read(after=first)] == [second, third]
    assert [row.msg_id for row in await peer.read(after=first)] == [second, third]
    assert [row.msg_id for row in await peer.read(after=second, limit=1)] == [third]
    assert await peer.read(after=third) == []


async def test_one_call_acknowledges_and_reads(make_channel, join, admin):
    peer = await join(await make_channel())
    first, second = await peer.publish("a", "b")
    assert [row.msg_id for row in await peer.read(after=0, limit=1)] == [first]
    assert [row.msg_id for row in await peer.read(after=first, acknowledge=first)] == [second]
    assert await peer.read(acknowledge=second, limit=0) == []
    state = await admin.fetchrow("select acknowledged, delivered from pgmq_bus.peer where queue = $1", peer.queue)
    assert tuple(state) == (second, second)


async def test_acknowledging_beyond_what_was_delivered_does_nothing(make_channel, join, admin):
    peer = await join(await make_channel())
    first, second = await peer.publish("a", "b")
    await peer.read(after=0, limit=1)
    await peer.read(after=first, acknowledge=second, limit=0)
    await peer.read(after=first, acknowledge=2**63 - 1, limit=0)
    query = "select acknowledged from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(query, peer.queue) == 0


async def test_without_a_cursor_reading_goes_on_and_redelivers_after_the_timeout(make_channel, join, elapse):
    peer = await join(await make_channel())
    ids = await peer.publish("a", "b", "c")
    assert payloads(await peer.read(limit=2)) == ["a", "b"]
    assert payloads(await peer.read(visibility=30)) == ["c"]
    await peer.read(acknowledge=ids[0], limit=0)
    await elapse(peer, "31 seconds")
    assert payloads(await peer.read()) == ["b", "c"]


async def test_what_the_same_call_acknowledges_is_not_delivered_again(make_channel, join, elapse):
    peer = await join(await make_channel())
    ids = await peer.publish("a", "b", "c")
    await peer.read(limit=2)
    await elapse(peer, "31 seconds")
    assert await peer.read(acknowledge=ids[1]) == [Row(ids[2], "c")]


async def test_a_heartbeat_extends_the_visibility(make_channel, join, elapse):
    peer = await join(await make_channel())
    await peer.publish("a")
    await peer.read(visibility=30)
    for _ in range(3):
        await elapse(peer, "20 seconds")
        assert await peer.read(visibility=30, limit=0) == []
    assert await peer.read(visibility=30) == []
    await elapse(peer, "31 seconds")
    assert payloads(await peer.read(visibility=30)) == ["a"]


async def test_a_heartbeat_keeps_a_silent_peer_alive(make_channel, join, elapse, admin):
    peer = await join(await make_channel(peerTimeout="10m"))
    await elapse(peer, "9 minutes")
    await peer.read(limit=0)
    query = "select last_seen > clock_timestamp() - interval '1 minute' from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(query, peer.queue)


async def test_reading_on_extends_the_visibility_of_what_came_before(make_channel, join, elapse):
    # A client with a cursor knows what it has in hand.
    peer = await join(await make_channel())
    await peer.publish("a")
    await peer.read(after=0)
    await elapse(peer, "20 seconds")
    second = await peer.publish("b")
    await peer.read(after=second[0] - 1)
    await elapse(peer, "20 seconds")
    assert await peer.read() == []


async def test_a_cursor_that_the_server_never_handed_out_is_not_believed(make_channel, join):
    # A server that crashed with Async durability may give an id again that a client has seen: it must not be skipped.
    peer = await join(await make_channel())
    await peer.publish("a", "b")
    assert payloads(await peer.read(after=2**63 - 1)) == ["a", "b"]


async def test_a_rewound_cursor_does_not_take_back_acknowledgements(make_channel, join, admin):
    channel = await make_channel(selfDelivery=False)
    peer, other = await join(channel), await join(channel)
    mine = await peer.publish(1, 2, 3)
    theirs = await other.publish("x")
    await peer.read(after=0)
    await peer.read(acknowledge=theirs[0], limit=0)
    assert await peer.read(after=0, limit=2) == [Row(mine[1], None)]
    query = "select acknowledged from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(query, peer.queue) == theirs[0] > mine[-1]


async def test_own_messages_are_passed_over_with_a_marker(make_channel, join, admin):
    channel = await make_channel(selfDelivery=False)
    peer, other = await join(channel), await join(channel)
    mine = await peer.publish(1, 2)
    assert await peer.read(after=0) == [Row(mine[-1], None)]
    theirs = await other.publish("x")
    more = await peer.publish(3)
    assert await peer.read(after=mine[-1]) == [Row(theirs[0], "x"), Row(more[0], None)]
    # The marker only said how far the log was read: acknowledging the last message covers it too.
    await peer.read(after=more[0], acknowledge=theirs[0], limit=0)
    query = "select acknowledged from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(query, peer.queue) == more[0]


async def test_a_durable_peer_resumes_where_it_was(make_channel, join):
    channel = await make_channel()
    first = await join(channel, peer="worker")
    assert first.joined["resumed"] is False
    ids = await first.publish("a", "b", "c")
    await first.read(after=0)
    await first.read(acknowledge=ids[0], limit=0)
    second = await join(channel, peer="worker")
    assert second.joined["resumed"] is True
    assert second.joined["position"] == ids[0]
    assert second.queue != first.queue
    assert payloads(await second.read()) == ["b", "c"]


async def test_a_takeover_refuses_the_earlier_holder(make_channel, join):
    channel = await make_channel()
    first = await join(channel, peer="worker")
    await first.publish("a")
    await first.read(after=0)
    second = await join(channel, peer="worker")
    for call in (
        first.publish("x"), first.read(), first.read(acknowledge=1, limit=0),
        first.bus_publish("x"), first.bus_subscribe(), first.bus_archive(1),
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
            await call
    assert await first.leave() is False
    assert payloads(await second.read()) == ["a"]


async def test_a_peer_name_is_its_channels_own(make_channel, join):
    one = await join(await make_channel(), peer="worker")
    two = await join(await make_channel(), peer="worker")
    assert two.joined["resumed"] is False
    assert await one.read(limit=0) == []


async def test_leave_returns_whether_there_was_such_a_peer(make_channel, join):
    channel = await make_channel()
    peer = await join(channel, peer="worker")
    assert await peer.leave() is True
    assert await peer.leave() is False
    assert (await join(channel, peer="worker")).joined["resumed"] is False


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
    channel = await make_channel(limits={"maxConnections": 2})
    await connect(channel)
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
