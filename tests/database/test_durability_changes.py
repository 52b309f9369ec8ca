"""Durability and retention that change while the channel is in use."""

import asyncio
from datetime import timedelta
from typing import Any

import postgres
import pytest
from wire import Peer, payloads

from bus_operator import actions, provision
from bus_operator.actions import DesiredChannel
from bus_operator.errors import TransientError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential

PERSISTENCE = """
select c.durability, m.is_unlogged, log.relpersistence::text, sequence.relpersistence::text
from pgmq_bus.channel as c
join pgmq.meta as m on m.queue_name = c.queue
join pg_class as log on log.oid = to_regclass('pgmq.q_' || c.queue)
join pg_class as sequence on sequence.oid = to_regclass('pgmq.q_' || c.queue || '_msg_id_seq')
where c.name = $1
"""
LOGGED, UNLOGGED = (False, "p", "p"), (True, "u", "p")


async def change(database: postgres.Database, channel: postgres.Channel, **spec: Any) -> list[type]:
    """What another manifest does to the channel: the types of the actions."""
    parsed = ChannelSpec.model_validate({"channel": channel.name, **spec})
    desired = DesiredChannel.from_spec(parsed, namespace="test", name="test", uid=Uid(f"uid-{channel.name}"))
    async with database.session() as session:
        held = HeldCredential(channel.username, channel.password)
        return [type(action) for action in (await provision.provision(session, desired, held)).actions]


async def persistence(database: postgres.Database, channel: postgres.Channel) -> tuple[Any, ...]:
    async with database.session() as session:
        return tuple(await session.fetchrow(PERSISTENCE, channel.name))


async def test_nothing_is_lost_or_reordered_while_it_changes(shared, make_channel, join, connect):
    channel = await make_channel()
    reader, sleeper = await join(channel), await join(channel)
    poller = await Peer.bus_join(await connect(channel), channel.name)
    publishers = [await join(channel) for _ in range(3)]
    enough, done = asyncio.Event(), asyncio.Event()
    published: dict[int, list[Any]] = {}
    polled: list[Any] = []

    async def publish(number: int, peer: Peer) -> None:
        count = 0
        while not enough.is_set():
            (msg_id,) = await peer.publish([number, count])
            published[msg_id] = [number, count]
            count += 1

    async def poll() -> None:
        while not done.is_set() or len(polled) < len(published):
            rows = await poller.bus_subscribe(seconds=1)
            polled.extend(payloads(rows))
            if rows:
                await poller.bus_archive(rows[-1].msg_id)

    changes = (("Unlogged", UNLOGGED), ("Async", LOGGED), ("Sync", LOGGED), ("Unlogged", UNLOGGED))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(poll())
        async with asyncio.TaskGroup() as publishing:
            for number, peer in enumerate(publishers):
                publishing.create_task(publish(number, peer))
            for durability, expected in changes:
                before = len(published)
                assert await change(shared, channel, durability=durability)
                assert await persistence(shared, channel) == (durability, *expected)
                assert await change(shared, channel, durability=durability) == []
                while len(published) < before + 50:
                    await asyncio.sleep(0.01)
            enough.set()
        done.set()
    in_order = [published[msg_id] for msg_id in sorted(published)]
    for number in range(len(publishers)):
        counts = [count for source, count in in_order if source == number]
        assert counts == list(range(len(counts)))
    assert len(in_order) > 200
    assert polled == in_order
    for peer in (reader, sleeper):
        assert payloads(await peer.read(limit=10000)) == in_order[:10000]


async def test_sync_and_async_differ_in_the_registry_only(shared, make_channel):
    channel = await make_channel()
    assert await change(shared, channel, durability="Async") == [actions.UpdateChannel]
    assert await persistence(shared, channel) == ("Async", *LOGGED)


async def test_a_channel_may_be_unlogged_from_the_start(shared, make_channel, join):
    channel = await make_channel(durability="Unlogged")
    assert await persistence(shared, channel) == ("Unlogged", *UNLOGGED)
    peer = await join(channel)
    await peer.publish("message")
    assert payloads(await peer.read()) == ["message"]
    assert await change(shared, channel, durability="Unlogged") == []


@pytest.mark.parametrize(
    ("durability", "by_hand"),
    [
        ("Sync", "alter table {log} set unlogged"),
        ("Sync", "alter sequence {log}_msg_id_seq set unlogged"),
        ("Unlogged", "alter table {log} set logged"),
        # As pgmq makes it, and earlier versions left it.
        ("Unlogged", "alter sequence {log}_msg_id_seq set unlogged"),
    ],
)
async def test_what_was_changed_by_hand_is_put_right(shared, make_channel, join, admin, durability, by_hand):
    channel = await make_channel(durability=durability)
    peer = await join(channel)
    await peer.publish("message")
    await admin.execute(by_hand.format(log=f"pgmq.q_bus_{peer.joined['token']}"))
    assert await change(shared, channel, durability=durability) == [actions.SetLogPersistence]
    assert await persistence(shared, channel) == (durability, *(UNLOGGED if durability == "Unlogged" else LOGGED))
    assert payloads(await peer.read()) == ["message"]


async def test_a_lost_log_comes_back_unlogged(shared, make_channel, join, admin):
    channel = await make_channel(durability="Unlogged")
    peer = await join(channel)
    await admin.execute(f"drop table pgmq.q_bus_{peer.joined['token']}")
    assert await change(shared, channel, durability="Unlogged") == [actions.RecreateLog]
    assert await persistence(shared, channel) == ("Unlogged", *UNLOGGED)
    assert await peer.publish("message")


@pytest.mark.parametrize("holding", ["read", "publish"])
@pytest.mark.slow
async def test_a_member_that_keeps_a_transaction_open_only_delays_it(shared, make_channel, join, holding):
    channel = await make_channel()
    peer, other = await join(channel), await join(channel)
    transaction = peer.session.transaction()
    await transaction.start()
    if holding == "read":
        await peer.read()
    else:
        await peer.publish("held")
    with pytest.raises(TransientError, match="keeps a transaction open") as caught:
        await change(shared, channel, durability="Unlogged")
    assert caught.value.reason == "ChannelBusy"
    assert await persistence(shared, channel) == ("Sync", *LOGGED)
    await transaction.commit()
    await other.publish("goes on")
    assert actions.SetLogPersistence in await change(shared, channel, durability="Unlogged")
    assert payloads(await other.read())[-1] == "goes on"


async def test_retention_is_set_changed_and_taken_away(shared, make_channel):
    channel = await make_channel(retention={"maxAge": "1h"})

    async def bounds() -> tuple[Any, ...]:
        async with shared.session() as session:
            query = "select max_age, max_messages, max_bytes from pgmq_bus.channel where name = $1"
            return tuple(await session.fetchrow(query, channel.name))

    assert await bounds() == (timedelta(hours=1), None, None)
    retention = {"maxAge": "8760h", "maxMessages": 10, "maxBytes": 65536}
    assert await change(shared, channel, retention=retention) == [actions.UpdateChannel]
    assert await bounds() == (timedelta(days=365), 10, 65536)
    assert await change(shared, channel, retention=retention) == []
    assert await change(shared, channel) == [actions.UpdateChannel]
    assert await bounds() == (None, None, None)
