"""A busy channel beside 300 idle peers of other channels in the same database: does it notice them?"""

import time

from benchmarks.bench import Bench
from benchmarks.clients.base import Endpoint
from benchmarks.commands import Connect, Connected, Publish
from benchmarks.errors import BenchmarkError
from benchmarks.fleet import Fleet
from benchmarks.scenarios.latency import GAP
from benchmarks.scenarios.throughput import delivered
from benchmarks.statistics import milliseconds

SIZE = 200
SUBSCRIBERS = 4
IDLE_PEERS = 300
_IDLE_CHANNELS = 10
_IDLE_PROCESSES = 3


def run(bench: Bench) -> None:
    """One round: with and without, in turns."""
    for idle in (0, IDLE_PEERS) if bench.round % 2 else (IDLE_PEERS, 0):
        with bench.fleet() as crowd:
            if idle:
                _gather(bench, crowd)
                # Having joined is not yet being idle.
                time.sleep(bench.pick(5.0, 3.0))
            _measure(bench, idle)


def _gather(bench: Bench, crowd: Fleet) -> None:
    names = [f"idle{number}" for number in range(_IDLE_CHANNELS)]
    endpoints = bench.world.channels(bench.world.postgres, "crowd", names)
    peers: list[Endpoint] = [endpoints[n % _IDLE_CHANNELS] for n in range(IDLE_PEERS)]
    members = crowd.spawn(_IDLE_PROCESSES, "idle peers")
    connects = [Connect(tuple(peers[n::_IDLE_PROCESSES]), receive=True) for n in range(_IDLE_PROCESSES)]
    for answer in crowd.ask(members, connects, Connected, timeout=90):
        if answer.failures:
            raise BenchmarkError(f"an idle peer could not join: {answer.failures[0]}")


def _measure(bench: Bench, idle: int) -> None:
    endpoint = bench.world.channel(bench.world.postgres, "crowd", "busy", durability="Async")
    with bench.fleet() as fleet:
        receivers = fleet.join(endpoint, SUBSCRIBERS, "subscriber", receive=True)
        publishers = fleet.join(endpoint, 1, "publisher", receive=False)
        fleet.warm_up(publishers, receivers, count=20, size=SIZE)
        (published,) = fleet.publish(publishers, Publish(SIZE, count=bench.pick(200, 60), gap=GAP), timeout=60)
        received = fleet.receive(receivers, published.count, timeout=20)
        quiet = milliseconds([latency for r in received for latency in r.latencies])
        fleet.warm_up(publishers, receivers, count=20, size=SIZE)
        loaded = delivered(fleet, publishers, receivers, SIZE, seconds=bench.pick(4.0, 2.0), drain=bench.pick(8.0, 4.0))
    bench.record(
        {"idle_peers": idle},
        {
            "delivered_per_s": loaded["delivered_per_s"],
            "p50_ms": quiet["p50_ms"],
            "p99_ms": quiet["p99_ms"],
            "loaded_p50_ms": loaded.get("p50_ms", 0.0),
            "received_share": loaded["received_share"],
        },
    )
