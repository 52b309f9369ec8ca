"""What a database that hangs costs the channels of the others: one more of theirs, with and without it hanging."""

from threading import Event, Thread

from control_plane import wait_until
from gateway import CLOSED, SILENT
from operator_world import Ref

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.rows import apply_ready
from benchmarks.operator_scale.world import ScaleWorld
from benchmarks.statistics import percentile

GOAL = 0.1
_LIMIT = 120.0


def measure(world: ScaleWorld) -> list[Figure]:
    """First it refuses connections, which costs nobody time; then it accepts them and is silent, and has much to do."""
    world.populate()
    dead = Ref(world.kube, "busdatabases", *world.dead_database.split("/"))
    calm = _others(world, dead, CLOSED)
    stop = Event()
    pressure = Thread(target=_press, args=(world, stop))
    pressure.start()
    try:
        hanging = _others(world, dead, SILENT)
    finally:
        stop.set()
        pressure.join()
    world.wait_settled(_LIMIT)
    delay = percentile(hanging, 0.5) - percentile(calm, 0.5)
    return [
        Figure("one more channel elsewhere, while one database refuses connections, p50", percentile(calm, 0.5), "s"),
        Figure("  while it accepts them and is silent, p50", percentile(hanging, 0.5), "s"),
        Figure("  the same, p99", percentile(hanging, 0.99), "s", goal=3.0),
        Figure("  delay by the silence", max(0.0, delay), "s", goal=GOAL),
    ]


def _others(world: ScaleWorld, dead: Ref, mode: str) -> list[float]:
    world.dead.become(mode)
    wait_until(lambda: dead.condition().get("reason") == "ConnectionFailed", "it is known to be dead", _LIMIT)
    return sorted(apply_ready.one(world, world.live[number % len(world.live)]) for number in range(world.scale.probes))


def _press(world: ScaleWorld, stop: Event) -> None:
    """New channels for the dead database, and wishes of the old ones."""
    while not stop.is_set():
        world.channel_in(world.dead_database)
        stop.wait(0.5)
