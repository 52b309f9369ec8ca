"""What one publish costs the server as the channel's peers grow: processor time of all its processes."""

import time

from benchmarks.bench import Bench
from benchmarks.clients.base import Endpoint
from benchmarks.commands import Connect, Connected, Publish
from benchmarks.cpu import server_seconds, share_of_a_core
from benchmarks.errors import BenchmarkError

SIZE = 200
PEERS = (1, 8, 32, 128)
#: Publishes a second: slow enough that 128 peers in two processes read along.
RATE = 100.0
_PROCESSES = 2


def run(bench: Bench) -> None:
    """One round over the numbers of peers."""
    numbers = bench.pick(PEERS, (PEERS[0], PEERS[-1]))
    for peers in numbers if bench.round % 2 else reversed(numbers):
        with bench.attempt(f"{peers} peers"):
            _measure(bench, peers)


def _measure(bench: Bench, peers: int) -> None:
    server = bench.world.postgres
    endpoint = bench.world.channel(server, "cost", "cost", durability="Sync")
    shares = [peers // _PROCESSES + (n < peers % _PROCESSES) for n in range(_PROCESSES)]
    shares = [share for share in shares if share]
    with bench.fleet() as fleet:
        readers = fleet.spawn(len(shares), "peers")
        connects = [Connect(tuple[Endpoint, ...]([endpoint] * share), receive=True) for share in shares]
        for answer in fleet.ask(readers, connects, Connected, timeout=60):
            if answer.failures:
                raise BenchmarkError(f"could not join: {answer.failures[0]}")
        publishers = fleet.join(endpoint, 1, "publisher", receive=False)
        fleet.publish(publishers, Publish(SIZE, count=100, rate=RATE, warm_up=True), timeout=60)
        time.sleep(bench.pick(5.0, 3.0))
        idle = share_of_a_core(server.pid, bench.pick(5.0, 1.5))
        before = server_seconds(server.pid)
        (published,) = fleet.publish(publishers, Publish(SIZE, seconds=bench.pick(10.0, 3.0), rate=RATE), timeout=60)
        # Readers that lag behind still cause costs; the time is up when all have read, or do not get on.
        received = [
            fleet.receive([reader], published.count * share, timeout=20)[0]
            for reader, share in zip(readers, shares, strict=True)
        ]
        used = server_seconds(server.pid) - before
    bench.record(
        {"peers": peers},
        {
            "cpu_us_per_publish": used / published.count * 1e6,
            "idle_cpu_percent": idle * 100,
            "published_per_s": published.per_second,
            "received_share": sum(r.count for r in received) / (published.count * peers),
        },
    )
