"""The five public functions, as pipecat's IsolatedPgmqBackend calls them."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

pytestmark = pytest.mark.parametrize(
    "server", postgres.SUPPORTED, indirect=True, scope="session", ids=lambda version: f"pg{version}"
)

Join = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def bus_join(make_channel, connect):
    """Two peers of one channel, joined by `bus_join`."""
    channel = await make_channel()
    return [await Peer.bus_join(await connect(channel), channel.name) for _ in range(2)]


async def test_a_message_reaches_every_peer_and_its_publisher(bus_join):
    one, two = bus_join
    ids = await one.bus_publish({"n": 1})
    assert len(ids) == 1
    for peer in (one, two):
        rows = await peer.bus_subscribe()
        assert [(row.msg_id, row.message) for row in rows] == [(ids[0], {"n": 1})]


async def test_join_is_at_the_head_of_the_log(make_channel, connect):
    channel = await make_channel()
    early = await Peer.bus_join(await connect(channel), channel.name)
    await early.bus_publish("before")
    late = await Peer.bus_join(await connect(channel), channel.name)
    await early.bus_publish("after")
    assert payloads(await late.bus_subscribe()) == ["after"]
    assert payloads(await early.bus_subscribe()) == ["before", "after"]


async def test_a_json_null_is_a_message(bus_join):
    one, two = bus_join
    await one.session.execute("select public.bus_publish($1, $2, 'null'::jsonb)", one.channel, one.queue)
    assert len(await two.bus_subscribe()) == 1


async def test_what_was_archived_is_not_read_again(bus_join):
    one, two = bus_join
    ids = await one.bus_publish(1)
    assert payloads(await two.bus_subscribe()) == [1]
    await two.bus_archive(ids[0])
    assert await two.bus_subscribe() == []


async def test_quantity_bounds_a_batch(bus_join):
    one, two = bus_join
    for n in range(5):
        await one.bus_publish(n)
    for expected in ([0, 1], [2, 3], [4]):
        rows = await two.bus_subscribe(quantity=2)
        assert payloads(rows) == expected
        await two.bus_archive(rows[-1].msg_id)


async def test_an_answer_that_got_lost_comes_again_at_once_and_before_anything_later(bus_join):
    """The client polls again, having nothing to archive. What it archives later acknowledges only what it was given."""
    one, two = bus_join
    await one.bus_publish("first")
    await two.bus_subscribe()
    await one.bus_publish("second")
    rows = await two.bus_subscribe()
    assert payloads(rows) == ["first", "second"]
    await two.bus_archive(rows[0].msg_id)
    # That connection breaks as well, and what it was about to archive comes again.
    rows = await two.bus_subscribe()
    assert payloads(rows) == ["second"]
    await two.bus_archive(rows[0].msg_id)
    assert await two.bus_subscribe() == []


async def test_a_poll_whose_connection_is_gone_takes_nothing_from_the_next_one(make_channel, connect):
    """The server notices only when it answers; meanwhile the client polls on another connection."""
    channel = await make_channel()
    publisher, gone = [await Peer.bus_join(await connect(channel), channel.name) for _ in range(2)]
    again = Peer(await connect(channel), channel.name, gone.queue)
    polls = [asyncio.create_task(peer.bus_subscribe(seconds=1)) for peer in (gone, again)]
    await publisher.bus_publish("once")
    # Whichever was answered first.
    assert [payloads(await poll) for poll in polls] == [["once"], ["once"]]
    assert payloads(await again.bus_subscribe()) == ["once"]


async def test_a_quantity_that_is_smaller_the_second_time_loses_nothing(bus_join):
    one, two = bus_join
    for n in range(4):
        await one.bus_publish(n)
    await two.bus_subscribe(quantity=4)
    seen = []
    while rows := await two.bus_subscribe(quantity=1):
        seen += payloads(rows)
        await two.bus_archive(rows[-1].msg_id)
    assert seen == [0, 1, 2, 3]


async def test_with_nothing_in_hand_nothing_is_delivered_again(bus_join, elapse):
    one, two = bus_join
    ids = await one.bus_publish("first")
    await two.bus_subscribe()
    await two.bus_archive(ids[0])
    await elapse(two, "5 minutes")
    assert await two.bus_subscribe() == []


async def test_archive_acknowledges_everything_up_to_its_message(bus_join, admin):
    one, two = bus_join
    ids = [(await one.bus_publish(n))[0] for n in range(4)]
    await two.bus_subscribe()
    assert await two.bus_archive(ids[2]) is True
    position = await admin.fetchval("select acknowledged from pgmq_bus.peer where queue = $1", two.queue)
    assert position == ids[2]
    assert await two.bus_archive(ids[2]) is False
    assert await two.bus_archive(ids[0]) is False


async def test_archive_beyond_what_was_delivered_is_refused(bus_join):
    one, two = bus_join
    ids = [(await one.bus_publish(n))[0] for n in range(3)]
    await two.bus_subscribe(quantity=1)
    assert await two.bus_archive(ids[1]) is False
    assert await two.bus_archive(2**63 - 1) is False
    assert payloads(await two.bus_subscribe()) == [0, 1, 2]


async def test_leave_ends_the_peer(bus_join):
    one, two = bus_join
    await two.bus_leave()
    for call in (two.bus_publish(1), two.bus_subscribe(), two.bus_archive(1)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"^bus: access denied$"):
            await call
    await two.bus_leave()
    assert await one.bus_publish(1)


async def test_an_empty_poll_waits_about_one_second_at_most(bus_join):
    started = time.monotonic()
    assert await bus_join[0].bus_subscribe(seconds=3600) == []
    assert 0.9 < time.monotonic() - started < 20


async def test_a_poll_looks_often_at_first_and_then_at_ease(bus_join, admin):
    one, _ = bus_join
    calls = "select calls from pg_stat_user_functions where funcid = 'pgmq_bus.head(integer)'::regprocedure"
    await admin.execute("set track_functions = 'all'")
    looks = []
    for seconds in (0, 1):
        await admin.fetchval("select pg_stat_force_next_flush()")
        before = await admin.fetchval(calls) or 0
        assert await Peer(admin, one.channel, one.queue).bus_subscribe(seconds=seconds) == []
        await admin.fetchval("select pg_stat_force_next_flush()")
        looks.append(await admin.fetchval(calls) - before)
    assert looks[0] == 1
    assert 5 < looks[1] < 60


async def test_a_poll_returns_early_on_a_message(bus_join):
    one, two = bus_join
    # Again where the machine is too slow to tell: it would return after a second in any case.
    for _ in range(5):
        waiting = asyncio.create_task(two.bus_subscribe(seconds=5))
        await asyncio.sleep(0)  # let the request go out first
        await one.bus_publish("hello")
        published = time.monotonic()
        (row,) = await waiting
        assert row.message == "hello"
        if time.monotonic() - published < 0.5:
            return
        await two.bus_archive(row.msg_id)
    pytest.fail("it returned late each time")


async def test_own_messages_are_left_out_where_the_channel_says_so(make_channel, connect):
    channel = await make_channel(selfDelivery=False)
    one, two = [await Peer.bus_join(await connect(channel), channel.name) for _ in range(2)]
    await one.bus_publish("mine")
    await two.bus_publish("theirs")
    assert payloads(await one.bus_subscribe()) == ["theirs"]
    assert payloads(await two.bus_subscribe()) == ["mine"]


async def test_many_own_messages_do_not_delay_the_next_of_another_peer(make_channel, connect):
    channel = await make_channel(selfDelivery=False)
    one, two = [await Peer.bus_join(await connect(channel), channel.name) for _ in range(2)]
    for n in range(200):
        await one.bus_publish(n)
    await two.bus_publish("theirs")
    # One message a look: 200 of its own fit into one poll, if it does not sleep between them.
    assert payloads(await one.bus_subscribe(quantity=1, seconds=1)) == ["theirs"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select public.bus_publish($1, $2, '1')", "on"),
        ("select public.bus_publish($1, $2, '1'), public.bus_archive($2, $1, 0)", "on"),
        ("select * from public.bus_subscribe($2, $1, 30, 1, 0)", "off"),
        ("select public.bus_archive($2, $1, 0)", "off"),
    ],
)
async def test_a_sync_channel_waits_for_the_disk_after_a_publish_only(bus_join, statement, expected):
    one, _ = bus_join
    async with one.session.transaction():
        await one.session.fetch(statement, one.channel, one.queue)
        assert await one.session.fetchval("show synchronous_commit") == expected
    assert await one.session.fetchval("show synchronous_commit") == "on"


async def test_an_async_channel_does_not_wait_for_the_disk(make_channel, connect):
    channel = await make_channel(durability="Async")
    peer = await Peer.bus_join(await connect(channel), channel.name)
    async with peer.session.transaction():
        await peer.bus_publish(1)
        assert await peer.session.fetchval("show synchronous_commit") == "off"


async def test_a_sync_publish_waits_even_where_the_session_says_otherwise(bus_join):
    one, _ = bus_join
    await one.session.execute("set synchronous_commit = off")
    async with one.session.transaction():
        await one.bus_publish(1)
        assert await one.session.fetchval("show synchronous_commit") == "on"
