"""The most that the workers can exchange on this machine: what they still keep up with."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chaos.soak.worker import State
from chaos.soak.world import SoakWorld

#: What must come of what was wanted, and at each peer of what was published on its channel.
_KEEPS_UP = 0.95


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a rate.

    Attributes:
        wanted: Messages a second.
        published: The same, really.
        delivered: The least share of what was published on its channel that a peer was handed meanwhile.
    """

    wanted: float
    published: float
    delivered: float

    @property
    def sustained(self) -> bool:
        """Whether publishers and peers kept up."""
        return self.published >= _KEEPS_UP * self.wanted and self.delivered >= _KEEPS_UP


@dataclass(frozen=True, slots=True)
class Search:
    """How to look for the maximum.

    Attributes:
        first: The first rate.
        factor: By how much each one is larger than the one before, as long as they are sustained.
        halvings: How often then to look in the middle between what was sustained and what was not.
        settle: Seconds before measuring.
        measure: Seconds of measuring.
        most: Rates beyond are not tried.
    """

    first: float = 400.0
    factor: float = 1.5
    halvings: int = 2
    settle: float = 2.0
    measure: float = 5.0
    most: float = math.inf


def rates(search: Search, sustained: Callable[[float], bool]) -> Iterator[float]:
    """The rates to try. `sustained` tells of each that was yielded."""
    good, rate = 0.0, search.first
    while True:
        yield rate
        if not sustained(rate):
            break
        good, rate = rate, rate * search.factor
        if rate > search.most:
            return
    bad = rate
    for _ in range(search.halvings):
        middle = (good + bad) / 2
        yield middle
        if sustained(middle):
            good = middle
        else:
            bad = middle


async def maximum(world: SoakWorld, search: Search, ending: asyncio.Event) -> list[Step]:
    """Try rates; what came of each."""
    steps: list[Step] = []
    for rate in rates(search, lambda rate: next(step.sustained for step in steps if step.wanted == rate)):
        await world.publish(rate)
        await asyncio.sleep(search.settle)
        steps.append(await _measure(world, rate, search.measure))
        step = steps[-1]
        verdict = "keeps up" if step.sustained else "does not keep up"
        print(f"  {rate:7,.0f} messages/s wanted: {step.published:7,.0f} published, {verdict}", flush=True)
        if not step.sustained:
            # What is left over must not burden the next one.
            await world.quiet()
        if ending.is_set():
            break
    return steps


async def _measure(world: SoakWorld, rate: float, seconds: float) -> Step:
    before = _states(world)
    await asyncio.sleep(seconds)
    published: dict[str, float] = {}
    received: list[tuple[str, float]] = []
    for name, (channel, state) in _states(world).items():
        former = before[name][1]
        # Each process's own time: states are some tenths of a second old.
        elapsed = max(state.time - former.time, 1) / 1e9
        published[channel] = published.get(channel, 0.0) + (state.published - former.published) / elapsed
        received.append((channel, (state.received - former.received) / elapsed))
    delivered = min(count / max(published[channel], 1e-9) for channel, count in received)
    return Step(rate, sum(published.values()), delivered)


def _states(world: SoakWorld) -> dict[str, tuple[str, State]]:
    """Of each process: its channel, and what it said of itself last."""
    return {
        f"{worker.options.channel_binding}/{worker.options.process}": (worker.options.channel_binding or "", state)
        for worker, state in world.states()
        if state is not None
    }
