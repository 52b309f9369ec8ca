"""A disk that takes 5 ms for each flush: do publishes share flushes, and do channels queue behind each other?"""

import asyncio
import time

import asyncpg

from benchmarks.bench import Bench
from benchmarks.clients.base import Endpoint
from benchmarks.commands import Connect, Connected, Publish, Published
from benchmarks.errors import BenchmarkError

SIZE = 200
PUBLISHERS = 16
IN_FLIGHT = 64
CHANNELS = 64
_PROCESSES = 4


def run(bench: Bench) -> None:
    """One round: plain commits, one channel with many publishers, many channels, one channel."""
    bench.record({"what": "plain commits"}, {"per_s": asyncio.run(_commits_per_second(bench))})
    _many_publishers(bench)
    channels = [f"channel{number}" for number in range(CHANNELS)]
    for names in (channels[:1], channels) if bench.round % 2 else (channels, channels[:1]):
        _channels(bench, names)


async def _commits_per_second(bench: Bench) -> float:
    """One session that commits one row after the other: shows that a flush takes what it should."""
    connection = await asyncpg.connect(bench.world.slow_postgres.uri())
    try:
        await connection.execute("create table if not exists plain (n integer)")
        began, count = time.monotonic(), 0
        while (seconds := time.monotonic() - began) < 1:
            await connection.execute("insert into plain values (1)")
            count += 1
        return count / seconds
    finally:
        await connection.close()


def _many_publishers(bench: Bench) -> None:
    seconds = bench.pick(8.0, 4.0)
    endpoint = bench.world.channel(bench.world.slow_postgres, "one", "busy", durability="Sync")
    with bench.fleet() as fleet:
        publishers = fleet.join(endpoint, PUBLISHERS, "publisher", receive=False)
        fleet.publish(publishers, Publish(SIZE, in_flight=IN_FLIGHT, seconds=1, warm_up=True), timeout=60)
        published = fleet.publish(publishers, Publish(SIZE, in_flight=IN_FLIGHT, seconds=seconds), timeout=120)
    bench.record({"what": "16 publishers, one channel"}, _figures(published))


def _channels(bench: Bench, names: list[str]) -> None:
    """One publish at a time on each channel."""
    endpoints = bench.world.channels(bench.world.slow_postgres, "many", names, durability="Sync")
    shares = [tuple[Endpoint, ...](endpoints[n::_PROCESSES]) for n in range(_PROCESSES)]
    with bench.fleet() as fleet:
        publishers = fleet.spawn(min(_PROCESSES, len(names)), "publisher")
        connects = [Connect(share, receive=False) for share in shares if share]
        for answer in fleet.ask(publishers, connects, Connected, timeout=60):
            if answer.failures:
                raise BenchmarkError(f"could not join: {answer.failures[0]}")
        fleet.publish(publishers, Publish(SIZE, seconds=0.5, warm_up=True), timeout=60)
        published = fleet.publish(publishers, Publish(SIZE, seconds=bench.pick(5.0, 3.0)), timeout=60)
    bench.record({"what": "channels, one publish at a time each", "channels": len(names)}, _figures(published))


def _figures(published: list[Published]) -> dict[str, float]:
    return {
        "published_per_s": sum(p.per_second for p in published),
        "errors": float(sum(p.errors for p in published)),
    }
