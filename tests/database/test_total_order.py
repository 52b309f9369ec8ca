"""Every peer sees every message once and in the same order, whoever publishes when."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from wire import Peer, payloads

Join = Callable[..., Awaitable[Peer]]

PUBLISHERS = 16
READERS = 4
MESSAGES = 25


async def follow(peer: Peer, until: int) -> list[Any]:
    """Reads and acknowledges with a cursor until so many messages came."""
    seen: list[Any] = []
    after = peer.joined["position"]
    while len(seen) < until:
        rows = await peer.read(after=after, acknowledge=after, limit=37)
        if rows:
            after = rows[-1].msg_id
            seen += payloads(rows)
        else:
            await asyncio.sleep(0.005)
    return seen


async def follow_by_wrappers(peer: Peer, until: int) -> list[Any]:
    """The same as a pipecat client does it."""
    seen: list[Any] = []
    while len(seen) < until:
        for row in await peer.bus_subscribe(quantity=10, seconds=1):
            seen.append(row.message)
            assert await peer.bus_archive(row.msg_id)
    return seen


async def dawdle(peer: Peer, name: str, messages: int, *, pause: float) -> None:
    """Publishes in transactions that stay open: ids are allocated long before they are committed."""
    for n in range(messages):
        async with peer.session.transaction():
            await peer.publish([name, n])
            await asyncio.sleep(pause)


async def hurry(peer: Peer, name: str, messages: int) -> None:
    """One after the other, by the wrapper, alone and in batches."""
    n = 0
    while n < messages:
        size = min(1 + n % 4, messages - n)
        if size == 1 and n % 3 == 0:
            await peer.bus_publish([name, n])
        else:
            await peer.publish(*([name, n + k] for k in range(size)))
        n += size


async def test_racing_publishers(make_channel, join: Join):
    channel = await make_channel()
    readers = [await join(channel) for _ in range(READERS)]
    publishers = [await join(channel) for _ in range(PUBLISHERS)]
    total = PUBLISHERS * MESSAGES
    ways = [follow, follow, follow_by_wrappers, follow_by_wrappers]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        reading = [group.create_task(way(reader, total)) for way, reader in zip(ways, readers, strict=True)]
        group.create_task(dawdle(publishers[0], "p0", MESSAGES, pause=0.01))
        for index, publisher in enumerate(publishers[1:], 1):
            group.create_task(hurry(publisher, f"p{index}", MESSAGES))
    seen = [[tuple(message) for message in task.result()] for task in reading]
    assert len(seen[0]) == len(set(seen[0])) == total
    for other in seen[1:]:
        assert other == seen[0]
    for index in range(PUBLISHERS):
        assert [n for name, n in seen[0] if name == f"p{index}"] == list(range(MESSAGES))
    for way, reader in zip(ways, readers, strict=True):
        assert await (reader.read() if way is follow else reader.bus_subscribe()) == []


async def test_who_joins_meanwhile_sees_the_rest_and_nothing_else(make_channel, join: Join, connect):
    channel = await make_channel()
    publishers = [await join(channel) for _ in range(6)]
    total = 6 * MESSAGES
    sessions = [await connect(channel) for _ in range(8)]
    started = asyncio.Event()

    async def come(session: asyncpg.Connection, number: int) -> list[Any]:
        await started.wait()
        await asyncio.sleep(number * 0.02)
        peer = await join(channel, session)
        seen: list[Any] = []
        finished = False
        while (rows := await peer.read()) or not finished:
            seen += rows
            # Before the next read: what is committed while one is on its way may not be in it.
            finished = all(task.done() for task in publishing)
            await asyncio.sleep(0.001)
        return [row.msg_id for row in seen]

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        publishing = [
            group.create_task(dawdle(peer, f"p{n}", MESSAGES, pause=0.002) if n < 2 else hurry(peer, f"p{n}", MESSAGES))
            for n, peer in enumerate(publishers)
        ]
        coming = [group.create_task(come(session, number)) for number, session in enumerate(sessions)]
        started.set()
    everything = [row.msg_id for row in await publishers[0].read(after=0, limit=1000)]
    assert len(everything) == total
    for task in coming:
        seen = task.result()
        assert seen == everything[total - len(seen) :]


async def a_reader_meets_a_dawdler(join: Join, channel: Any, *, patience: float = 0.5) -> list[Any]:
    """One transaction is open with its message while another publisher and a reader go on; what the reader saw.

    So many seconds at most until it saw something.
    """
    slow, quick, reader = [await join(channel) for _ in range(3)]
    transaction = slow.session.transaction()
    await transaction.start()
    await slow.publish("slow")
    publishing = asyncio.create_task(quick.publish("quick"))
    rows: list[Any] = []
    deadline = time.monotonic() + patience
    while not rows and time.monotonic() < deadline:
        rows = await reader.read(after=0)
        await asyncio.sleep(0.01)
    await transaction.commit()
    await publishing
    after = rows[-1].msg_id if rows else 0
    return payloads(rows) + payloads(await reader.read(after=after))


async def test_a_dawdling_publisher_is_not_overtaken(make_channel, join: Join):
    assert await a_reader_meets_a_dawdler(join, await make_channel()) == ["slow", "quick"]


async def test_without_the_lock_a_message_is_lost(database, join: Join):
    """The tests above can fail: without the publish lock the reader passes over a message for ever."""
    channel = await database.create_channel()
    admin = await database.server.connect(database.name)
    publish = await admin.fetchval(
        "select pg_get_functiondef(oid) from pg_proc where proname like 'publish%'"
        " and pronamespace = 'pgmq_bus_channel'::regnamespace"
    )
    lock = "for no key update of c skip locked"
    assert publish.count(lock) == 1
    await admin.execute(publish.replace(lock, ""))
    await admin.close()
    assert await a_reader_meets_a_dawdler(join, channel, patience=30) == ["quick"]


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_order_holds_for_publishers_of_every_isolation_level(make_channel, join: Join, isolation):
    channel = await make_channel()
    publishers = [await join(channel) for _ in range(4)]
    reader = await join(channel)

    async def publish(peer: Peer, name: str) -> None:
        for n in range(10):
            async with peer.session.transaction(isolation=isolation):
                await peer.session.execute("select 1")  # takes the snapshot before the lock
                await peer.publish([name, n])

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(follow(reader, 40))
        for index, peer in enumerate(publishers):
            group.create_task(publish(peer, str(index)))
    seen = reading.result()
    for index in range(4):
        assert [n for name, n in seen if name == str(index)] == list(range(10))


async def test_a_killed_reader_is_given_the_unacknowledged_again(make_channel, join: Join, connect):
    channel = await make_channel()
    publisher, durable = await join(channel), await join(channel, peer="worker")
    poller = await Peer.bus_join(await connect(channel), channel.name)
    ids = await publisher.publish(*range(10))
    assert len(await durable.read()) == 10
    await durable.read(acknowledge=ids[3], limit=0)
    assert len(await poller.bus_subscribe()) == 10
    await poller.bus_archive(ids[5])
    for peer in (durable, poller):
        peer.session.terminate()
    # A process that starts anew under the same name, and one that goes on with what it was.
    assert payloads(await (await join(channel, peer="worker")).read()) == [4, 5, 6, 7, 8, 9]
    successor = Peer(await connect(channel), channel.name, poller.queue)
    assert payloads(await successor.bus_subscribe()) == [6, 7, 8, 9]


class TestAHeldPublishLock:
    """A member keeps its transaction open after publishing."""

    async def test_others_get_a_clear_error_and_other_channels_go_on(self, database, join: Join):
        admin = await database.server.connect(database.name)
        function = "pgmq_bus.lock_channel(integer)"
        configuration = await admin.fetchval("select proconfig from pg_proc where oid = $1::regprocedure", function)
        assert "lock_timeout=5s" in configuration
        await admin.execute(f"alter function {function} set lock_timeout = '1s'")
        await admin.close()
        channel, neighbour = await database.create_channel("a"), await database.create_channel("b")
        holder, other, reader = [await join(channel) for _ in range(3)]
        elsewhere = await join(neighbour)
        await other.publish("before")
        transaction = holder.session.transaction()
        await transaction.start()
        await holder.publish("held")
        refused = asyncio.gather(other.publish("x"), join(channel), return_exceptions=True)
        assert await elsewhere.publish("free")
        assert payloads(await reader.read()) == ["before"]
        assert not refused.done()
        for error in await refused:
            assert isinstance(error, asyncpg.LockNotAvailableError)
            assert error.message == "bus: channel is busy: another session holds its publish lock"
            assert error.hint
        await transaction.commit()
        assert await other.publish("after")
        assert payloads(await reader.read()) == ["held", "after"]

    async def test_the_logins_timeouts_bound_how_long(self, make_channel, connect):
        session = await connect(await make_channel())
        settings = {
            name: await session.fetchval(f"show {name}")
            for name in (
                "idle_in_transaction_session_timeout",
                "statement_timeout",
                "search_path",
                "jit",
                "tcp_keepalives_idle",
                "tcp_keepalives_interval",
                "tcp_keepalives_count",
                "tcp_user_timeout",
            )
        }
        assert settings == {
            "idle_in_transaction_session_timeout": "15s",
            "statement_timeout": "30s",
            "search_path": "pg_catalog, pg_temp",
            "jit": "off",
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "60000",
        }
