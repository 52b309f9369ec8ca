"""The server's disk: full, slow, hanging. Its data and its write-ahead log are on a file system of their own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import asyncpg
from chaos import machine
from chaos.evidence import Log, NotStruckError, latency
from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.nemeses.server import PATIENCE, ServerKilled, is_ready
from chaos.world import World

#: Room for the data, and for a write-ahead log of a few segments.
_DISK = Layout(disk=320)

_FULL = "No space left on device"

_NEVER_FLUSHED = "never flushed"


class DiskFull(Nemesis):
    """Tables cannot grow any more: publishing is refused, and tried again."""

    name = "disk-full"
    title = "the disk full for 5 s"
    touches = "server"
    layout = _DISK
    seconds = 5.0

    def __init__(self) -> None:
        self._ballast: Path | None = None

    async def begin(self, world: World) -> None:
        """Fill it."""
        assert world.mounted is not None
        self._log = Log(world.server)
        self._ballast = machine.fill(world.mounted, spare=32 << 10)

    async def end(self, world: World) -> None:
        """Make room when the server has missed it; start it again, should it have given up, as its supervisor does."""
        assert self._ballast is not None
        async with asyncio.timeout(PATIENCE):
            while _FULL not in self._log.text:
                await asyncio.sleep(0.05)
        self._ballast.unlink()
        if "PANIC" in self._log.text:
            self.kind = "crash"
            await self._supervise(world)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """The server was refused room."""
        self._log.require(_FULL)
        return f"no space left {self._log.text.count(_FULL)} times"

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

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """It came to a panic."""
        self._log.require("PANIC")
        return f"panic, crash recovery; {await super().evidence(world, began, ended)}"

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


class PowerLost(ServerKilled):
    """The machine is gone, with what the server and its file system had in memory and was not told to keep."""

    name = "power-lost"
    title = "power lost: PostgreSQL killed, and its file system forgets what was not flushed"
    layout = _DISK

    async def begin(self, world: World) -> None:
        """Kill it, and forget."""
        assert world.mounted is not None
        await super().begin(world)
        self._canary = world.mounted / "canary"
        self._canary.write_text(_NEVER_FLUSHED)
        machine.lose_power(world.mounted)

    async def end(self, world: World) -> None:
        """Mount what is left, and start the server there."""
        assert world.mounted is not None
        await asyncio.to_thread(machine.mount_again, world.mounted)
        self._survived = self._canary.exists() and self._canary.read_text() == _NEVER_FLUSHED
        await super().end(world)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """A file that was not flushed is gone, and the server had to recover."""
        if self._survived:
            raise NotStruckError("what was not flushed is there all the same")
        return f"unflushed file lost; {await super().evidence(world, began, ended)}"


class DiskHangs(Nemesis):
    """Whoever writes waits: commits, checkpoints."""

    name = "disk-hangs"
    title = "the disk hanging for 5 s (fsfreeze)"
    touches = "server"
    layout = _DISK
    seconds = 5.0
    standstill = 4.5
    # Nobody else waits for the disk, until there is much to write.
    channels = ("Sync",)

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

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """Who waits for the disk waited longer."""
        seconds = latency(world.histories("Sync", "shop", "billing"), began, ended)
        if seconds < 0.09:
            raise NotStruckError(f"a Sync publish took {seconds:.3f} s")
        return f"a Sync publish took {seconds:.2f} s"

    async def _set(self, world: World, *settings: str) -> None:
        session = await world.admin()
        for setting in settings:
            await session.execute(f"alter system {setting}")
        await session.execute("select pg_reload_conf()")
        await session.close()
