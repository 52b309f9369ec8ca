"""One run: a world, one or more nemeses at once, how long the bus took to deliver again, and the verdicts."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.evidence import NotStruckError
from chaos.layout import Layout, merge
from chaos.nemeses.nemesis import Nemesis
from chaos.promises import Durability
from chaos.recovery import GOAL
from chaos.seeds import Seeds
from chaos.verdict import Verdict
from chaos.world import World, world

#: Seconds to wait for that: long enough to tell late from never.
_NEVER = 60.0

#: Seconds within which nemeses begin that strike together and last equally long.
_STAGGER = 0.5

#: Seconds of messages that one peer has not read when the server is struck.
_LAG = 1.0

#: Seconds of undisturbed traffic before a fault: what is published then is what it can take.
_BEFORE = 0.7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        nemeses: Their names.
        layout: Where they struck.
        seconds: How long it took in all.
        recovery: Seconds from the end of the faults until each process was delivered to; None: not at all.
        verdicts: By the channels' durability.
        evidence: What shows that it struck, for each nemesis.
        error: What made the run worthless, if anything did.
    """

    nemeses: tuple[str, ...]
    layout: Layout
    seconds: float
    recovery: Mapping[str, float | None] = field(default_factory=dict)
    verdicts: Mapping[Durability, Verdict] = field(default_factory=dict)
    evidence: Mapping[str, str] = field(default_factory=dict)
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
        kept = f"all promises kept; {'; '.join(self.evidence.values())}"
        return f"delivering again {when}{late}; {''.join(broken) or kept}"

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
            struck, recovery = await strike(made, [nemesis() for nemesis in nemeses])
            settled = await asyncio.gather(*(fleet.settle() for fleet in made.fleets.values()))
            verdicts = dict(zip(made.fleets, settled, strict=True))
            evidence = await evidence_of(made, struck)
    # Whatever it is, the other runs are worth something.
    except Exception as exc:
        return Outcome(names, layout, time.monotonic() - began, error=tell(exc))
    return Outcome(names, layout, time.monotonic() - began, recovery, verdicts, evidence)


def tell(error: BaseException) -> str:
    """What went wrong, in a line; of several errors all."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(tell, error.exceptions))
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Strike:
    """A nemesis that has struck, between two times in nanoseconds of CLOCK_MONOTONIC."""

    nemesis: Nemesis
    began: int
    ended: int


async def strike(made: World, nemeses: Sequence[Nemesis]) -> tuple[list[Strike], Mapping[str, float | None]]:
    """Faults from begin to end; how long, then, the bus took to deliver to each process again; None: it did not."""
    longest = max(nemesis.seconds for nemesis in nemeses)
    touched = {what for nemesis in nemeses for what in nemesis.touches.split()}
    # Peers that have everything when the server goes would miss nothing that it lost.
    lags = "server" in touched and "workers" not in touched
    if lags:
        made.signal("ledger", signal.SIGSTOP)
        await asyncio.sleep(_LAG)
    try:
        async with asyncio.TaskGroup() as striking:
            tasks = []
            for nemesis in nemeses:
                # Each at some moment of the longest one, which does not begin at once either.
                latest = max(longest - nemesis.seconds, _STAGGER) if len(nemeses) > 1 else 0.0
                tasks.append(striking.create_task(_strike_once(made, nemesis, made.rng.uniform(0, latest))))
    finally:
        if lags:
            made.signal("ledger", signal.SIGCONT)
    watch = made.watch()
    return [task.result() for task in tasks], await watch.delivered(time.monotonic_ns(), _NEVER)


async def _strike_once(made: World, nemesis: Nemesis, after: float) -> Strike:
    await asyncio.sleep(after)
    began = time.monotonic_ns()
    await nemesis.begin(made)
    await asyncio.sleep(nemesis.seconds)
    await nemesis.end(made)
    for fleet in made.fleets.values():
        fleet.struck(nemesis.kind, began)
    return Strike(nemesis, began, time.monotonic_ns())


async def evidence_of(made: World, strikes: Sequence[Strike]) -> dict[str, str]:
    """What shows that each struck.

    Raises:
        NotStruckError: Nothing does, though it was alone. Of several, one may leave another nothing to break.
    """
    evidence = {}
    for each in strikes:
        try:
            shown = await each.nemesis.evidence(made, each.began, each.ended)
        except NotStruckError as exc:
            if len(strikes) == 1:
                raise
            shown = f"not shown: {exc}"
        evidence[each.nemesis.name] = shown
    return evidence
