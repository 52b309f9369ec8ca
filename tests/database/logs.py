"""What is in a channel's log, as only an administrator can see it."""

from datetime import datetime

import asyncpg


async def channel_id(admin: asyncpg.Connection, channel: str) -> int:
    """The number of a channel in the registry."""
    return int(await admin.fetchval("select id from pgmq_bus.channel where name = $1", channel))


async def log_ids(admin: asyncpg.Connection, channel: str) -> list[int]:
    """The ids of the messages that are in the log."""
    queue = await admin.fetchval("select queue from pgmq_bus.channel where name = $1", channel)
    return [row[0] for row in await admin.fetch(f"select msg_id from pgmq.q_{queue} order by msg_id")]


async def trim_soon(admin: asyncpg.Connection, channel: str) -> None:
    """Lets the next reader trim: it happens twice a second at most."""
    await admin.execute(
        "update pgmq_bus.channel_state set trim_after = '-infinity'"
        " where channel_id = (select id from pgmq_bus.channel where name = $1)",
        channel,
    )


async def next_trim(admin: asyncpg.Connection, channel: str) -> datetime:
    """From when on the next reader trims."""
    moment: datetime = await admin.fetchval(
        "select trim_after from pgmq_bus.channel_state where channel_id = $1", await channel_id(admin, channel)
    )
    return moment


async def trim_all(admin: asyncpg.Connection, channel: str) -> None:
    """Trims until nothing is left to trim: one pass goes over a bounded number of messages."""
    number = await channel_id(admin, channel)
    before = None
    while (state := await trim_state(admin, channel)) != before:
        before = state
        await admin.execute("select pgmq_bus.trim($1, true)", number)


async def trim_state(admin: asyncpg.Connection, channel: str) -> asyncpg.Record:
    """How far the log is trimmed and counted, and what was counted."""
    query = (
        "select trimmed, measured_to, measured_messages, measured_bytes from pgmq_bus.channel_state"
        " where channel_id = $1"
    )
    return await admin.fetchrow(query, await channel_id(admin, channel))


async def jump(admin: asyncpg.Connection, channel: str) -> None:
    """What the first publish after a crash does before all else."""
    number = await channel_id(admin, channel)
    async with admin.transaction():
        await admin.execute("delete from pgmq_bus.channel_alive where channel_id = $1", number)
        await admin.execute("select pgmq_bus.lock_channel($1)", number)
        await admin.execute("select pgmq_bus.recover($1)", number)
