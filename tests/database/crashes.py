"""Servers that crash when a test wants it, with the end of their write-ahead log still in memory."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import postgres
from wire import Peer

# What a transaction that does not wait for the disk wrote stays in memory for this long.
OPTIONS = ("-c", "wal_writer_delay=10s", "-c", "wal_writer_flush_after=1GB", "-c", "autovacuum=off")

_WRITER = "select pid from pg_stat_activity where backend_type = 'walwriter'"


@asynccontextmanager
async def losing_the_end(database: postgres.Database) -> AsyncIterator[None]:
    """What is committed in here and does not wait for the disk is lost; at the end the server has recovered.

    Killing a process that belongs to the server makes it end all sessions and start anew from what is on disk.
    """
    session = await database.server.connect(database.name)
    await session.execute("checkpoint")
    writer = await session.fetchval(_WRITER)
    # It would write meanwhile.
    os.kill(writer, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(writer, signal.SIGKILL)
        session.terminate()
    await _restarted(database, writer)


async def _restarted(database: postgres.Database, writer: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                session = await database.server.connect(database.name)
                now = await session.fetchval(_WRITER)
                session.terminate()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                now = writer
            if now not in (None, writer):
                return
            await asyncio.sleep(0.05)


async def reconnect(
    connect: Callable[[postgres.Channel], Awaitable[asyncpg.Connection]], channel: postgres.Channel, *peers: Peer
) -> None:
    """New sessions for peers whose server has crashed."""
    for peer in peers:
        peer.session.terminate()
        peer.session = await connect(channel)
