"""What every nemesis is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from chaos.evidence import NotStruckError, standstill
from chaos.history import Fault
from chaos.layout import Layout
from chaos.promises import Durability
from chaos.world import DURABILITIES, World

#: What there is to break. Who claims all of it strikes alone.
EVERYTHING = "server link doorbells pooler workers clock"


class Nemesis(ABC):
    """A fault that begins, lasts, and ends. Made anew for each run.

    Attributes:
        name: What it is called on a command line and in results.
        title: The same in words, for docs/reliability.md.
        touches: What it breaks, of `EVERYTHING`. Of those that break the same thing, only one is in a combination.
        layout: What has to be there for it.
        seconds: How long it lasts.
        kind: What it is to the checker. What becomes a crash only by chance says so when it has ended.
        standstill: For so many seconds at least no publish of `stalled` returns, if it strikes.
        stalled: Who cannot publish meanwhile; nobody: that is not how this fault is known.
        channels: On which channels.
        with_pipecat: Unmodified pipecat gets over it by itself.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    touches: ClassVar[str]
    layout: ClassVar[Layout] = Layout()
    seconds: ClassVar[float] = 1.0
    kind: Fault = "disruption"
    standstill: ClassVar[float] = 0.0
    stalled: ClassVar[tuple[str, ...]] = ("shop", "billing")
    channels: ClassVar[tuple[Durability, ...]] = DURABILITIES
    with_pipecat: ClassVar[bool] = True

    @abstractmethod
    async def begin(self, world: World) -> None:
        """Break something. What must not stay so if the run is interrupted is left to `world.stack`."""

    async def end(self, world: World) -> None:  # noqa: B027 - some faults are over at once
        """Break it no more. What is broken still is the bus's to mend."""

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """What shows that it struck, in a few words; asked when all is over and the server runs.

        Args:
            world: Where.
            began: A time before it began, in nanoseconds of CLOCK_MONOTONIC.
            ended: A time after it had ended.

        Raises:
            NotStruckError: Nothing does.
        """
        shortest = min(
            standstill(world.histories(durability, *self.stalled), began, ended) for durability in self.channels
        )
        if shortest < self.standstill or not self.standstill:
            raise NotStruckError(f"clients published all the same: they stood still for {shortest:.1f} s at most")
        return f"nothing published for {shortest:.1f} s"

    async def undo(self, world: World) -> None:  # noqa: B027 - most leave nothing
        """Take away what stays after the end, in a world that goes on."""
