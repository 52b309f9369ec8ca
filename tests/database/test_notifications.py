"""Who is notified, by which call: a notifying commit holds a lock of the whole server, so never one that flushes."""

import asyncio
import time

import asyncpg
import pytest
from wire import Peer, payloads

DURABILITIES = ["Sync", "Async", "Unlogged"]


class Listener:
    """A session that listens to a channel's wake name, and what it heard."""

    def __init__(self, session: asyncpg.Connection, wake: str) -> None:
        self._session = session
        self._wake = wake
        self._heard: list[str] = []
        self._event = asyncio.Event()

    @classmethod
    async def listen(cls, session: asyncpg.Connection, wake: str) -> "Listener":
        listener = cls(session, wake)
        await session.add_listener(wake, listener._hear)
        return listener

    def _hear(self, _session, _pid, _channel, payload: str) -> None:
        self._heard.append(payload)
        self._event.set()

    async def heard(self) -> list[str]:
        """What was heard since the last time. Notifications arrive in the order of commits, so a marker ends them."""
        await self._session.execute("select pg_notify($1, 'marker')", self._wake)
        async with asyncio.timeout(10):
            while "marker" not in self._heard:
                self._event.clear()
                await self._event.wait()
        heard, self._heard = self._heard, []
        assert heard[-1] == "marker"
        return heard[:-1]


@pytest.fixture
def listen(connect):
    async def start(channel, wake: str) -> Listener:
        return await Listener.listen(await connect(channel), wake)

    return start


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_publishing_by_the_channels_function_notifies_nobody(make_channel, join, listen, durability):
    channel = await make_channel(durability=durability)
    peer = await join(channel, listens=True)
    listener = await listen(channel, peer.joined["wake"])
    await peer.publish(1)
    await peer.publish(1, 2)
    ids = await peer.read()
    await peer.read(acknowledge=ids[-1].msg_id)
    await peer.wake_by(None, listens=True)
    await peer.leave()
    assert await listener.heard() == []


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_notify_wakes_those_who_listen_without_waiting_for_the_disk(make_channel, join, listen, durability):
    channel = await make_channel(durability=durability)
    peer = await join(channel)
    listener = await listen(channel, peer.joined["wake"])
    elsewhere = await make_channel()
    deaf = await listen(elsewhere, (await join(elsewhere)).joined["wake"])
    await peer.notify()
    assert await listener.heard() == [""]
    async with peer.session.transaction():
        await peer.notify()
        assert await peer.session.fetchval("show synchronous_commit") == "off"
        assert await listener.heard() == []
    assert await listener.heard() == [""]
    assert await peer.session.fetchval("show synchronous_commit") == "on"
    assert await deaf.heard() == []


async def test_notify_in_a_publishers_transaction_leaves_it_its_durability(make_channel, join):
    peer = await join(await make_channel())
    async with peer.session.transaction():
        await peer.publish(1)
        await peer.notify()
        assert await peer.session.fetchval("show synchronous_commit") == "on"


@pytest.mark.parametrize("durability", ["Async", "Unlogged"])
async def test_a_foreign_publish_that_does_not_flush_notifies_itself(make_channel, join, connect, listen, durability):
    channel = await make_channel(durability=durability)
    foreign = await Peer.bus_join(await connect(channel), channel.name)
    listener = await listen(channel, (await join(channel)).joined["wake"])
    async with foreign.session.transaction():
        await foreign.bus_publish(1)
        assert await listener.heard() == []
    assert await listener.heard() == [""]
    transaction = foreign.session.transaction()
    await transaction.start()
    await foreign.bus_publish(2)
    await transaction.rollback()
    assert payloads(await foreign.bus_subscribe()) == [1]
    assert await listener.heard() == []


async def test_after_a_foreign_publish_that_flushes_its_next_poll_notifies(make_channel, join, connect, listen):
    channel = await make_channel()
    one, two = [await Peer.bus_join(await connect(channel), channel.name) for _ in range(2)]
    peer = await join(channel)
    listener = await listen(channel, peer.joined["wake"])
    ids = await one.bus_publish(1)
    assert await listener.heard() == []
    # Nobody else's poll or read does.
    assert payloads(await two.bus_subscribe()) == [1]
    assert payloads(await peer.read()) == [1]
    assert await listener.heard() == []
    assert payloads(await one.bus_subscribe()) == [1]
    assert await listener.heard() == [""]
    await one.bus_archive(ids[0])
    assert await one.bus_subscribe() == []
    assert await listener.heard() == []


async def test_a_poll_that_is_waiting_notifies_at_once(make_channel, join, connect, listen, waits):
    """As pipecat's client does it: one session publishes, another is polling all the while."""
    # Again where the machine is too slow to tell: a poll ends after a second in any case.
    for _ in range(5):
        channel = await make_channel(selfDelivery=False)
        foreign = await Peer.bus_join(await connect(channel), channel.name)
        polling = Peer(await connect(channel), channel.name, foreign.queue)
        listener = await listen(channel, (await join(channel)).joined["wake"])
        poll = asyncio.create_task(polling.bus_subscribe(seconds=30))
        await waits(polling.session, asleep=True)
        started = time.monotonic()
        await foreign.bus_publish("mine")
        assert await poll == []  # it is left out, and yet ends the poll: the notification goes out with the commit
        if time.monotonic() - started < 0.5:
            assert await listener.heard() == [""]
            return
    pytest.fail("it ended late each time")


async def test_polling_notifies_without_waiting_for_the_disk(make_channel, connect):
    channel = await make_channel()
    foreign = await Peer.bus_join(await connect(channel), channel.name)
    await foreign.bus_publish(1)
    async with foreign.session.transaction():
        await foreign.bus_subscribe()
        assert await foreign.session.fetchval("show synchronous_commit") == "off"


async def test_a_new_wake_name_is_used_from_then_on(make_channel, join, listen, admin):
    channel = await make_channel()
    peer = await join(channel)
    old = await listen(channel, peer.joined["wake"])
    await admin.execute(
        "update pgmq_bus.channel set wake = 'bus_new_' || id, roster = roster + 1 where name = $1", channel.name
    )
    new = await listen(channel, (await peer.fetch_roster())["wake"])
    await peer.notify()
    assert await new.heard() == [""]
    assert await old.heard() == []
