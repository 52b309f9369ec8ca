"""How all channels of a database are used, found out by one statement; and that totals never fall."""

import postgres
from logs import channel_id, trim_all

from bus_operator import catalog
from bus_operator.catalog import ChannelUsage


async def usage(admin, channel) -> ChannelUsage:
    number = await channel_id(admin, channel.name)
    (found,) = (row for row in await catalog.survey(admin) if row.id == number)
    return found


async def test_a_channel_that_nobody_used(make_channel, admin):
    found = await usage(admin, await make_channel())
    assert (found.doorbell, found.listen, found.poll) == (0, 0, 0)
    assert (found.backlog, found.oldest, found.messages) == (0, None, 0)
    assert (found.published, found.redelivered, found.lost) == (0, 0, 0)
    assert found.owner_uid is not None
    assert found.bytes > 0


async def test_peers_backlog_and_totals(make_channel, join, admin, elapse):
    channel = await make_channel()
    fast, slow, gone = [await join(channel) for _ in range(3)]
    await slow.wake_by("10.0.0.1:4000")
    ids = await fast.publish(*range(5))
    await fast.read(acknowledge=ids[-1])
    await slow.read(acknowledge=ids[1])
    await elapse(gone, "11 minutes")
    await admin.execute(
        f"update pgmq.q_bus_{fast.joined['token']} set enqueued_at = enqueued_at - interval '1 hour' where msg_id = $1",
        ids[2],
    )
    found = await usage(admin, channel)
    assert (found.doorbell, found.listen, found.poll) == (1, 0, 1)
    assert (found.backlog, found.published, found.messages) == (3, 5, 5)
    assert found.oldest is not None
    assert 3600 <= found.oldest < 3700
    counted = await catalog.count_channel(admin, found.id)
    assert (counted.peers, counted.doorbell, counted.backlog) == (2, 1, 3)


async def test_the_same_for_all_at_once(make_channel, join, admin):
    channels = [await make_channel() for _ in range(3)]
    for number, channel in enumerate(channels):
        peer = await join(channel)
        await peer.publish(*range(number + 1))
    assert [(await usage(admin, channel)).published for channel in channels] == [1, 2, 3]


async def test_ids_that_were_never_given_are_no_messages(make_channel, join, admin):
    channel = await make_channel()
    peer = await join(channel)
    await peer.publish(1, 2)
    number = await channel_id(admin, channel.name)
    await admin.execute("delete from pgmq_bus.channel_alive where channel_id = $1", number)
    again = await join(channel)
    await again.publish(3)
    found = await usage(admin, channel)
    assert (found.published, found.backlog) == (3, 3)


async def test_what_was_lost_stays_counted_when_the_peer_leaves(make_channel, join, admin):
    channel = await make_channel()
    reader, stalled = await join(channel), await join(channel)
    await admin.execute("update pgmq_bus.channel set max_messages = 10 where name = $1", channel.name)
    await reader.publish(*range(25))
    await reader.read(limit=0)
    assert (await usage(admin, channel)).lost == 0
    await stalled.read()
    assert (await usage(admin, channel)).lost == 15
    assert await stalled.leave()
    assert (await usage(admin, channel)).lost == 15


async def test_what_was_redelivered_stays_counted_when_the_peer_is_given_up(make_channel, join, admin, elapse):
    channel = await make_channel()
    first = await join(channel, peer="billing")
    ids = await first.publish(1, 2, 3)
    await first.read(after=ids[1], acknowledge=ids[0])
    again = await join(channel, peer="billing")
    assert (await usage(admin, channel)).redelivered == 1
    await elapse(again, "31 days")
    await trim_all(admin, channel.name)
    assert await admin.fetchval("select count(*) from pgmq_bus.peer where name = 'billing'") == 0
    assert (await usage(admin, channel)).redelivered == 1


async def test_a_channel_whose_log_is_gone_does_not_spoil_it_for_the_others(make_channel, join, admin):
    broken, well = await make_channel(), await make_channel()
    peer = await join(broken)
    await peer.publish(1)
    await admin.execute(f"drop table pgmq.q_bus_{peer.joined['token']}")
    try:
        found = await usage(admin, broken)
        assert (found.oldest, found.bytes) == (None, 0)
        assert (await usage(admin, well)).bytes > 0
    finally:
        await admin.execute("delete from pgmq_bus.channel where name = $1", broken.name)


async def test_all_channels_are_observed_as_each_is(database: postgres.Database) -> None:
    """In one go or one by one: what differs would be taken for a change."""
    for name in ("orders", "audit", "broken"):
        await database.create_channel(name)
    async with database.session() as admin:
        (role,) = await admin.fetchrow("select role from pgmq_bus.login limit 1")
        await admin.execute(f"alter role {role} connection limit 7")
        publish = await admin.fetchval(
            "select 'publish_' || substr(queue, 5) from pgmq_bus.channel where name = 'broken'"
        )
        await admin.execute(f"drop function pgmq_bus_channel.{publish}")
        together = {channel.name: channel for channel in await catalog.observe_channels(admin)}
        assert set(together) == {"orders", "audit", "broken"}
        for name, channel in together.items():
            assert channel == await catalog.observe_channel(admin, name)
            assert hash(channel) == hash(await catalog.observe_channel(admin, name))
            assert len(channel.logins) == 1
