"""All nemeses, and which of them strike together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import MappingProxyType

from chaos.layout import merge
from chaos.nemeses import clock, disk, failover, network, pooler, server, workers
from chaos.nemeses.nemesis import Nemesis

#: By family, in the order in which they are run.
FAMILIES: MappingProxyType[str, tuple[type[Nemesis], ...]] = MappingProxyType(
    {
        "PostgreSQL": (
            server.ServerKilled, server.PostmasterKilled, server.RecoveryKilled, server.BackendKilled,
            server.WalWriterKilled, server.CheckpointerKilled, server.Restarted, server.SessionsTerminated,
            server.Frozen, server.LongOutage,
        ),
        "Disk": (disk.PowerLost, disk.DiskFull, disk.WalDiskFull, disk.DiskHangs, disk.DiskSlow),
        "Failover": (failover.Failover, failover.FailoverByBinding, failover.FailoverAsynchronous),
        "PgBouncer": (pooler.SessionPoolerRestarted, pooler.TransactionPoolerRestarted),
        "Network": (
            network.ConnectionsCut, network.CutMidMessage, network.Refused, network.LinkFrozen, network.AnswersFrozen,
            network.Delayed, network.Silent, network.Forgotten, network.Partition, network.DoorbellsLost,
        ),
        "Pods": (workers.WorkersKilled, workers.WorkersEvicted, workers.WorkersPaused, workers.WorkersPausedForLong),
        "Clock": (clock.ClockForward, clock.ClockBack),
    }
)  # fmt: skip

NEMESES = MappingProxyType({each.name: each for family in FAMILIES.values() for each in family})


def find(names: str) -> tuple[type[Nemesis], ...]:
    """A nemesis by its name, or several: `restart+cut`.

    Raises:
        ValueError: There is none of that name, or they cannot strike together.
    """
    found = []
    for name in names.split("+"):
        if name not in NEMESES:
            raise ValueError(f"no nemesis is called {name!r}; there are {', '.join(NEMESES)}")
        found.append(NEMESES[name])
    if not _fit(found):
        raise ValueError(f"{names} cannot strike together: they break the same thing, or need different ones")
    return tuple(found)


def combination(rng: random.Random) -> tuple[type[Nemesis], ...]:
    """Two or three that can strike together."""
    count = rng.choice((2, 2, 3))
    while True:
        chosen = rng.sample(list(NEMESES.values()), count)
        if _fit(chosen):
            return tuple(chosen)


def _fit(nemeses: Sequence[type[Nemesis]]) -> bool:
    touched = [what for nemesis in nemeses for what in nemesis.touches.split()]
    if len(touched) != len(set(touched)):
        return False
    try:
        merge(nemesis.layout for nemesis in nemeses)
    except ValueError:
        return False
    return True
