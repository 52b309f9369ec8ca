"""How long an operator that starts anew takes to have looked at everything that is there."""

import time

from control_plane import wait_until

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.world import ScaleWorld

GOAL = 90.0
_LIMIT = 600.0
_SAID = "everything was looked at once"


def measure(world: ScaleWorld) -> list[Figure]:
    """One in a hundred is changed while the operator is away: what it says of itself is not all that is believed."""
    world.populate()
    before = world.operator.log.count(_SAID)
    world.operator.terminate()
    every = max(1, world.scale.channels // max(3, world.scale.channels // 100))
    changed = [world.channel(number) for number in range(0, world.scale.channels, every)]
    for channel in changed:
        channel.patch({"limits": {"maxPeers": 77}})
    begun = time.monotonic()
    world.operator.start()
    wait_until(lambda: world.operator.log.count(_SAID) > before, "everything was looked at", _LIMIT)
    seconds = time.monotonic() - begun
    world.wait_settled(_LIMIT)
    caught_up = time.monotonic() - begun
    for channel in changed:
        assert channel.condition()["observedGeneration"] == channel.get()["metadata"]["generation"]
    return [
        Figure("cold start to all observed", seconds, "s", goal=GOAL),
        Figure(f"  and to {len(changed)} changed ones put right", caught_up, "s", goal=GOAL),
    ]
