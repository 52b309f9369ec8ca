"""One run: a world, one or more nemeses at once, how long the bus took to deliver again, and the verdicts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.layout import Layout, merge
from chaos.nemeses.nemesis import Nemesis
from chaos.promises import Durability
from chaos.seeds import Seeds
from chaos.verdict import Verdict
from chaos.world import World, world

#: Seconds from the end of a fault within which each peer is to be delivered to again. From the project's goals.
GOAL = 10.0

#: Seconds to wait for that: long enough to tell late from never.
_NEVER = 60.0

#: Seconds by which nemeses that strike together do not quite begin together.
_STAGGER = 0.5

#: Seconds of undisturbed traffic before a fault: what is published then is what it can take.
_BEFORE = 0.7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        nemeses: Their names.
        seconds: How long it took in all.
        recovery: Seconds from the end of the faults until each process was delivered to; None: not at all.
        verdicts: By the channels' durability.
        error: What made the run worthless, if anything did.
    """

    nemeses: tuple[str, ...]
    seconds: float
    recovery: Mapping[str, float | None] = field(default_factory=dict)
    verdicts: Mapping[Durability, Verdict] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """As on the command line."""
        return "+".join(self.nemeses)

    @property
    def slowest(self) -> float | None:
        """Seconds until the last process was delivered to; None: one was not."""
        delays = list(self.recovery.values())
        return None if None in delays else max(delay for delay in delays if delay is not None)

    @property
    def kept(self) -> bool:
        """Whether no promise was broken."""
        return not self.error and all(self.verdicts.values())

    @property
    def in_time(self) -> bool:
        """Whether every peer was delivered to in time."""
        return not self.error and self.slowest is not None and self.slowest <= GOAL

    def __bool__(self) -> bool:
        return self.kept and self.in_time

    def __str__(self) -> str:
        if self.error:
            return f"WORTHLESS: {self.error}"
        when = "NEVER" if self.slowest is None else f"after {self.slowest:.1f} s"
        late = "" if self.in_time else f" - NOT WITHIN {GOAL:.0f} s: {self._late()}"
        broken = [f"\n{durability}: {verdict}" for durability, verdict in self.verdicts.items() if not verdict]
        return f"delivering again {when}{late}; {'' if broken else 'all promises kept'}{''.join(broken)}"

    def _late(self) -> str:
        late = {name: delay for name, delay in self.recovery.items() if delay is None or delay > GOAL}
        return ", ".join(f"{name} {'never' if delay is None else f'{delay:.1f} s'}" for name, delay in late.items())


async def run(
    nemeses: Sequence[type[Nemesis]], seeds: Seeds, directory: Path, rng: random.Random, **given: object
) -> Outcome:
    """One run.

    Args:
        nemeses: What strikes.
        seeds: Where servers come from.
        directory: For its histories and logs; must not be there yet.
        rng: Decides what is left to chance.
        **given: What the layout has besides what the nemeses need; see `Layout`.
    """
    began = time.monotonic()
    names = tuple(nemesis.name for nemesis in nemeses)
    layout = merge([Layout(), *(nemesis.layout for nemesis in nemeses)], **given)
    try:
        async with world(layout, seeds, directory, rng) as made:
            await asyncio.sleep(_BEFORE)
            recovery = await _strike(made, [nemesis() for nemesis in nemeses])
            settled = await asyncio.gather(*(fleet.settle() for fleet in made.fleets.values()))
            verdicts = dict(zip(made.fleets, settled, strict=True))
    # Whatever it is, the other runs are worth something.
    except Exception as exc:
        return Outcome(names, time.monotonic() - began, error=_tell(exc))
    return Outcome(names, time.monotonic() - began, recovery, verdicts)


def _tell(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_tell, error.exceptions))
    return f"{type(error).__name__}: {error}"


async def _strike(made: World, nemeses: Sequence[Nemesis]) -> Mapping[str, float | None]:
    """The faults from begin to end; how long the bus took then."""
    began: list[tuple[Nemesis, int]] = []
    for nemesis in nemeses:
        if began:
            await asyncio.sleep(made.rng.uniform(0, _STAGGER))
        began.append((nemesis, time.monotonic_ns()))
        await nemesis.begin(made)
    await asyncio.sleep(max(nemesis.seconds for nemesis in nemeses))
    # Together: one may need what the other gives back.
    async with asyncio.TaskGroup() as ending:
        for nemesis, _ in began:
            ending.create_task(nemesis.end(made))
    watch = made.watch()
    over = time.monotonic_ns()
    for fleet in made.fleets.values():
        for nemesis, since in began:
            fleet.struck(nemesis.kind, since)
    return await watch.delivered(over, _NEVER)
