"""A modest load, as sessions have it: latency, what a message costs the server, and what idle workers cost it."""

import time

from benchmarks.bench import Bench
from benchmarks.commands import Publish
from benchmarks.cpu import server_seconds, share_of_a_core
from benchmarks.errors import BenchmarkError
from benchmarks.statistics import milliseconds

SIZE = 200
#: Besides the one that publishes, which is a peer as well.
WORKERS = 8
#: Messages a second: a quarter of what the slowest system here carries to 8 workers.
RATE = 50.0


def measure(bench: Bench, system: str) -> None:
    """One round of one system.

    Raises:
        BenchmarkError: A message did not arrive at every worker, so the rest is not comparable.
    """
    endpoint = bench.world.endpoint(system)
    with bench.fleet() as fleet:
        receivers = fleet.join(endpoint, WORKERS, f"{system} worker", receive=True)
        publishers = fleet.join(endpoint, 1, f"{system} publisher", receive=False)
        fleet.warm_up(publishers, receivers, count=20, size=SIZE)
        # Having joined is not yet being idle.
        time.sleep(bench.pick(3.0, 1.0))
        server = bench.world.server_pid(system)
        idle = share_of_a_core(server, bench.pick(5.0, 1.0))
        before = server_seconds(server)
        (published,) = fleet.publish(publishers, Publish(SIZE, seconds=bench.pick(6.0, 2.0), rate=RATE), timeout=60)
        received = fleet.receive(receivers, published.count, timeout=30, quiet=10.0)
        used = server_seconds(server) - before
    fewest = min(r.count for r in received)
    if fewest < published.count or published.errors:
        raise BenchmarkError(
            f"of {published.count} messages a worker got {fewest}, {published.errors} were refused; see {bench.log}"
        )
    latencies = milliseconds([latency for r in received for latency in r.latencies])
    bench.record(
        {"system": system},
        latencies | {"server_cpu_us_per_message": used / published.count * 1e6, "idle_cpu_percent": idle * 100},
    )
