"""Messages delivered to each peer: one publisher process with 64 publishes at once, 1 to 32 subscriber processes."""

from benchmarks.bench import Bench
from benchmarks.commands import Publish
from benchmarks.fleet import Fleet, Member
from benchmarks.statistics import milliseconds
from benchmarks.systems import SYSTEMS

IN_FLIGHT = 64
#: How many subscribers, and how many bytes of payload.
CASES = ((1, 200), (8, 200), (32, 200), (1, 4096), (1, 65536))
_QUICK_CASES = ((1, 200), (8, 200), (32, 200), (1, 65536))
#: NOTIFY takes 8000 bytes, JSON included.
_NOTIFY_LIMIT = 7000


def run(bench: Bench) -> None:
    """One round over all cases and systems."""
    for subscribers, size in bench.pick(CASES, _QUICK_CASES):
        for system in bench.rotated(list(SYSTEMS)):
            if system == "notify" and size > _NOTIFY_LIMIT:
                continue
            with bench.attempt(system):
                measure(bench, system, subscribers, size)


def measure(bench: Bench, system: str, subscribers: int, size: int) -> None:
    """One round of one system and case."""
    endpoint = bench.world.endpoint(system)
    with bench.fleet() as fleet:
        receivers = fleet.join(endpoint, subscribers, f"{system} subscriber", receive=True)
        publishers = fleet.join(endpoint, 1, f"{system} publisher", receive=False)
        fleet.warm_up(publishers, receivers, count=20, size=size)
        figures = delivered(
            fleet, publishers, receivers, size, seconds=bench.pick(3.0, 0.8), drain=bench.pick(8.0, 2.0)
        )
    bench.record({"system": system, "subscribers": subscribers, "bytes": size}, figures)


def delivered(
    fleet: Fleet, publishers: list[Member], receivers: list[Member], size: int, *, seconds: float, drain: float
) -> dict[str, float]:
    """Publishes for so many seconds, lets the receivers catch up for at most `drain`, and counts.

    The rate is that of the slowest receiver, from the first publish call to its last message: what a publisher
    gets ahead of its receivers is not counted before it has arrived.
    """
    published = fleet.publish(publishers, Publish(size, in_flight=IN_FLIGHT, seconds=seconds), timeout=seconds + 60)
    count = sum(p.count for p in published)
    received = fleet.receive(receivers, count, timeout=drain, quiet=1.0)
    rates = [r.count / (r.arrived[-1] - r.first_published) * 1e9 for r in received if r.count]
    if len(rates) < len(receivers):
        return {"delivered_per_s": 0.0, "published_per_s": sum(p.per_second for p in published), "received_share": 0.0}
    latencies = milliseconds([latency for r in received for latency in r.latencies])
    return {
        "delivered_per_s": min(rates),
        "published_per_s": sum(p.per_second for p in published),
        "received_share": min(r.count for r in received) / count if count else 0.0,
        "p50_ms": latencies["p50_ms"],
        "p99_ms": latencies["p99_ms"],
        "errors": float(sum(p.errors for p in published)),
    }
