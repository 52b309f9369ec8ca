"""The server's clock is set. `bus_runtime` asks only for a clock that nobody can set, which a test holds it to."""

from __future__ import annotations

import asyncio
import signal

from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.world import World

_HOUR = 3600.0


class ClockForward(Nemesis):
    """By much more than any timeout, with messages that a peer has not read."""

    name = "clock-forward"
    title = "the server's clock set forward by an hour, with unread messages"
    touches = "clock workers"
    layout = Layout(clock=True)
    seconds = 2.0

    async def begin(self, world: World) -> None:
        """Have something that `ledger` did not read, and set the clock."""
        assert world.clock is not None
        world.signal("ledger", signal.SIGSTOP)
        await asyncio.sleep(0.3)
        world.clock.set(_HOUR)

    async def end(self, world: World) -> None:
        """Let `ledger` read; the clock stays as it is."""
        world.signal("ledger", signal.SIGCONT)


class ClockBack(Nemesis):
    """What was noted before lies in the future then."""

    name = "clock-back"
    title = "the server's clock set back by an hour"
    touches = "clock"
    layout = Layout(clock=True)

    async def begin(self, world: World) -> None:
        """Set it."""
        assert world.clock is not None
        world.clock.set(-_HOUR)
