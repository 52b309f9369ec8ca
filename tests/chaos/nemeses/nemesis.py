"""What every nemesis is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from chaos.history import Fault
from chaos.layout import Layout
from chaos.world import World

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
    """

    name: ClassVar[str]
    title: ClassVar[str]
    touches: ClassVar[str]
    layout: ClassVar[Layout] = Layout()
    seconds: ClassVar[float] = 1.0
    kind: Fault = "disruption"

    @abstractmethod
    async def begin(self, world: World) -> None:
        """Break something. What must not stay so if the run is interrupted is left to `world.stack`."""

    async def end(self, world: World) -> None:  # noqa: B027 - some faults are over at once
        """Break it no more. What is broken still is the bus's to mend."""
