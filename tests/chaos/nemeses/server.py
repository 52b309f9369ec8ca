"""PostgreSQL and its processes: killed, restarted, frozen."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import asyncpg
from chaos.evidence import Log, NotStruckError, published
from chaos.layout import Layout
from chaos.nemeses.nemesis import EVERYTHING, Nemesis
from chaos.recovery import GOAL
from chaos.world import DURABILITIES, World

#: Seconds that a server may take to recover on a machine that has other things to do.
PATIENCE = 60.0

#: How often something is tried that takes a server some milliseconds: to kill it in the middle of that.
_ATTEMPTS = 20

_WRITER = "select pid from pg_stat_activity where backend_type = 'walwriter'"
_SESSIONS = "from pg_stat_activity where usename like 'bus_login_%' and datname = current_database()"


class ServerKilled(Nemesis):
    """All processes at once: what they had in memory is lost."""

    name = "server-killed"
    title = "PostgreSQL killed (SIGKILL to all of its processes), started again"
    touches = "server"
    kind = "crash"
    standstill = 0.9

    async def begin(self, world: World) -> None:
        """Kill it."""
        self.log = Log(world.server)
        await asyncio.to_thread(world.server.kill)

    async def end(self, world: World) -> None:
        """Start it."""
        await asyncio.to_thread(world.server.start)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """It had to recover."""
        self.log.require("was not properly shut down; automatic recovery in progress")
        return f"crash recovery; {await super().evidence(world, began, ended)}"


class PostmasterKilled(ServerKilled):
    """The first process only: the others end when they notice."""

    name = "postmaster-killed"
    title = "the postmaster alone killed"

    async def begin(self, world: World) -> None:
        """Kill it, and wait until the others have ended: before, the server cannot start."""
        server = world.server
        self.log = Log(server)
        assert server.process is not None
        children = server.children()
        server.process.kill()
        server.process.wait()
        server.process = None
        async with asyncio.timeout(PATIENCE):
            while any(Path(f"/proc/{pid}/exe").exists() for pid in children):
                await asyncio.sleep(0.02)


class RecoveryKilled(ServerKilled):
    """Killed, and killed again while it recovers."""

    name = "recovery-killed"
    title = "PostgreSQL killed, and three times more during crash recovery"

    async def end(self, world: World) -> None:
        """Kill it as soon as it replays the log, until it has said three times that this had happened to it."""
        for _ in range(_ATTEMPTS):
            log = Log(world.server)
            world.server.launch()
            await asyncio.to_thread(_wait_for, log, "redo (starts at|is not required)")
            await asyncio.to_thread(world.server.kill)
            # Where everybody was killed nobody may have written anything.
            if self._interrupted() == 3 or "redo is not required" in log.text:
                break
        await super().end(world)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """It found that it had been interrupted."""
        if not self._interrupted():
            raise NotStruckError("the server recovered before it could be killed again")
        return f"recovery interrupted {self._interrupted()} times; {await super().evidence(world, began, ended)}"

    def _interrupted(self) -> int:
        return self.log.text.count("interrupted while in recovery")


def _wait_for(log: Log, pattern: str) -> None:
    """Look all the time: what is waited for is over within milliseconds."""
    deadline = time.monotonic() + PATIENCE
    while re.search(pattern, log.text) is None:
        if time.monotonic() > deadline:
            raise NotStruckError(f"PostgreSQL did not say {pattern!r}")


class ProcessKilled(Nemesis):
    """One process of the server: the others are ended, and the server recovers by itself."""

    touches = "server"
    seconds = 0.0
    kind = "crash"
    query: ClassVar[str]

    def __init__(self) -> None:
        self._writer = 0

    async def begin(self, world: World) -> None:
        """Kill it."""
        session = await world.admin()
        self._writer = await session.fetchval(_WRITER)
        pids: list[int] = []
        # Another fault may have ended all sessions just now.
        async with asyncio.timeout(PATIENCE):
            while not pids:
                pids = [row[0] for row in await session.fetch(self.query)]
        os.kill(world.rng.choice(pids), signal.SIGKILL)
        session.terminate()

    async def end(self, world: World) -> None:
        """It has ended when the server accepts connections again."""
        async with asyncio.timeout(PATIENCE):
            while not await is_ready(world, self._writer):
                await asyncio.sleep(0.05)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Another WAL writer was waited for: the server had started all of its processes again."""
        return "crash recovery"


class BackendKilled(ProcessKilled):
    """A session of a client."""

    name = "backend-killed"
    title = "one backend of a client killed (SIGKILL)"
    query = f"select pid {_SESSIONS}"


class WalWriterKilled(ProcessKilled):
    """Who writes what commits did not wait for."""

    name = "walwriter-killed"
    title = "the WAL writer killed"
    query = _WRITER


class CheckpointerKilled(ProcessKilled):
    """In a checkpoint: stopped there first, so that it is one."""

    name = "checkpointer-killed"
    title = "the checkpointer killed in a checkpoint"
    query = "select pid from pg_stat_activity where backend_type = 'checkpointer'"

    async def begin(self, world: World) -> None:
        """Have it begin one, and kill it."""
        session = await world.admin()
        self._writer, pid = await session.fetchval(_WRITER), await session.fetchval(self.query)
        for _ in range(_ATTEMPTS):
            log = Log(world.server)
            checkpoint = asyncio.create_task(session.execute("checkpoint"))
            # Its request has been sent then.
            await asyncio.sleep(0)
            await asyncio.to_thread(_wait_for, log, "checkpoint starting")
            os.kill(pid, signal.SIGSTOP)
            if "checkpoint complete" not in log.text:
                break
            os.kill(pid, signal.SIGCONT)
            await checkpoint
        else:
            raise NotStruckError("checkpoints are over before the checkpointer can be killed")
        # At once: it may have stopped with a lock that everybody needs, also who connects.
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(checkpoint, return_exceptions=True)
        session.terminate()

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """That it was in a checkpoint was seen before."""
        return f"in a checkpoint; {await super().evidence(world, began, ended)}"


class Restarted(Nemesis):
    """A fast shutdown: sessions are ended, nothing is lost."""

    name = "restart"
    title = "PostgreSQL restarted (fast shutdown)"
    touches = "server"
    standstill = 0.9

    async def begin(self, world: World) -> None:
        """Stop it."""
        log = Log(world.server)
        await asyncio.to_thread(world.server.stop)
        log.require("database system is shut down")

    async def end(self, world: World) -> None:
        """Start it."""
        await asyncio.to_thread(world.server.start)


class SessionsTerminated(Nemesis):
    """All sessions of clients are ended, again and again."""

    name = "sessions-terminated"
    title = "all sessions of clients terminated, five times"
    touches = "server"
    seconds = 0.0

    async def begin(self, world: World) -> None:
        """End them."""
        session = await world.admin()
        self._counts = []
        for _ in range(5):
            self._counts.append(len(await session.fetch(f"select pg_terminate_backend(pid) {_SESSIONS}")))
            await asyncio.sleep(0.2)
        await session.close()

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """There were some each time."""
        if not all(self._counts):
            raise NotStruckError(f"there were no sessions at some time: {self._counts}")
        return f"{sum(self._counts)} sessions terminated"


class Frozen(Nemesis):
    """All of its processes stand still: it accepts connections and says nothing."""

    name = "server-frozen"
    title = "PostgreSQL frozen for 6 s (SIGSTOP)"
    touches = "server"
    seconds = 6.0
    standstill = 5.5

    def __init__(self) -> None:
        self._stack = ExitStack()

    async def begin(self, world: World) -> None:
        """Stop them."""
        world.stack.enter_context(self._stack)
        self._stack.enter_context(world.server.silent())

    async def end(self, world: World) -> None:
        """Let them go on."""
        self._stack.close()


class LongOutage(ServerKilled):
    """Away for longer than the peer timeout, with messages that a peer has not read: it was not that peer's silence."""

    name = "long-outage"
    title = "PostgreSQL away for longer than `peerTimeout`, with unread messages"
    touches = EVERYTHING
    layout = Layout(peer_timeout="10s")
    seconds = 11.0
    standstill = 11.0

    async def begin(self, world: World) -> None:
        """Have something that `ledger` did not read, and kill the server."""
        world.signal("ledger", signal.SIGSTOP)
        self._stopped = time.monotonic_ns()
        await asyncio.sleep(0.5)
        self._killed = time.monotonic_ns()
        await super().begin(world)

    async def end(self, world: World) -> None:
        """Start it, and let `ledger` be the last to come back."""
        await super().end(world)
        await world.delivered("shop", "billing", within=GOAL)
        world.signal("ledger", signal.SIGCONT)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """There was something to lose."""
        unread = min(
            published(world.histories(each, "shop", "billing"), self._stopped, self._killed) for each in DURABILITIES
        )
        if not unread:
            raise NotStruckError("nothing was published that a peer had not read when the server went")
        return f"{unread} messages unread; {await super().evidence(world, began, ended)}"


async def is_ready(world: World, former: int = 0) -> bool:
    """Whether the server accepts connections, and its WAL writer is another than that former one."""
    try:
        session = await world.admin()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    try:
        return await session.fetchval(_WRITER) not in (None, former)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    finally:
        session.terminate()
