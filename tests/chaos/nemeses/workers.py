"""The processes of pods: killed, evicted, paused."""

from __future__ import annotations

import asyncio
import signal

from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.promises import Durability
from chaos.world import World


class WorkersKilled(Nemesis):
    """Without a word, in the middle of whatever they do; their successors come a second later."""

    name = "workers-killed"
    title = "durable peers and publishers killed (SIGKILL), others started in their place"
    touches = "workers"

    def __init__(self) -> None:
        self._ended: list[tuple[Durability, str]] = []

    async def begin(self, world: World) -> None:
        """End them."""
        for name in ("billing", "shop"):
            for durability, worker in world.named(name):
                self._ended.append((durability, name))
                await world.fleets[durability].kill(worker)

    async def end(self, world: World) -> None:
        """Start others in their place."""
        await asyncio.gather(*(world.start(durability, name) for durability, name in self._ended))


class WorkersEvicted(WorkersKilled):
    """With SIGTERM, as the kubelet does: they finish what they are at."""

    name = "workers-evicted"
    title = "the same stopped (SIGTERM), as in an eviction"

    async def begin(self, world: World) -> None:
        """Stop them."""
        for name in ("billing", "shop"):
            for durability, worker in world.named(name):
                self._ended.append((durability, name))
                await world.fleets[durability].stop(worker)


class WorkersPaused(Nemesis):
    """They stand still, for less than their timeout."""

    name = "workers-paused"
    title = "peers paused for 4 s (SIGSTOP), less than `peerTimeout`"
    touches = "workers"
    seconds = 4.0

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
