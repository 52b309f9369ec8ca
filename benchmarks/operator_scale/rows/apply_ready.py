"""How long one more BusChannel takes from `kubectl apply` to Ready, while all the others are there."""

import time

from control_plane import wait_until

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.world import ScaleWorld
from benchmarks.statistics import percentile

_LIMIT = 60.0


def measure(world: ScaleWorld) -> list[Figure]:
    """One after the other, over all databases that work."""
    world.populate()
    seconds = sorted(one(world, world.live[number % len(world.live)]) for number in range(world.scale.probes))
    return [
        Figure("apply to Ready of one more, p50", percentile(seconds, 0.5), "s", goal=1.0),
        Figure("apply to Ready of one more, p99", percentile(seconds, 0.99), "s", goal=3.0),
    ]


def one(world: ScaleWorld, database: str) -> float:
    """Seconds until one more BusChannel of that BusDatabase is Ready."""
    begun = time.monotonic()
    channel = world.channel_in(database)
    wait_until(lambda: channel.condition().get("status") == "True", f"{channel.path} is Ready", _LIMIT)
    return time.monotonic() - begun
