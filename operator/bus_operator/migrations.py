"""Migrates a schema while clients use it: they wait for a moment, nobody deadlocks, and nothing is ever half done.

Changing a table needs it for oneself. Whoever asks for that waits for all who are using it, and all who come later wait
behind: so the first table is waited for shortly, in the order in which clients use them, and then tried again. While
one is held, waiting for the next is a deadlock if a client that has that one wants this one. The server finds it when
somebody has waited `deadlock_timeout`, and may end the client's transaction. So all locks are there before that time is
up, or they are given up; where the first took long, the others are not waited for at all.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

import asyncpg

from bus_operator import catalog, render, sql
from bus_operator.errors import TransientError
from bus_operator.plan import stored_fingerprint
from bus_operator.roles import as_owner, execute

logger = logging.getLogger(__name__)

LOCK_WAIT = 1.5
"""Seconds to wait for the first table; clients wait meanwhile. A long poll lasts one."""

GIVE_UP = 60.0
"""Seconds of attempts, after which the database's own retries go on."""

LONGEST_PAUSE = 5.0
"""Seconds between attempts; the first pause is a tenth of it."""

GATED_VERSION = 2
"""The only version whose functions cannot go on while they are replaced: see sql/former/gate_2.sql."""

SETTLED = 2.0
"""Seconds in which whoever was in a function when it was gated has left it: a long poll lasts one."""

ORDER = ("installation", "membership", "peer", "channel")
"""In which clients use the registry; whatever else they use comes later."""


async def patiently(attempt: Callable[[], Awaitable[None]]) -> None:
    """Tries until the tables could be had.

    Raises:
        TransientError: Somebody kept using them.
    """
    deadline = time.monotonic() + GIVE_UP
    pause = LONGEST_PAUSE / 10
    while True:
        try:
            return await attempt()
        except asyncpg.LockNotAvailableError as exc:
            if time.monotonic() > deadline:
                raise TransientError(
                    "the schema cannot be migrated: a session keeps using the tables of pgmq_bus. Look for an old"
                    " xact_start in pg_stat_activity and end that transaction; it is tried again",
                    reason="SchemaBusy",
                ) from exc
            logger.info("the schema is in use: another attempt to migrate it in about %.1f s", pause)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        pause = min(pause * 2, LONGEST_PAUSE)


async def lock(connection: asyncpg.Connection, current: int, target: int) -> None:
    """Takes all that the migrations after `current` change, in a transaction.

    Raises:
        LockNotAvailableError: Somebody is using it; the transaction must be rolled back.
    """
    wanted = {name for _, text in _pending(current, target) for name in sql.changed_relations(text)}
    if current == GATED_VERSION:
        wanted |= {"installation", "membership"}
    found = {row["name"] for row in await connection.fetch(sql.query("present_relations"), sorted(wanted))}
    names = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    timeout = await connection.fetchval(
        "SELECT extract(epoch FROM current_setting('deadlock_timeout')::interval)::float8"
    )
    begun = time.monotonic()
    async with as_owner(connection):
        for name in names:
            left = LOCK_WAIT if name == names[0] else 0.8 * timeout - (time.monotonic() - begun)
            # Zero would be no limit.
            await connection.execute(f"SET LOCAL lock_timeout = {max(int(left * 1000), 1)}")
            await connection.execute(render.lock_relation(name))


async def migrate(connection: asyncpg.Connection, current: int, target: int) -> None:
    """Runs the migrations after `current` up to `target`, in the transaction that has locked what they change."""
    if current == GATED_VERSION:
        await connection.execute(sql.query("drop_core_functions"))
    async with as_owner(connection):
        for _, migration in _pending(current, target):
            await connection.execute(migration)


async def make_channel_functions(connection: asyncpg.Connection) -> None:
    """Gives all channels the functions of their own that version 2 did without: clients need them at once.

    Recorded as of no version, so that each channel's reconciler replaces them in place.
    """
    for channel in await connection.fetch(sql.query("channels_without_functions")):
        statements = render.create_channel_functions(
            sql.channel_functions(), queue=channel["queue"], role=channel["role"], channel_id=channel["id"]
        )
        async with as_owner(connection):
            await execute(connection, statements)
        actual = await catalog.channel_functions_fingerprint(connection, channel["id"], channel["queue"])
        fingerprint = stored_fingerprint("migrated", actual)
        await connection.execute(sql.query("record_channel_functions"), channel["id"], fingerprint)


async def gate(connection: asyncpg.Connection) -> bool:
    """Lets clients of version 2 wait where the migration can make them. False where there is nothing to be done.

    By itself, before the migration; what was recorded of the functions is no longer true.
    """
    found = await connection.fetchrow(sql.query("observe_gate"))
    if found["gated"] or not found["callable"]:
        return False
    await connection.execute(render.public_schema_create(allow=True))
    async with as_owner(connection):
        await connection.execute(sql.former("gate_2"))
    await connection.execute(render.public_schema_create(allow=False))
    return True


def _pending(current: int, target: int) -> list[tuple[int, str]]:
    return [(version, text) for version, text in sql.migrations() if current < version <= target]
