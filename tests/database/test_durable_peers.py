"""Peers with a name: a later process takes an earlier one's place, and who is told so."""

import asyncio

import asyncpg
import pytest
from wire import Peer, payloads

DENIED = "^bus: access denied$"


def calls(peer: Peer):
    """Everything that a peer may do, but for leaving."""
    return (
        peer.publish("x"), peer.read(), peer.read(acknowledge=1, limit=0), peer.fetch_roster(), peer.wake_by(None),
        peer.notify(), peer.bus_publish("x"), peer.bus_subscribe(), peer.bus_archive(1),
    )  # fmt: skip


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
    assert second.joined["delivered"] == ids[2]
    assert second.queue != first.queue
    assert payloads(await second.read()) == ["b", "c"]


async def test_what_is_delivered_again_is_counted(make_channel, join, admin):
    channel = await make_channel()
    first = await join(channel, peer="worker")
    ids = await first.publish(*range(5))
    await first.read(after=ids[3], acknowledge=ids[1], limit=0)
    second = await join(channel, peer="worker")
    assert await admin.fetchval("select redelivered from pgmq_bus.peer where queue = $1", second.queue) == 2


async def test_a_takeover_refuses_the_earlier_holder_and_says_why(make_channel, join):
    channel = await make_channel()
    first = await join(channel, peer="worker")
    await first.publish("a")
    await first.read(after=0)
    second = await join(channel, peer="worker")
    for call in calls(first):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await call
        assert caught.value.sqlstate == "BUS01"
        assert caught.value.message == "bus: a later process took the place of this durable peer"
    assert await first.leave() is False
    assert payloads(await second.read()) == ["a"]


async def test_only_members_are_told_of_a_takeover(make_channel, join, connect):
    channel, own = await make_channel(), await make_channel()
    first = await join(channel, peer="worker")
    await join(channel, peer="worker")
    mine = await join(own)
    # The same queue name in the hands of another channel's member, who also gave its own channel's token.
    for token, name in ((mine.joined["token"], own.name), (mine.joined["token"], channel.name)):
        stranger = Peer(mine.session, name, first.queue, {"token": token})
        for call in calls(stranger):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
                await call
        assert await stranger.leave() is False


async def test_a_peer_that_left_or_never_was_is_only_denied(make_channel, join):
    channel = await make_channel()
    peer = await join(channel, peer="worker")
    await peer.leave()
    for call in calls(peer):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
            await call
    for queue in ("", "0" * 32, None):
        for call in calls(Peer(peer.session, peer.channel, queue, peer.joined)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
                await call


async def test_a_peer_name_is_its_channels_own(make_channel, join):
    one = await join(await make_channel(), peer="worker")
    two = await join(await make_channel(), peer="worker")
    assert two.joined["resumed"] is False
    assert await one.read(limit=0) == []


async def test_of_many_that_join_at_once_the_last_stays(make_channel, join, connect):
    channel = await make_channel()
    sessions = [await connect(channel) for _ in range(8)]
    joined = await asyncio.gather(*(join(channel, session, peer="worker") for session in sessions))
    assert [peer.joined["resumed"] for peer in joined].count(False) == 1
    states = []
    for peer in joined:
        try:
            await peer.read()
            states.append("peer")
        except asyncpg.PostgresError as error:
            states.append(error.sqlstate)
    # Only the last name before the present one is remembered: whoever slept through two takeovers is merely denied.
    assert sorted(states) == ["42501"] * 6 + ["BUS01", "peer"]


async def test_a_takeover_does_not_stop_publishers_while_the_earlier_holder_keeps_a_transaction_open(
    make_channel, join, connect, waits
):
    channel = await make_channel()
    first, other = await join(channel, peer="worker"), await join(channel)
    await first.publish("a")
    session = await connect(channel)
    async with first.session.transaction():
        await first.read(acknowledge=1)
        takeover = asyncio.create_task(join(channel, session, peer="worker"))
        await waits(session)
        async with asyncio.timeout(3):
            assert await other.publish("goes on")
            assert await first.publish("so does the holder")
        assert not takeover.done()
    second = await takeover
    assert payloads(await second.read()) == ["goes on", "so does the holder"]


async def test_an_acknowledgement_that_meets_a_takeover_is_the_earlier_holders_last(make_channel, join, connect, waits):
    channel = await make_channel()
    first = await join(channel, peer="worker")
    ids = await first.publish("a", "b")
    session = await connect(channel)
    transaction = session.transaction()
    await transaction.start()
    second = await join(channel, session, peer="worker")
    late = asyncio.create_task(first.read(acknowledge=ids[1], limit=0))
    await waits(first.session)
    await transaction.commit()
    await late  # it began as a member
    assert payloads(await second.read()) == ["a", "b"]


async def test_who_waits_for_the_publish_lock_must_still_be_a_peer_when_it_is_free(make_channel, join, admin, waits):
    channel = await make_channel()
    holder, leaver, former = await join(channel), await join(channel), await join(channel, peer="worker")
    async with holder.session.transaction():
        await holder.publish("held")
        publishing = [asyncio.create_task(peer.publish("late")) for peer in (leaver, former)]
        await waits(leaver.session)
        await waits(former.session)
        # As a leave and a takeover do it, which would wait for the lock themselves.
        await admin.execute("delete from pgmq_bus.peer where queue = $1", leaver.queue)
        await admin.execute(
            "update pgmq_bus.peer set queue = 'new-' || id, former_queue = queue where queue = $1", former.queue
        )
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert [error.sqlstate for error in results] == ["42501", "BUS01"]
    assert payloads(await holder.read()) == ["held"]
