"""5,000 messages a second for ten minutes to four peers: does the log stay small, and latency the same?"""

import time
from array import array
from collections import defaultdict

from benchmarks.bench import Bench, Clock
from benchmarks.commands import Publish, Published, Received
from benchmarks.errors import BenchmarkError
from benchmarks.statistics import NS_PER_MS, percentile

SIZE = 200
RATE = 5000.0
PEERS = 4
_DATABASE = "soak"
#: All that the bus keeps in the database: the log with its indexes, and the registry.
_LOG_BYTES = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where n.nspname like 'pgmq%' and c.relkind in ('r', 'm')
"""


def run(bench: Bench) -> None:
    """One round."""
    seconds = bench.pick(600.0, 30.0)
    window = bench.pick(10.0, 2.0)
    server = bench.world.postgres
    endpoint = bench.world.channel(server, _DATABASE, "soak", durability="Sync")
    sizes: list[dict[str, float]] = []
    with bench.fleet() as fleet:
        receivers = fleet.join(endpoint, PEERS, "subscriber", receive=True)
        publishers = fleet.join(endpoint, 1, "publisher", receive=False)
        fleet.warm_up(publishers, receivers, count=200, size=SIZE)
        clock = Clock()
        fleet.send(publishers, Publish(SIZE, seconds=seconds, rate=RATE))
        while clock.seconds < seconds:
            size = server.query(_LOG_BYTES, database=_DATABASE)[0][0]
            sizes.append({"seconds": clock.seconds, "mib": size / (1 << 20)})
            time.sleep(max(0.0, len(sizes) * window / 2 - clock.seconds))
        (published,) = fleet.answers(publishers, Published, timeout=60)
        received = fleet.receive(receivers, published.count, timeout=30)
    edge = bench.pick(60.0, 10.0)
    windows = over_time(received, window)
    bench.results.series["soak_log"] = sizes
    bench.results.series["soak_latency"] = windows
    first, last = _edges(received, edge, seconds)
    half = len(sizes) // 2
    bench.record(
        {"peers": PEERS},
        {
            "published_per_s": published.per_second,
            "errors": float(published.errors),
            "received_share": min(r.count for r in received) / published.count,
            "first_p99_ms": first,
            "last_p99_ms": last,
            "log_peak_first_half_mib": max(size["mib"] for size in sizes[:half]),
            "log_peak_second_half_mib": max(size["mib"] for size in sizes[half:]),
        },
    )


def _edges(received: list[Received], edge: float, seconds: float) -> tuple[float, float]:
    """p99 of what was published in the first and in the last `edge` seconds, over all peers, in milliseconds."""
    began = min(r.first_published for r in received)
    first, last = array("q"), array("q")
    for r in received:
        for arrived, latency in zip(r.arrived, r.latencies, strict=True):
            at = (arrived - latency - began) / 1e9
            if at < edge:
                first.append(latency)
            if at >= seconds - edge:
                last.append(latency)
    if not first or not last:
        raise BenchmarkError("the peers did not receive over the whole time")
    return percentile(sorted(first), 0.99) / NS_PER_MS, percentile(sorted(last), 0.99) / NS_PER_MS


def over_time(received: list[Received], window: float) -> list[dict[str, float]]:
    """Rate and latencies of what was published in each window, over all peers."""
    began = min(r.first_published for r in received)
    # Arrays: a long run has millions, and a list of them would take as many objects.
    windows: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
    for r in received:
        for arrived, latency in zip(r.arrived, r.latencies, strict=True):
            windows[int((arrived - latency - began) / 1e9 / window)].append(latency)
    rows = []
    for number, unordered in sorted(windows.items()):
        latencies = sorted(unordered)
        rows.append(
            {
                "seconds": number * window,
                "delivered_per_s": len(latencies) / len(received) / window,
                "p50_ms": percentile(latencies, 0.5) / NS_PER_MS,
                "p99_ms": percentile(latencies, 0.99) / NS_PER_MS,
            }
        )
    return rows
