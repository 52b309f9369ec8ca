"""One-way latency of an idle channel: one publisher that pauses at random, one subscriber."""

from benchmarks.bench import Bench
from benchmarks.commands import Publish
from benchmarks.statistics import milliseconds, percentile
from benchmarks.systems import SYSTEMS

SIZE = 200
#: Seconds between publishes: long enough that everybody is asleep again.
GAP = (0.010, 0.060)


def run(bench: Bench) -> None:
    """One round over all systems."""
    for system in bench.rotated(list(SYSTEMS)):
        with bench.attempt(system):
            measure(bench, system)


def measure(bench: Bench, system: str) -> None:
    """One round of one system."""
    count = bench.pick(300, 60)
    endpoint = bench.world.endpoint(system)
    with bench.fleet() as fleet:
        subscribers = fleet.join(endpoint, 1, f"{system} subscriber", receive=True)
        publishers = fleet.join(endpoint, 1, f"{system} publisher", receive=False)
        fleet.warm_up(publishers, subscribers, count=20, size=SIZE)
        (published,) = fleet.publish(publishers, Publish(SIZE, count=count, gap=GAP), timeout=120)
        (received,) = fleet.receive(subscribers, published.count, timeout=30)
    bench.record(
        {"system": system},
        milliseconds(received.latencies)
        | {
            "publish_p50_ms": percentile(sorted(published.calls), 0.5) / 1e6,
            "received_share": received.count / count,
        },
    )
