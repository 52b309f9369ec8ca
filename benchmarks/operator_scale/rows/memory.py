"""What the operator's process holds in memory."""

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.processes import memory_mebibytes
from benchmarks.operator_scale.world import ScaleWorld

GOAL = 256.0


def measure(world: ScaleWorld) -> list[Figure]:
    """As it is, after whatever was measured before."""
    world.populate()
    now, peak = memory_mebibytes(world.operator.pid)
    return [
        Figure("operator RSS", now, "MiB", goal=GOAL),
        Figure("  at most since its start", peak, "MiB", goal=GOAL),
    ]
