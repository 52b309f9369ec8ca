"""What networks do to doorbells, and that it costs time at most: every message arrives, once and in order."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pgbouncer import pgbouncer
from postgres import Channel, Database, Server
from recorder import Recorder, eventually, note
from relay import Network, block, damage, deliver, disorder, lose

from bus_runtime import PgmqBus, doorbell, log_peer, trust

SEED = 20240607

SOON = 5.0
"""Seconds: on whatever machine, less than the minute between looks at the log."""


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    network = Network(doorbell.open_doorbell)
    monkeypatch.setattr(log_peer, "open_doorbell", network.open_doorbell)
    yield network
    network.close()


@pytest.fixture
def quickly_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doorbells are relied on again after a second."""
    monkeypatch.setattr(trust, "_PATIENCE", 1.0)


def peer_of(bus: PgmqBus) -> Any:
    link: Any = bus._link
    return link._backend._peers[link._session.membership.queue]


async def publish(bus: PgmqBus, numbers: range, pause: float = 0.0) -> None:
    for number in numbers:
        await bus.publish(note(number), raise_on_error=True)
        await asyncio.sleep(pause)


async def arrives(recorder: Recorder, bus: PgmqBus, number: int) -> float:
    """Seconds from the beginning of a publish to its being handled."""
    began = time.monotonic()
    await bus.publish(note(number), raise_on_error=True)
    await eventually(lambda: recorder.numbers[-1:] == [number])
    return time.monotonic() - began


async def all_settled(*buses: PgmqBus) -> None:
    """Everything is acknowledged, and nothing was lost, repeated or given up on the way."""
    await eventually(lambda: all(bus.stats().acknowledged == bus.stats().position for bus in buses))
    for bus in buses:
        stats = bus.stats()
        assert stats.lost == stats.publish_errors == stats.rejoined == 0


@pytest.mark.parametrize("kind", ["lost", "disordered", "damaged"])
async def test_every_message_arrives_once_and_in_order(
    network: Network, make_bus: Any, rng: random.Random, kind: str
) -> None:
    network.become({"lost": lose(rng, 0.3), "disordered": disorder(rng, 0.03, 3), "damaged": damage(rng)}[kind])
    recorders = [Recorder(str(number)) for number in range(3)]
    buses = [await make_bus(recorder, max_poll_seconds=1) for recorder in recorders]
    await asyncio.gather(*(publish(bus, range(n * 200, n * 200 + 200), 0.001) for n, bus in enumerate(buses)))
    await eventually(lambda: all(len(recorder.messages) >= 600 for recorder in recorders), seconds=60)
    assert recorders[0].numbers == recorders[1].numbers == recorders[2].numbers
    assert sorted(recorders[0].numbers) == list(range(600))
    for n in range(3):
        own = [number for number in recorders[0].numbers if number // 200 == n]
        assert own == sorted(own), "a publisher's own order"
    await all_settled(*buses)


async def test_replayed_datagrams_say_nothing_new(network: Network, make_bus: Any) -> None:
    recorder = Recorder()
    reader, writer = await make_bus(recorder), await make_bus()
    relay = network.relays[0]
    await publish(writer, range(50), 0.001)
    await eventually(lambda: recorder.numbers == list(range(50)))
    for datagram in relay.seen * 20:
        relay.send(datagram)
    before = relay.doorbell.counters.rung
    await publish(writer, range(50, 60))
    await eventually(lambda: len(recorder.messages) >= 60 and relay.doorbell.counters.rung > before)
    assert recorder.numbers == list(range(60))
    await all_settled(reader, writer)


async def test_a_flood_of_forgeries_causes_no_statements(
    network: Network, make_bus: Any, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    reader, writer = await make_bus(recorder, max_poll_seconds=60), await make_bus(max_poll_seconds=60)
    await arrives(recorder, writer, 0)
    relay = network.relays[0]
    # A look may have been sooner.
    await eventually(lambda: relay.seen)
    genuine = relay.seen[-1]
    assert reader.stats().wake == "doorbell"
    await all_settled(reader, writer)
    calls = 0
    original = log_peer.LogPeer.read

    async def read(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return await original(*arguments, **options)

    monkeypatch.setattr(log_peer.LogPeer, "read", read)
    began = time.monotonic()
    for _ in range(100):
        for _ in range(50):
            relay.send(genuine[:6] + rng.randbytes(len(genuine) - 6))
            relay.send(genuine[:-1] + bytes([genuine[-1] ^ 1]))
            relay.send(rng.randbytes(rng.randrange(1400)))
        await asyncio.sleep(0.002)
    await eventually(lambda: relay.doorbell.counters.forged > 1000)
    # The two look by themselves, four times a second at most.
    assert calls <= 2 + 8 * (time.monotonic() - began)
    assert await arrives(recorder, writer, 1) < SOON
    assert reader.stats().wake == "doorbell"
    assert recorder.numbers == [0, 1]


async def test_a_flood_with_unknown_keys_causes_few_statements(
    network: Network, make_bus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = 0
    original = log_peer.LogPeer._fetch_roster

    async def fetch(peer: log_peer.LogPeer) -> Any:
        nonlocal fetched
        fetched += 1
        return await original(peer)

    monkeypatch.setattr(log_peer.LogPeer, "_fetch_roster", fetch)
    recorder = Recorder()
    reader, writer = await make_bus(recorder), await make_bus()
    await arrives(recorder, writer, 0)
    await eventually(lambda: peer_of(reader)._roster_version == peer_of(writer)._roster_version == 3)
    relay = network.relays[0]
    # A look may have been sooner.
    await eventually(lambda: relay.seen)
    genuine = relay.seen[-1]
    fetched = 0
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        for _ in range(50):
            relay.send(genuine[:2] + b"none" + genuine[6:])
        await asyncio.sleep(0.005)
    assert 1 <= fetched <= 1 + (time.monotonic() - began)
    assert await arrives(recorder, writer, 1) < SOON


async def test_blocked_one_way(network: Network, make_bus: Any) -> None:
    """The one whose bell is never heard listens instead; the other keeps to doorbells."""
    deaf, hearing = Recorder("deaf"), Recorder("hearing")
    one, two = await make_bus(deaf), await make_bus(hearing)
    network.relays[0].fault = block
    sent = 0
    # What its first read finds need not have been announced, so the first message may not count.
    while one.stats().wake != "listen":
        await arrives(deaf, two, sent)
        sent += 1
    assert deaf.numbers == list(range(sent))
    # Until the other knows of it, and from then on without looking at the log in vain.
    await eventually(lambda: peer_of(two)._announcer._roster.listeners)
    waits = [await arrives(deaf, two, number) for number in range(sent, sent + 20)]
    # Less than the quarter of a second that a look takes to come.
    assert sorted(waits)[10] < 0.2
    assert await arrives(hearing, one, sent + 20) < SOON
    assert one.stats().wake == "listen"
    assert two.stats().wake == "doorbell"
    await all_settled(one, two)


async def test_blocked_and_free_again(network: Network, make_bus: Any, quickly_proven: None) -> None:
    recorder = Recorder()
    reader, writer = await make_bus(recorder, max_poll_seconds=2), await make_bus()
    await arrives(recorder, writer, 0)
    assert reader.stats().wake == "doorbell"
    network.become(block)
    number = 0
    while reader.stats().wake != "listen":
        number += 1
        await arrives(recorder, writer, number)
    network.become(deliver)
    async with asyncio.timeout(60):
        while reader.stats().wake != "doorbell":
            number += 1
            await arrives(recorder, writer, number)
            await asyncio.sleep(0.05)
    await arrives(recorder, writer, number + 1)
    assert recorder.numbers == list(range(number + 2))
    await all_settled(reader, writer)


async def test_blocked_behind_a_transaction_pooler(
    server: Server, channel: Channel, bindings: Any, network: Network, make_bus: Any
) -> None:
    """Neither way is open: it polls, and misses nothing."""
    with pgbouncer(server, "transaction") as pooler:
        pooler.redirect(bindings, channel)
        network.become(block)
        recorder = Recorder()
        reader, writer = await make_bus(recorder, max_poll_seconds=1), await make_bus()
        await arrives(recorder, writer, 0)
        await eventually(lambda: reader.stats().wake == "poll")
        for number in range(1, 20):
            assert await arrives(recorder, writer, number) < SOON
        assert recorder.numbers == list(range(20))
        await asyncio.gather(reader.stop(), writer.stop())


async def test_messages_of_the_reference_client_are_noticed(network: Network, make_bus: Any, channel: Channel) -> None:
    """It rings nobody: its messages are notified of, and doorbells stay in use for the others'."""
    recorder = Recorder()
    reader, writer = await make_bus(recorder, max_poll_seconds=60), await make_bus()
    await arrives(recorder, writer, 0)
    connection = await channel.connect()
    queue = await connection.fetchval("select public.bus_join($1)", channel.name)
    await eventually(lambda: peer_of(reader)._waking._foreign)
    await eventually(lambda: reader.stats().wake == "doorbell")
    for _ in range(10):
        began, before = time.monotonic(), reader.stats().position
        await connection.execute("select public.bus_publish($1, $2, '{}'::jsonb)", channel.name, queue)
        await eventually(lambda before=before: reader.stats().position == before + 1)
        assert time.monotonic() - began < SOON
    assert await arrives(recorder, writer, 1) < SOON
    assert reader.stats().wake == "doorbell"
    await connection.close()


async def test_a_changed_key_is_followed(network: Network, make_bus: Any, database: Database) -> None:
    recorder = Recorder()
    reader, writer = await make_bus(recorder, max_poll_seconds=60), await make_bus()
    await arrives(recorder, writer, 0)
    for number in range(1, 4):
        async with database.session() as session:
            key = await session.fetchval(
                "update pgmq_bus.channel set doorbell_key = sha256(random()::text::bytea), roster = roster + 1 "
                "returning doorbell_key"
            )
        assert await arrives(recorder, writer, number) < SOON
        await eventually(lambda key=key: all(relay.doorbell._key == key for relay in network.relays))
    assert recorder.numbers == [0, 1, 2, 3]
    assert reader.stats().wake == "doorbell"
