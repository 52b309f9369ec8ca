"""100,000 messages wait for a subscriber whose handler does not return: how much does its process grow?"""

import time
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.commands import Memory, Publish, Resume

SIZE = 200
MESSAGES = 100_000
_SETTLE = 3.0


def run(bench: Bench) -> None:
    """One round."""
    server = bench.world.postgres
    endpoint = bench.world.channel(server, "memory", "memory", durability="Async")
    with bench.fleet() as fleet:
        subscribers = fleet.join(replace(endpoint, stalled=True), 1, "stalled subscriber", receive=True)
        publishers = fleet.join(endpoint, 1, "publisher", receive=False)
        fleet.publish(publishers, Publish(SIZE, count=1), timeout=30)
        time.sleep(1)
        (before,) = fleet.ask(subscribers, Memory(), int)
        (published,) = fleet.publish(publishers, Publish(SIZE, count=MESSAGES, in_flight=256), timeout=240)
        time.sleep(_SETTLE)
        (after,) = fleet.ask(subscribers, Memory(), int)
        fleet.ask(subscribers, Resume(), object)
        (received,) = fleet.receive(subscribers, published.count + 1, timeout=120, quiet=10)
    bench.record(
        {"waiting": MESSAGES},
        {
            "growth_mib": (after - before) / (1 << 20),
            "received_share": received.count / (published.count + 1),
            "published_per_s": published.per_second,
        },
    )
