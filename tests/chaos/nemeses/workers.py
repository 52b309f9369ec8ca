"""The processes of pods: killed, evicted, paused."""

from __future__ import annotations

import asyncio
import signal
from typing import ClassVar

from chaos.evidence import NotStruckError, told
from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.promises import Durability
from chaos.world import DURABILITIES, World

#: What acknowledges when it has dispatched, what does when it has handled, and what has no durable name.
_KILLED = ("ledger", "billing", "shop")


class WorkersKilled(Nemesis):
    """Without a word, in the middle of whatever they do; their successors come a second later."""

    name = "workers-killed"
    title = "all peers killed (SIGKILL), durable or not, others started in their place"
    touches = "workers"
    how: ClassVar[str] = "killed"

    def __init__(self) -> None:
        self._ended: list[tuple[Durability, str]] = []

    async def begin(self, world: World) -> None:
        """End them."""
        for name in _KILLED:
            for durability, worker in world.named(name):
                self._ended.append((durability, name))
                await world.fleets[durability].kill(worker)

    async def end(self, world: World) -> None:
        """Start others in their place."""
        await asyncio.gather(*(world.start(durability, name) for durability, name in self._ended))

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Their ends were waited for."""
        return f"{len(self._ended)} processes {self.how}"


class WorkersEvicted(WorkersKilled):
    """With SIGTERM, as the kubelet does: they finish what they are at."""

    name = "workers-evicted"
    title = "the same stopped (SIGTERM), as in an eviction"
    how = "stopped"

    async def begin(self, world: World) -> None:
        """Stop them."""
        for name in _KILLED:
            for durability, worker in world.named(name):
                self._ended.append((durability, name))
                await world.fleets[durability].stop(worker)


class WorkersPaused(Nemesis):
    """They stand still, for less than their timeout."""

    name = "workers-paused"
    title = "peers paused for 4 s (SIGSTOP), less than `peerTimeout`"
    touches = "workers"
    seconds = 4.0
    standstill = 3.5
    stalled = ("billing",)

    async def begin(self, world: World) -> None:
        """Stop them."""
        for name in ("billing", "ledger"):
            world.signal(name, signal.SIGSTOP)

    async def end(self, world: World) -> None:
        """Let them go on."""
        for name in ("billing", "ledger"):
            world.signal(name, signal.SIGCONT)


class WorkersPausedForLong(WorkersPaused):
    """For longer: what the others had acknowledged meanwhile is gone, and they are told how much."""

    name = "workers-paused-for-long"
    title = "peers paused for 13 s, more than `peerTimeout`: they are told what they missed"
    layout = Layout(peer_timeout="10s", trims=True)
    seconds = 13.0
    standstill = 12.5

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Both were told."""
        counts = {
            f"{each}/{name}": told(world.histories(each, name))
            for each in DURABILITIES
            for name in ("billing", "ledger")
        }
        if not all(counts.values()):
            raise NotStruckError(f"of lost messages were told: {counts}")
        return f"{sum(counts.values())} messages told lost; {await super().evidence(world, began, ended)}"
