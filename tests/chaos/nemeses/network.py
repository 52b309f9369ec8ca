"""What is between clients and the server, and between clients."""

from __future__ import annotations

import asyncio
import re
import signal

from chaos.evidence import NotStruckError, latency, published
from chaos.machine import Wall
from chaos.nemeses.nemesis import Nemesis
from chaos.worker import DELIVER
from chaos.world import DURABILITIES, World


class ConnectionsCut(Nemesis):
    """Reset, all at once, a few times."""

    name = "cut"
    title = "all connections reset, five times"
    touches = "link"
    seconds = 0.0

    async def begin(self, world: World) -> None:
        """Cut them."""
        self._count = 0
        for _ in range(5):
            self._count += world.link.cut()
            await asyncio.sleep(world.rng.uniform(0.05, 0.3))

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """There were some."""
        if not self._count:
            raise NotStruckError("there were no connections")
        return f"{self._count} connections reset"


class CutMidMessage(Nemesis):
    """Each connection is reset after some bytes: in a login, in a statement, in an answer."""

    name = "cut-mid-message"
    title = "each connection reset within 20,000 bytes, in the middle of messages, for 4 s"
    touches = "link"
    seconds = 4.0

    async def begin(self, world: World) -> None:
        """From now on."""
        world.link.cut_within(world.rng, 20_000)

    async def end(self, world: World) -> None:
        """No more."""
        self._count = world.link.cut_no_more()

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Some had as much to say."""
        if not self._count:
            raise NotStruckError("no connection was reset")
        return f"{self._count} connections reset in the middle of a message"


class Refused(Nemesis):
    """Nobody listens."""

    name = "refused"
    title = "connections reset and refused for 3 s"
    touches = "link"
    seconds = 3.0
    standstill = 2.9

    async def begin(self, world: World) -> None:
        """Refuse."""
        await world.link.refuse()

    async def end(self, world: World) -> None:
        """Listen."""
        await world.link.listen()


class LinkFrozen(Nemesis):
    """What is sent arrives later."""

    name = "frozen"
    title = "connections frozen for 4 s, in both directions"
    touches = "link"
    seconds = 4.0
    standstill = 3.5

    async def begin(self, world: World) -> None:
        """Hold it back."""
        world.link.freeze("up", "down")

    async def end(self, world: World) -> None:
        """Pass it on."""
        world.link.thaw()


class AnswersFrozen(LinkFrozen):
    """Statements arrive and are executed, and nobody learns it; then the connections are reset."""

    name = "answers-frozen"
    title = "answers held back for 4 s, then connections reset: outcomes unknown"

    async def begin(self, world: World) -> None:
        """Hold answers back."""
        world.link.freeze("down")

    async def end(self, world: World) -> None:
        """Nobody gets them any more."""
        world.link.cut()
        await super().end(world)


class Delayed(Nemesis):
    """A long way."""

    name = "delayed"
    title = "150 ms of latency in each direction, for 4 s"
    touches = "link"
    seconds = 4.0

    async def begin(self, world: World) -> None:
        """Slow it down."""
        world.link.delay = 0.15

    async def end(self, world: World) -> None:
        """As quick as before."""
        world.link.delay = 0.0

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """To the server and back."""
        seconds = min(latency(world.histories(each, "shop", "billing"), began, ended) for each in DURABILITIES)
        if seconds < 0.3:
            raise NotStruckError(f"a publish took {seconds:.3f} s")
        return f"a publish took {seconds:.2f} s"


class Silent(Nemesis):
    """Connections are accepted, and never answered: those from meanwhile not afterwards either."""

    name = "silent"
    title = "connections reset, and new ones accepted without ever an answer, for 5 s"
    touches = "link"
    seconds = 5.0
    standstill = 4.9
    # Its pool waits a minute for each answer to a login.
    with_pipecat = False

    async def begin(self, world: World) -> None:
        """Say nothing to whoever comes."""
        world.link.silence()
        world.link.cut()

    async def end(self, world: World) -> None:
        """Answer whoever comes from now on."""
        world.link.speak()


class Forgotten(Nemesis):
    """Packets are dropped without a word; afterwards those of the connections from before still are.

    As when a machine loses power and another gets its address, or a firewall forgets what it had let through.
    """

    name = "forgotten"
    title = "packets dropped for 2 s, and those of the old connections for ever (a lost machine, a forgetful firewall)"
    touches = "link"
    seconds = 2.0
    standstill = 1.9
    # Its pool waits for ever on connections that nobody answers.
    with_pipecat = False

    def __init__(self) -> None:
        self._wall: Wall | None = None
        self._former: list[int] = []

    async def begin(self, world: World) -> None:
        """Drop everything."""
        self._wall = Wall(world.link.port, world.link.side_port)
        world.stack.callback(self._wall.remove)
        self._former = world.link.client_ports
        self._wall.put_up()

    async def end(self, world: World) -> None:
        """Let new connections through."""
        assert self._wall is not None
        self._wall.open_but_for(self._former)

    async def undo(self, world: World) -> None:
        """The numbers of those ports come again."""
        if self._wall is not None:
            self._wall.remove()


class Partition(Nemesis):
    """The others go on; who is cut off hears their doorbells, and takes from them what fits."""

    name = "partition"
    title = (
        "two of three peers cut off from the server for 6 s, then reset, while the third publishes and doorbells ring"
    )
    touches = "link"
    seconds = 6.0
    standstill = 5.5
    stalled = ("billing",)

    async def begin(self, world: World) -> None:
        """Cut them off."""
        world.link.freeze("up", "down", only_aside=True)

    async def end(self, world: World) -> None:
        """Have them connect again."""
        world.link.cut(only_aside=True)
        world.link.thaw()

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """They could not publish, and the third could."""
        counts = {each: published(world.histories(each, "shop"), began, ended) for each in DURABILITIES}
        if not all(counts.values()):
            raise NotStruckError(f"the third published as little: {counts}")
        return f"{await super().evidence(world, began, ended)}, and {sum(counts.values())} messages by the third peers"


class DoorbellsLost(Nemesis):
    """No datagram arrives: peers find messages by looking, and have themselves notified."""

    name = "doorbells-lost"
    title = "all doorbells lost for 4 s (UDP)"
    touches = "doorbells"
    seconds = 4.0

    async def begin(self, world: World) -> None:
        """Lose them."""
        self._told = [worker for worker in world.workers if worker.options.relay and worker.ready]
        self._signal(signal.SIGUSR2)

    async def end(self, world: World) -> None:
        """Let them through. Whoever was started meanwhile loses none."""
        self._signal(DELIVER)

    def _signal(self, which: signal.Signals) -> None:
        for worker in self._told:
            if worker.process.returncode is None:
                worker.process.send_signal(which)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Each worker counts what its relay loses."""
        lost = [int(count) for worker in self._told for count in re.findall(r"(\d+) rings lost", worker.log)]
        if not lost or not all(lost):
            raise NotStruckError(f"rings lost: {lost}")
        return f"{sum(lost)} rings lost"
