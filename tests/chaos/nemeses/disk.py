"""The server's disk: full, slow, hanging. Its data and its write-ahead log are on a file system of their own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import asyncpg
from chaos import machine
from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.nemeses.server import PATIENCE, is_ready
from chaos.world import World

#: Room for the data, and for a write-ahead log of a few segments.
_DISK = Layout(disk=320)


class DiskFull(Nemesis):
    """Tables cannot grow any more: publishing is refused, and tried again."""

    name = "disk-full"
    title = "the disk full for 5 s"
    touches = "server"
    layout = _DISK
    seconds = 5.0

    def __init__(self) -> None:
        self._ballast: Path | None = None
        self._log = 0

    async def begin(self, world: World) -> None:
        """Fill it."""
        assert world.mounted is not None
        self._log = len(world.server.log)
        self._ballast = machine.fill(world.mounted, spare=32 << 10)

    async def end(self, world: World) -> None:
        """Make room; start the server again, should it have given up, as whoever supervises it does."""
        assert self._ballast is not None
        said = world.server.log[self._log :]
        if "No space left on device" not in said:
            raise RuntimeError("the disk was not full: the server had no need of more room")
        self._ballast.unlink()
        if "PANIC" in said:
            self.kind = "crash"
            await self._supervise(world)

    async def _supervise(self, world: World) -> None:
        """It is trying to recover, or has given that up."""
        server = world.server
        async with asyncio.timeout(PATIENCE):
            while True:
                if server.process is not None and server.process.poll() is not None:
                    await asyncio.to_thread(server.start)
                if await is_ready(world):
                    return
                await asyncio.sleep(0.05)


class WalDiskFull(DiskFull):
    """The write-ahead log cannot grow any more: the server panics, and cannot recover either."""

    name = "wal-disk-full"
    title = "the disk full when the write-ahead log needs a segment: PostgreSQL panics"

    async def begin(self, world: World) -> None:
        """Fill it, and use up the segments that there are."""
        session = await world.admin()
        await super().begin(world)
        try:
            for _ in range(20):
                await session.execute("select pg_logical_emit_message(false, 'chaos', 'x'), pg_switch_wal()")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        session.terminate()


class DiskHangs(Nemesis):
    """Whoever writes waits: commits, checkpoints, the server's log."""

    name = "disk-hangs"
    title = "the disk hanging for 5 s (fsfreeze)"
    touches = "server"
    layout = _DISK
    seconds = 5.0

    def __init__(self) -> None:
        self._stack = ExitStack()

    async def begin(self, world: World) -> None:
        """Freeze it."""
        assert world.mounted is not None
        world.stack.enter_context(self._stack)
        self._stack.enter_context(machine.frozen(world.mounted))

    async def end(self, world: World) -> None:
        """Thaw it."""
        self._stack.close()


class DiskSlow(Nemesis):
    """Each flush of the write-ahead log takes 100 ms longer, under the lock that a slow disk holds as well."""

    name = "disk-slow"
    title = "each flush of the disk takes 100 ms longer, for 3 s (`commit_delay`)"
    touches = "server"
    seconds = 3.0

    async def begin(self, world: World) -> None:
        """Slow it down. commit_siblings = 0: always, see xlog.c, XLogFlush."""
        await self._set(world, "set commit_delay = 100000", "set commit_siblings = 0")

    async def end(self, world: World) -> None:
        """As fast as before."""
        await self._set(world, "reset commit_delay", "reset commit_siblings")

    async def _set(self, world: World, *settings: str) -> None:
        session = await world.admin()
        for setting in settings:
            await session.execute(f"alter system {setting}")
        await session.execute("select pg_reload_conf()")
        await session.close()
