"""The server's clock is set. `bus_runtime` asks only for a clock that nobody can set, which a test holds it to."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import ClassVar

from chaos.evidence import NotStruckError, published
from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.world import DURABILITIES, World


class ClockSet(Nemesis):
    """By so many seconds."""

    touches = "clock"
    layout = Layout(clock=True)
    fast: ClassVar[float]

    async def begin(self, world: World) -> None:
        """Set it. It stays as it is."""
        assert world.clock is not None
        world.clock.set(self.fast)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """The server tells the time."""
        session = await world.admin()
        fast = float(await session.fetchval("select extract(epoch from clock_timestamp())")) - time.time()
        await session.close()
        if abs(fast - self.fast) > 10:
            raise NotStruckError(f"the server's clock is {fast:.0f} s fast")
        return f"the server's clock is {fast:.0f} s fast"


class ClockForward(ClockSet):
    """By much more than any timeout, with messages that a peer has not read."""

    name = "clock-forward"
    title = "the server's clock set forward by an hour, with unread messages"
    touches = "clock workers"
    seconds = 2.0
    fast = 3600.0

    async def begin(self, world: World) -> None:
        """Have something that `ledger` did not read, and set the clock."""
        world.signal("ledger", signal.SIGSTOP)
        self._stopped = time.monotonic_ns()
        await asyncio.sleep(0.3)
        self._set = time.monotonic_ns()
        await super().begin(world)

    async def end(self, world: World) -> None:
        """Let `ledger` read."""
        world.signal("ledger", signal.SIGCONT)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """There was something to lose."""
        unread = min(
            published(world.histories(each, "shop", "billing"), self._stopped, self._set) for each in DURABILITIES
        )
        if not unread:
            raise NotStruckError("nothing was published that a peer had not read when the clock was set")
        return f"{unread} messages unread; {await super().evidence(world, began, ended)}"


class ClockBack(ClockSet):
    """What was noted before lies in the future then."""

    name = "clock-back"
    title = "the server's clock set back by an hour"
    fast = -3600.0
