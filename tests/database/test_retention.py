"""What a log keeps at most, whoever has not read it, and that it keeps no less."""

import asyncio
import random
import time
from typing import Any

import pytest
from logs import channel_id, jump, log_ids, next_trim, trim_all, trim_soon, trim_state
from wire import Row, payloads


async def bound(admin, channel, **bounds: Any) -> None:
    """Sets the channel's retention, to values smaller than a manifest may ask for."""
    await admin.execute(
        "update pgmq_bus.channel set max_age = $2::text::interval, max_messages = $3, max_bytes = $4 where name = $1",
        channel.name, bounds.get("max_age"), bounds.get("max_messages"), bounds.get("max_bytes"),
    )  # fmt: skip


async def make_older(admin, peer, ids: list[int], interval: str) -> None:
    await admin.execute(
        f"update pgmq.q_bus_{peer.joined['token']} set enqueued_at = enqueued_at - $2::text::interval"
        " where msg_id = any ($1)",
        ids,
        interval,
    )


async def test_a_log_keeps_its_newest_messages(make_channel, join, admin):
    channel = await make_channel()
    reader, stalled = await join(channel), await join(channel)
    await bound(admin, channel, max_messages=10)
    ids = await reader.publish(*range(25))
    await reader.read(limit=0)
    assert await log_ids(admin, channel.name) == ids[15:]
    assert await stalled.read() == [Row(ids[14], None, 15), *map(Row, ids[15:], range(15, 25))]
    assert await admin.fetchval("select lost from pgmq_bus.peer where queue = $1", stalled.queue) == 15
    # The loss was told; from there on nothing is lost.
    assert await stalled.read() == []


async def test_a_log_keeps_its_youngest_messages(make_channel, join, admin):
    channel = await make_channel()
    reader, stalled = await join(channel), await join(channel)
    await bound(admin, channel, max_age="1 hour")
    old, young = await reader.publish(*range(5)), await reader.publish(*range(5))
    await make_older(admin, reader, old, "61 minutes")
    await make_older(admin, reader, young, "59 minutes")
    await reader.read(limit=0)
    assert await log_ids(admin, channel.name) == young
    assert (await stalled.read())[0] == Row(old[-1], None, 5)


@pytest.mark.parametrize("count", [1, 2])
async def test_the_age_of_a_message_is_not_that_of_its_transaction(make_channel, join, admin, count):
    channel = await make_channel()
    slow, quick = await join(channel), await join(channel)
    await bound(admin, channel, max_age="0.8 seconds")
    async with slow.session.transaction():
        await slow.session.execute("select pg_sleep(1)")
        published = time.monotonic()
        ids = await slow.publish(*range(count))
    await trim_soon(admin, channel.name)
    await quick.read(limit=0)
    # Unless all that took so long that they are old themselves.
    assert await log_ids(admin, channel.name) == ids or time.monotonic() - published > 0.8


async def test_a_log_keeps_so_many_bytes(make_channel, join, admin):
    channel = await make_channel()
    reader, _stalled = await join(channel), await join(channel)
    ids = await reader.publish(*(["x" * 100] * 20))
    size = await admin.fetchval(f"select sum(pg_column_size(message)) from pgmq.q_bus_{reader.joined['token']}") // 20
    for limit, kept in ((20 * size, 20), (19 * size, 19), (18 * size - 1, 17), (17 * size + 1, 17), (size - 1, 0)):
        await bound(admin, channel, max_bytes=limit)
        await trim_soon(admin, channel.name)
        await reader.read(limit=0)
        assert len(await log_ids(admin, channel.name)) == kept
    assert (await trim_state(admin, channel.name))["trimmed"] == ids[-1]


async def test_what_everybody_read_goes_before_any_bound_is_reached(make_channel, join, admin):
    channel = await make_channel()
    reader = await join(channel)
    await bound(admin, channel, max_age="1 hour", max_messages=1000, max_bytes=1_000_000)
    ids = await reader.publish(*range(10))
    await reader.read(acknowledge=ids[6])
    assert await log_ids(admin, channel.name) == ids[7:]


async def test_the_strictest_bound_counts(make_channel, join, admin):
    channel = await make_channel()
    reader, _stalled = await join(channel), await join(channel)
    ids = await reader.publish(*(["x" * 1000] * 30))
    await make_older(admin, reader, ids[:5], "2 hours")
    steps = [
        ({"max_age": "1 hour", "max_messages": 28, "max_bytes": 10**6}, 5),
        ({"max_age": "1 hour", "max_messages": 20, "max_bytes": 10**6}, 10),
        ({"max_age": "1 hour", "max_messages": 20, "max_bytes": 15_300}, 15),
        ({"max_messages": 1}, 29),
    ]
    for bounds, gone in steps:
        await bound(admin, channel, **bounds)
        await trim_all(admin, channel.name)
        assert await log_ids(admin, channel.name) == ids[gone:]


async def test_ids_that_were_never_given_are_no_messages(make_channel, join, admin):
    """Failed publishes leave gaps, crashes large ones; neither makes the log keep less."""
    channel = await make_channel()
    reader, stalled = await join(channel), await join(channel)
    await bound(admin, channel, max_messages=12)
    ids: list[int] = []
    for _ in range(3):
        ids += await reader.publish(*range(5))
        transaction = reader.session.transaction()
        await transaction.start()
        await reader.publish(*range(100))
        await transaction.rollback()
        await jump(admin, channel.name)
    assert ids[-1] > ids[0] + 2_000_000
    await trim_all(admin, channel.name)
    assert await log_ids(admin, channel.name) == ids[3:]
    await reader.publish("more")
    await trim_all(admin, channel.name)
    assert (await log_ids(admin, channel.name))[:11] == ids[4:]
    rows = await stalled.read()
    assert rows[0] == Row(ids[3], None, 4)


async def test_whoever_is_two_crashes_behind_is_told_the_truth(make_channel, join, admin):
    channel = await make_channel()
    reader, stalled = await join(channel), await join(channel)
    await bound(admin, channel, max_messages=1)
    ids: list[int] = []
    for _ in range(3):
        ids += await reader.publish(1, 2)
        await jump(admin, channel.name)
    ids += await reader.publish(1)
    await trim_all(admin, channel.name)
    assert await stalled.read() == [Row(ids[5], None, 6), Row(ids[6], 1)]
    assert await stalled.read(after=ids[3]) == [Row(ids[5], None, 2), Row(ids[6], 1)]


async def test_trimming_goes_over_a_gap_at_once(make_channel, join, admin):
    channel = await make_channel()
    reader = await join(channel)
    await reader.publish(1, 2)
    await jump(admin, channel.name)
    ids = await reader.publish(3)
    rows = await reader.read()
    assert payloads(rows) == [1, 2, 3]
    await reader.read(acknowledge=ids[0], limit=0)
    for _ in range(2):
        assert await next_trim(admin, channel.name)
        await trim_soon(admin, channel.name)
        await reader.session.execute("select 1")
        await admin.execute("select pgmq_bus.trim($1)", await channel_id(admin, channel.name))
    assert await log_ids(admin, channel.name) == []
    assert (await trim_state(admin, channel.name))["trimmed"] == ids[0]


async def test_a_peer_before_a_gap_without_messages_has_lost_nothing(make_channel, join, admin, elapse):
    channel = await make_channel()
    reader, behind = await join(channel), await join(channel)
    ids = await reader.publish(1)
    await behind.read()
    await behind.read(acknowledge=ids[0], limit=0)
    await jump(admin, channel.name)
    more = await reader.publish(2)
    await elapse(behind, "11 minutes")
    await reader.read(acknowledge=more[0])
    await trim_all(admin, channel.name)
    assert await behind.read() == [Row(more[0], None, 1)]
    query = "select lost from pgmq_bus.peer where queue = $1"
    assert await admin.fetchval(query, behind.queue) == 1
    # In the middle of the gap, as trimming may leave it.
    middle = await join(channel)
    await jump(admin, channel.name)
    await admin.execute(
        "update pgmq_bus.channel_state set trimmed = trimmed + 1000000 where channel_id = $1",
        await channel_id(admin, channel.name),
    )
    assert await middle.read() == [Row(more[0] + 1_000_000, None, None)]
    assert await admin.fetchval(query, middle.queue) == 0


async def test_a_pass_is_bounded_and_the_next_follows_at_once(make_channel, join, admin):
    channel = await make_channel()
    reader, _stalled = await join(channel), await join(channel)
    for _ in range(3):
        ids = await reader.publish(*([0] * 8000))
    await bound(admin, channel, max_messages=1)
    lengths = []
    for _ in range(5):
        await reader.read(limit=0)
        lengths.append(len(await log_ids(admin, channel.name)))
    # The first pass has counted 10000 messages, which are one too many less one.
    assert lengths == [14_001, 4_001, 1, 1, 1]
    assert await log_ids(admin, channel.name) == ids[-1:]


async def test_reading_trims_twice_a_second_only(make_channel, join, admin):
    channel = await make_channel()
    reader, _stalled = await join(channel), await join(channel)
    await bound(admin, channel, max_messages=1)
    await reader.publish(1, 2)
    await reader.read(limit=0)
    again = await next_trim(admin, channel.name)
    ids = await reader.publish(3, 4)
    await reader.read(limit=0)
    # Unless all that took as long.
    assert len(await log_ids(admin, channel.name)) == 3 or await admin.fetchval("select clock_timestamp()") > again
    async with asyncio.timeout(10):
        while await log_ids(admin, channel.name) != ids[1:]:
            await reader.read(limit=0)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("batch", [1, 7, 700])
@pytest.mark.slow
async def test_publishers_without_readers_keep_within_it(make_channel, join, admin, batch):
    channel = await make_channel()
    publisher = await join(channel)
    await bound(admin, channel, max_messages=50)
    longest = 0
    for _ in range(2500 // batch + 1):
        await admin.execute("update pgmq_bus.channel_state set trim_after = '-infinity'")
        await publisher.publish(*([0] * batch))
        longest = max(longest, len(await log_ids(admin, channel.name)))
    assert 500 < longest < 50 + 1024 + batch


async def test_long_polls_trim_as_well(make_channel, connect, join, admin):
    channel = await make_channel()
    stalled = await join(channel)
    await bound(admin, channel, max_messages=3)
    ids = await stalled.publish(*range(10))
    poller = await join(channel)
    assert await poller.bus_subscribe() == []
    assert await log_ids(admin, channel.name) == ids[7:]


async def test_a_bound_that_is_set_later_counts_what_is_there(make_channel, join, admin):
    channel = await make_channel()
    reader, _stalled = await join(channel), await join(channel)
    ids = await reader.publish(*range(20))
    await reader.read(limit=0)
    for limit in (15, 10):
        await bound(admin, channel, max_messages=limit)
        await trim_all(admin, channel.name)
        assert await log_ids(admin, channel.name) == ids[-limit:]
        await bound(admin, channel)
        await trim_all(admin, channel.name)
        assert tuple(await trim_state(admin, channel.name))[1:] == (0, 0, 0)
        await reader.publish(*range(20))
        ids = await log_ids(admin, channel.name)


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories(make_channel, join, admin, elapse, seed):
    """After a trim: exactly the messages that somebody live has not acknowledged, less the oldest beyond a bound."""
    random_ = random.Random(seed)
    channel = await make_channel(limits={"maxMessageBytes": 20_000})
    peers = [await join(channel) for _ in range(3)]
    log = f"pgmq.q_bus_{peers[0].joined['token']}"
    bounds: dict[str, Any] = {}
    published: list[int] = []
    given = 0

    async def contents() -> list[Any]:
        return await admin.fetch(
            f"select msg_id, pg_column_size(message) as bytes, enqueued_at < clock_timestamp() - interval '30 minutes'"
            f" as old from {log} order by msg_id"
        )

    async def publish() -> None:
        nonlocal given
        size = random_.choice([5, 50, 3000, 19_000])
        messages = [random_.randbytes(size // 2).hex() for _ in range(random_.choice([1, 1, 2, 30]))]
        published.extend(await random_.choice(peers).publish(*messages))
        given += len(messages)

    async def fail() -> None:
        nonlocal given
        transaction = peers[0].session.transaction()
        await transaction.start()
        await peers[0].publish(*range(random_.choice([1, 5, 200])))
        await transaction.rollback()

    async def acknowledge() -> None:
        if published:
            await random_.choice(peers).read(acknowledge=random_.choice(published), limit=0)

    async def grow_old() -> None:
        await make_older(admin, peers[0], published[: random_.randrange(len(published) + 1)], "1 hour")

    async def fall_silent() -> None:
        await elapse(random_.choice(peers), "11 minutes")

    async def set_bounds() -> None:
        possible = {
            "max_age": "30 minutes",
            "max_messages": random_.randrange(1, 100),
            "max_bytes": random_.choice([1, 10**4, 10**5]),
        }
        bounds.clear()
        bounds.update({name: value for name, value in possible.items() if random_.random() < 0.5})
        await bound(admin, channel, **bounds)

    async def trim() -> None:
        floor = await admin.fetchval(
            "select min(acknowledged) from pgmq_bus.peer where queue = any ($1)"
            " and last_seen > clock_timestamp() - interval '10 minutes'",
            [peer.queue for peer in peers],
        )
        expected = [row for row in await contents() if floor is None or row["msg_id"] > floor]
        while expected and (
            ("max_age" in bounds and expected[0]["old"])
            or len(expected) > bounds.get("max_messages", len(expected))
            or sum(row["bytes"] for row in expected) > bounds.get("max_bytes", 10**9)
        ):
            del expected[0]
        await trim_all(admin, channel.name)
        assert await contents() == expected, (seed, bounds)
        state = await trim_state(admin, channel.name)
        counted = [row for row in expected if row["msg_id"] <= state["measured_to"]]
        if bounds.keys() & {"max_messages", "max_bytes"}:
            assert counted == expected
        assert state["measured_messages"] == len(counted)
        assert state["measured_bytes"] == sum(row["bytes"] for row in counted)
        left = {row["msg_id"] for row in expected}
        assert not any(msg_id > state["trimmed"] for msg_id in published if msg_id not in left)

    steps = [publish] * 8 + [acknowledge] * 4 + [trim] * 4 + [fail, grow_old, fall_silent, set_bounds, set_bounds]
    for _ in range(120):
        await random_.choice(steps)()
        if random_.random() < 0.03:
            await jump(admin, channel.name)
    await trim()
    # What a peer that saw nothing is told it lost, and what it still gets, is no less than everything.
    rows = await peers[0].read(after=0, limit=10_000)
    lost = sum(row.lost or 0 for row in rows)
    assert given <= lost + len(payloads(rows)) < given + 10_000
