"""PostgreSQL and its processes: killed, restarted, frozen."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import asyncpg
from chaos.layout import Layout
from chaos.nemeses.nemesis import EVERYTHING, Nemesis
from chaos.world import World

#: Seconds that a server may take to recover on a machine that has other things to do.
PATIENCE = 60.0

_WRITER = "select pid from pg_stat_activity where backend_type = 'walwriter'"
_SESSIONS = "from pg_stat_activity where usename like 'bus_login_%' and datname = current_database()"


class ServerKilled(Nemesis):
    """All processes at once, as if the machine had gone: what they had in memory is lost."""

    name = "server-killed"
    title = "PostgreSQL killed (SIGKILL to all of its processes), started again"
    touches = "server"
    kind = "crash"

    async def begin(self, world: World) -> None:
        """Kill it."""
        await asyncio.to_thread(world.server.kill)

    async def end(self, world: World) -> None:
        """Start it."""
        await asyncio.to_thread(world.server.start)


class PostmasterKilled(ServerKilled):
    """The first process only: the others end when they notice."""

    name = "postmaster-killed"
    title = "the postmaster alone killed"

    async def begin(self, world: World) -> None:
        """Kill it, and wait until the others have ended: before, the server cannot start."""
        server = world.server
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
        """Let it only live for some hundredths of a second, and then for good."""
        for _ in range(3):
            world.server.launch()
            await asyncio.sleep(world.rng.uniform(0.01, 0.15))
            await asyncio.to_thread(world.server.kill)
        await super().end(world)


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
        pids = [row[0] for row in await session.fetch(self.query)]
        os.kill(world.rng.choice(pids), signal.SIGKILL)
        session.terminate()

    async def end(self, world: World) -> None:
        """It has ended when the server accepts connections again."""
        async with asyncio.timeout(PATIENCE):
            while not await is_ready(world, self._writer):
                await asyncio.sleep(0.05)


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
    """In a checkpoint, if it comes to that."""

    name = "checkpointer-killed"
    title = "the checkpointer killed in a checkpoint"
    query = "select pid from pg_stat_activity where backend_type = 'checkpointer'"

    async def begin(self, world: World) -> None:
        """Have it do something, and kill it."""
        session = await world.admin()
        checkpoint = asyncio.create_task(session.execute("checkpoint"))
        await super().begin(world)
        await asyncio.gather(checkpoint, return_exceptions=True)
        session.terminate()


class Restarted(Nemesis):
    """A fast shutdown: sessions are ended, nothing is lost."""

    name = "restart"
    title = "PostgreSQL restarted (fast shutdown)"
    touches = "server"

    async def begin(self, world: World) -> None:
        """Stop it."""
        await asyncio.to_thread(world.server.stop)

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
        for _ in range(5):
            await session.execute(f"select pg_terminate_backend(pid) {_SESSIONS}")
            await asyncio.sleep(0.2)
        await session.close()


class Frozen(Nemesis):
    """All of its processes stand still: it accepts connections and says nothing."""

    name = "server-frozen"
    title = "PostgreSQL frozen for 6 s (SIGSTOP)"
    touches = "server"
    seconds = 6.0

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

    async def begin(self, world: World) -> None:
        """Have something that `ledger` did not read, and kill the server."""
        world.signal("ledger", signal.SIGSTOP)
        await asyncio.sleep(0.5)
        await super().begin(world)

    async def end(self, world: World) -> None:
        """Start it, and let `ledger` be the last to come back."""
        await super().end(world)
        await world.delivered("shop", "billing")
        world.signal("ledger", signal.SIGCONT)


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
