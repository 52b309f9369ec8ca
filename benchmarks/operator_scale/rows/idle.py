"""What the operator costs while nothing happens: processor time, and writes to the API server.

Its Lease is renewed, a canary tries the watches, and isolation is verified in turn, which moves `lastVerifiedTime`:
these are told apart. Of everything else there should be no write.
"""

import time
from collections import Counter

from control_plane import wait_until

from benchmarks.operator_scale.api_requests import writes
from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.processes import cpu_seconds
from benchmarks.operator_scale.world import ScaleWorld

GOAL = 5.0
_LIMIT = 300.0
_QUIET = 5.0


def measure(world: ScaleWorld) -> list[Figure]:
    """Waits until everything has settled, then watches."""
    world.populate()
    world.wait_settled(_LIMIT)
    wait_until(lambda: _is_quiet(world), "nothing is written", _LIMIT)
    verified, counted = _verified(world), writes(world.kube)
    begun, used = time.monotonic(), cpu_seconds(world.operator.pid)
    time.sleep(world.scale.idle_seconds)
    seconds = time.monotonic() - begun
    share = (cpu_seconds(world.operator.pid) - used) / seconds * 100
    written, moved = writes(world.kube) - counted, _verified(world)
    verifications = sum(moved[name] != verified[name] for name in moved)
    leases = written.pop("leases", 0)
    # The canary writes an annotation; statuses are a resource of their own.
    canary = written.pop("buschannels", 0) + written.pop("busdatabases", 0)
    minutes = seconds / 60
    others = max(0, sum(written.values()) - verifications)
    return [
        Figure("idle CPU, of one core", share, "%", goal=GOAL),
        Figure("writes to the API server while nothing changes", others / minutes, "/min", goal=0),
        Figure("  isolation verified, one write each", verifications / minutes, "/min"),
        Figure("  canary of the watches", canary / minutes, "/min"),
        Figure("  renewals of the Lease", leases / minutes, "/min"),
    ]


def _is_quiet(world: ScaleWorld) -> bool:
    """Whether nothing but what always goes on is written for some seconds."""
    before = writes(world.kube)
    time.sleep(_QUIET)
    written = writes(world.kube) - before
    return sum(number for name, number in written.items() if name != "leases") <= _QUIET


def _verified(world: ScaleWorld) -> Counter[str]:
    """When each BusChannel was verified, by UID, as a number that moves with it."""
    times: Counter[str] = Counter()
    for item in world.channels():
        text = item.get("status", {}).get("lastVerifiedTime", "")
        times[item["metadata"]["uid"]] = int("".join(filter(str.isdigit, text)) or 0)
    return times
