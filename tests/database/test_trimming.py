"""What goes away from a log, when, and what a peer is told that comes too late."""

import asyncio

import pytest
from logs import channel_id, log_ids, trim_all, trim_soon
from wire import Peer, Row, payloads

from bus_operator import catalog


async def read_and_acknowledge(peer: Peer) -> list[Row]:
    rows = await peer.read()
    if rows:
        await peer.read(acknowledge=rows[-1].msg_id, limit=0)
    return rows


async def test_what_everybody_acknowledged_goes_away(make_channel, join, admin):
    channel = await make_channel()
    one, two = await join(channel), await join(channel)
    ids = await one.publish(*range(4))
    await one.read()
    await one.read(acknowledge=ids[3], limit=0)
    assert await log_ids(admin, channel.name) == ids
    await two.read()
    await trim_soon(admin, channel.name)
    await two.read(acknowledge=ids[1], limit=0)
    assert await log_ids(admin, channel.name) == ids[2:]


async def test_trimming_needs_no_operator(make_channel, join, admin):
    channel = await make_channel()
    peer = await join(channel)
    async with asyncio.timeout(15):
        for n in range(10_000):
            await peer.publish(n)
            await read_and_acknowledge(peer)
            if n > 20 and len(await log_ids(admin, channel.name)) < 10:
                return
    pytest.fail("the log only grew")


async def test_a_large_backlog_is_trimmed_in_steps(make_channel, join, admin):
    channel = await make_channel()
    peer = await join(channel)
    for _ in range(3):
        ids = await peer.publish(*([0] * 8000))
    await peer.read(limit=10_000)
    await peer.read(limit=10_000)
    await peer.read(limit=10_000)
    await peer.read(acknowledge=ids[-1], limit=0)
    assert len(await log_ids(admin, channel.name)) == 14_000
    last = (await peer.publish("more"))[0]
    await read_and_acknowledge(peer)
    assert len(await log_ids(admin, channel.name)) == 4_001
    assert last


async def test_a_stalled_live_peer_holds_the_log(make_channel, join, admin, elapse):
    channel = await make_channel(peerTimeout="10m")
    reader, stalled = await join(channel), await join(channel)
    ids = await reader.publish(1, 2)
    await elapse(stalled, "9 minutes")
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    assert await log_ids(admin, channel.name) == ids
    assert payloads(await stalled.read()) == [1, 2]


async def test_a_peer_past_its_timeout_does_not_and_is_told_what_it_lost(make_channel, join, admin, elapse):
    channel = await make_channel(peerTimeout="10m")
    reader, gone = await join(channel), await join(channel)
    ids = await reader.publish(1, 2, 3)
    await elapse(gone, "11 minutes")
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    assert await log_ids(admin, channel.name) == []
    after = await reader.publish("new")
    assert await gone.read() == [Row(ids[-1], None, 3), Row(after[0], "new")]
    assert await gone.read(after=after[0], acknowledge=after[0]) == []
    row = await admin.fetchrow("select lost, acknowledged from pgmq_bus.peer where queue = $1", gone.queue)
    assert tuple(row) == (3, after[0])


async def outage(admin, channel: str, interval: str) -> None:
    """As if the server had been away for so long, or its clock had been set: nobody was seen, and nothing trimmed."""
    number = await channel_id(admin, channel)
    await admin.execute(
        "update pgmq_bus.peer set last_seen = last_seen - $2::text::interval where channel_id = $1", number, interval
    )
    await admin.execute(
        """
        update pgmq_bus.channel_state set
            trim_after = trim_after - $2::text::interval,
            silence = case
                when isempty(silence) then silence
                else tstzrange(lower(silence) - $2::text::interval, upper(silence) - $2::text::interval)
            end
        where channel_id = $1
        """,
        number,
        interval,
    )


async def test_an_outage_is_not_the_peers_silence(make_channel, join, admin):
    """The first to come back must not trim what the others had not read."""
    channel = await make_channel(peerTimeout="10m")
    reader, other = await join(channel), await join(channel, peer="ledger")
    ids = await reader.publish(1, 2, 3)
    await trim_all(admin, channel.name)
    await outage(admin, channel.name, "11 minutes")
    await read_and_acknowledge(reader)
    await trim_all(admin, channel.name)
    assert await log_ids(admin, channel.name) == ids
    assert payloads(await other.read()) == [1, 2, 3]


async def test_after_outages_a_peer_has_its_timeout_to_come_back(make_channel, join, admin, elapse):
    channel = await make_channel(peerTimeout="10m")
    reader, other = await join(channel), await join(channel)
    ids = await reader.publish(1, 2, 3)
    await trim_all(admin, channel.name)
    for _ in range(3):
        # The other does not make it in between.
        await outage(admin, channel.name, "11 minutes")
        await read_and_acknowledge(reader)
        await trim_all(admin, channel.name)
    assert await log_ids(admin, channel.name) == ids
    # From now on the reader is seen, and the other is not.
    for _ in range(3):
        await outage(admin, channel.name, "4 minutes")
        await elapse(reader, "-4 minutes")
        await trim_all(admin, channel.name)
    assert await log_ids(admin, channel.name) == []
    assert await other.read() == [Row(ids[-1], None, 3)]


async def test_who_was_gone_before_an_outage_is_not_waited_for(make_channel, join, admin, elapse):
    channel = await make_channel(peerTimeout="10m")
    reader, gone = await join(channel), await join(channel)
    await trim_all(admin, channel.name)
    await elapse(gone, "11 minutes")
    await reader.publish(1, 2, 3)
    await outage(admin, channel.name, "11 minutes")
    await read_and_acknowledge(reader)
    await trim_all(admin, channel.name)
    assert await log_ids(admin, channel.name) == []


async def test_a_clock_that_was_set_back_does_not_put_off_trimming(make_channel, join, admin):
    channel = await make_channel(peerTimeout="10m")
    reader = await join(channel)
    await reader.publish(1, 2, 3)
    await trim_all(admin, channel.name)
    await outage(admin, channel.name, "-1 hour")
    await read_and_acknowledge(reader)
    assert await log_ids(admin, channel.name) == []


async def test_the_loss_is_told_to_a_cursor_that_is_behind(make_channel, join, admin, elapse):
    channel = await make_channel()
    reader, gone = await join(channel), await join(channel)
    ids = await reader.publish(1, 2, 3)
    await elapse(gone, "11 minutes")
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    assert await gone.read(after=0) == [Row(ids[-1], None, 3)]
    assert await gone.read(after=ids[1]) == [Row(ids[-1], None, 1)]
    assert await gone.read(after=ids[-1]) == []


async def test_a_wrapper_client_that_lost_messages_goes_on(make_channel, join, admin, elapse):
    channel = await make_channel()
    reader, gone = await join(channel), await join(channel)
    await reader.publish(1, 2, 3)
    await elapse(gone, "11 minutes")
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    await reader.publish("new")
    rows = await gone.bus_subscribe()
    assert payloads(rows) == ["new"]
    assert await gone.bus_archive(rows[0].msg_id)


async def test_a_durable_peer_that_stayed_away_too_long_is_told(make_channel, join, admin, elapse):
    channel = await make_channel()
    reader, worker = await join(channel), await join(channel, peer="worker")
    await reader.publish(1, 2)
    await elapse(worker, "11 minutes")
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    back = await join(channel, peer="worker")
    assert back.joined["resumed"] is True
    assert [row.lost for row in await back.read(after=back.joined["position"])] == [2]


@pytest.mark.parametrize(
    ("name", "silent", "remains"),
    [(None, "23 hours", True), (None, "25 hours", False), ("worker", "25 hours", True), ("worker", "31 days", False)],
)
async def test_peers_that_never_come_back_are_forgotten(make_channel, join, admin, elapse, name, silent, remains):
    channel = await make_channel()
    reader = await join(channel)
    other = await join(channel, **({"peer": name} if name else {}))
    await reader.publish(1)
    await elapse(other, silent)
    await trim_soon(admin, channel.name)
    await read_and_acknowledge(reader)
    query = "select exists (select from pgmq_bus.peer where queue = $1)"
    assert await admin.fetchval(query, other.queue) is remains


async def test_ghosts_past_their_timeout_do_not_count_against_the_limit(make_channel, join, admin, elapse):
    channel = await make_channel(limits={"maxPeers": 1})
    ghost = await join(channel)
    await elapse(ghost, "11 minutes")
    await join(channel)


@pytest.mark.parametrize("self_delivery", [True, False])
async def test_a_channel_that_all_read_and_left_is_empty(make_channel, join, admin, self_delivery):
    channel = await make_channel(selfDelivery=self_delivery)
    peers = [await join(channel) for _ in range(3)]
    for peer in peers:
        await peer.publish("a", "b")
    for peer in peers:
        rows = await peer.read()
        await peer.read(acknowledge=rows[-1].msg_id, limit=0)
    for peer in peers:
        assert await peer.leave()
    assert await log_ids(admin, channel.name) == []
    counts = await catalog.count_channel(admin, await channel_id(admin, channel.name))
    assert (counts.peers, counts.backlog, counts.stored) == (0, 0, 0)


async def test_the_backlog_is_the_slowest_live_peers(make_channel, join, admin, elapse):
    channel = await make_channel()
    fast, slow, gone = [await join(channel) for _ in range(3)]
    ids = await fast.publish(*range(5))
    await fast.read()
    await fast.read(acknowledge=ids[-1], limit=0)
    await slow.read()
    await slow.read(acknowledge=ids[1], limit=0)
    await elapse(gone, "11 minutes")
    counts = await catalog.count_channel(admin, await channel_id(admin, channel.name))
    assert (counts.peers, counts.backlog) == (2, 3)


async def test_a_publisher_whose_own_messages_are_left_out_does_not_hold_the_log(make_channel, join, connect, admin):
    channel = await make_channel(selfDelivery=False)
    publisher, reader = await Peer.bus_join(await connect(channel), channel.name), await join(channel)
    ids = [await publisher.bus_publish(n) for n in range(5)]
    assert await publisher.bus_subscribe() == []
    await trim_soon(admin, channel.name)
    rows = await reader.read()
    await reader.read(acknowledge=rows[-1].msg_id, limit=0)
    assert await log_ids(admin, channel.name) == []
    assert ids
