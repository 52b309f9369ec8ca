"""What a soak does and when: given times, and a deck of faults that is shuffled by a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from chaos import kubernetes
from chaos.layout import Layout
from chaos.nemeses import network, workers
from chaos.nemeses.catalog import NEMESES
from chaos.nemeses.nemesis import Nemesis
from chaos.recovery import GOAL
from chaos.soak.capacity import Search

#: A fault of the data plane, or of the control plane.
Fault = type[Nemesis] | kubernetes.Nemesis

#: Those that end processes. They strike in the first part of the time only, so that those which are there at the end
#: have lived for long enough to see whether they grow.
_END_PROCESSES = (
    kubernetes.operator_killed,
    kubernetes.webhook_down,
    workers.WorkersKilled,
    workers.WorkersEvicted,
)
_FIRST_PART = 0.4


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted.

    Attributes:
        seconds: How long the load lasts.
        seed: Decides what is left to chance.
        version: Of PostgreSQL.
        search: How to find the maximum.
        load: Messages a second; None: half of the maximum.
        between: Seconds from one fault to the next, at least and at most.
        calm: Seconds without a fault before a page ends: what was acknowledged is on the disk by then.
        last: Seconds without a fault before the end of the load.
        sample: Seconds between samples.
        churn: Seconds between channels that are made.
        rotation: Seconds between rotations.
        faults: Which faults there are; None: all that make sense here.
        at_least: Faults that strike and channels that are deleted in any case: on a slow machine the load lasts until
            there were so many.
        within: Seconds in which a fault is to be got over.
    """

    seconds: float = 3600.0
    seed: int = 0
    version: int = 18
    search: Search = field(default_factory=Search)
    load: float | None = None
    between: tuple[float, float] = (45.0, 90.0)
    calm: float = 3.0
    last: float = 15.0
    sample: float = 10.0
    churn: float = 3.0
    rotation: float = 60.0
    faults: tuple[Fault, ...] | None = None
    at_least: int = 0
    within: float = GOAL


def possible() -> list[Fault]:
    """All faults that a world survives which goes on, and that this user may make.

    What needs a server of another kind is left out: a failover uses up its standby, a full disk its own file system,
    a clock and a pooler come with a price for every message. So is a partition: the bindings lead all to one address.
    """
    found: list[Fault] = [
        nemesis
        for nemesis in NEMESES.values()
        if nemesis.layout == Layout()
        and nemesis is not network.Partition
        and (nemesis is not network.Forgotten or os.geteuid() == 0)
    ]
    return found + list(kubernetes.NEMESES.values())


def deck(faults: list[Fault], rng: random.Random) -> Iterator[Fault]:
    """Faults at random, but each as often as every other one."""
    while True:
        yield from rng.sample(faults, len(faults))


def next_fault(cards: Iterator[Fault], progress: float) -> Fault:
    """The next one that may strike when this share of the time has passed."""
    return next(fault for fault in cards if progress < _FIRST_PART or fault not in _END_PROCESSES)


def name_of(fault: Fault) -> str:
    """As in results."""
    return fault.name if isinstance(fault, type) else fault.__name__.replace("_", "-")  # type: ignore[attr-defined]
