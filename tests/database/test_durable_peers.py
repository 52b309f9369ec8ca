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


# --- claims: who joined, and a failover lost that ---

FORGET = """
update pgmq_bus.peer set queue = 'as-it-was-' || id, former_queue = null, joined_at = now() - interval '1 hour'
where queue = $1
"""


async def test_who_was_forgotten_claims_its_place(make_channel, join, admin):
    channel = await make_channel()
    peer = await join(channel, peer="worker")
    ids = await peer.publish("a", "b", "c")
    await peer.read(after=ids[1], acknowledge=ids[0], limit=0)
    await admin.execute(FORGET, peer.queue)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
        await peer.read()
    back = await join(channel, peer="worker", since=peer.joined["since"])
    assert back.joined["resumed"] is True
    assert (back.joined["position"], back.joined["delivered"], back.joined["head"]) == (ids[0], ids[1], ids[2])
    assert back.joined["since"] == peer.joined["since"], "it joined when it joined"
    redelivered = "select redelivered from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(redelivered, back.queue) == 0, "it goes on where it is itself"
    # As does one whose answer got lost.
    again = await join(channel, peer="worker", since=peer.joined["since"])
    assert payloads(await again.read(after=ids[1])) == ["c"]


async def test_who_was_dropped_claims_its_place_at_the_head(make_channel, join, admin):
    channel = await make_channel()
    peer = await join(channel, peer="worker")
    (last,) = await peer.publish("a")
    await admin.execute("delete from pgmq_bus.peer where queue = $1", peer.queue)
    back = await join(channel, peer="worker", since=peer.joined["since"])
    assert back.joined["resumed"] is False
    assert back.joined["position"] == back.joined["head"] == last
    assert back.joined["since"] == peer.joined["since"]


@pytest.mark.parametrize("first", [0, 1], ids=["the-earlier-first", "the-later-first"])
async def test_of_two_that_were_forgotten_the_later_stays(make_channel, join, admin, first):
    channel = await make_channel()
    await join(channel, peer="worker")
    peers = [await join(channel, peer="worker") for _ in range(2)]
    await admin.execute(FORGET, peers[1].queue)
    claims = [lambda peer=peer: join(channel, peer="worker", since=peer.joined["since"]) for peer in peers]
    former = await claims[0]() if first == 0 else None
    later = await claims[1]()
    with pytest.raises(asyncpg.PostgresError) as caught:
        await (claims[0]() if former is None else former.read())
    assert caught.value.sqlstate == "BUS01"
    await later.read()


async def test_who_slept_through_two_takeovers_takes_nothing_back(make_channel, join):
    channel = await make_channel()
    sleeper = await join(channel, peer="worker")
    await join(channel, peer="worker")
    last = await join(channel, peer="worker")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=DENIED):
        await sleeper.read()
    with pytest.raises(asyncpg.PostgresError) as caught:
        await join(channel, peer="worker", since=sleeper.joined["since"])
    assert caught.value.sqlstate == "BUS01"
    await last.read()


async def test_who_joins_is_later_than_the_holder_whatever_the_clock_says(make_channel, join, admin):
    channel = await make_channel()
    earlier = await join(channel, peer="worker")
    await admin.execute(
        "update pgmq_bus.peer set joined_at = now() + interval '1 hour' where queue = $1", earlier.queue
    )
    told = "select (extract(epoch from joined_at) * 1000000)::bigint::text from pgmq_bus.peer where queue = $1"
    since = await admin.fetchval(told, earlier.queue)
    later = await join(channel, peer="worker")
    assert int(later.joined["since"]) == int(since) + 1
    with pytest.raises(asyncpg.PostgresError) as caught:
        await join(channel, peer="worker", since=since)
    assert caught.value.sqlstate == "BUS01"


async def test_a_made_up_time_does_not_count_for_ever(make_channel, join):
    channel = await make_channel()
    liar = await join(channel, peer="worker", since="9" * 16)
    honest = await join(channel, peer="worker")
    assert int(honest.joined["since"]) - int(liar.joined["since"]) < 60_000_000
    assert len(honest.joined["since"]) == 16
    await honest.read()


async def test_who_has_no_name_has_nothing_to_claim(make_channel, join):
    channel = await make_channel()
    peer = await join(channel, since="1")
    assert peer.joined["since"] is None
    await peer.read()
