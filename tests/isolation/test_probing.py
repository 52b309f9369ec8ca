"""Finding out whether a channel or a queue is there by how long a refusal takes.

Time cannot be measured without doubt on a machine that does other things. What it is made of can: the relations that a
call looks at, and how many of their blocks. What errors say is compared in test_foreign_channels.py.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from intruders import CALLS, JOINS, SECRET_NAME, Scene

WORK = (
    "select c.relname::text, pg_stat_get_xact_blocks_fetched(c.oid) as blocks from pg_class as c"
    " where c.relnamespace::regnamespace::text in ('pgmq', 'pgmq_bus') and pg_stat_get_xact_blocks_fetched(c.oid) > 0"
)
Work = dict[str, int]
NO_CHANNEL, NO_QUEUE = "no-such-channel", "0" * 32


@pytest.fixture
async def superuser(scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    session = await scene.server.connect(scene.victim_channel.endpoint.database)
    yield session
    session.terminate()


async def measure(superuser: asyncpg.Connection, login: str, statement: str, arguments: tuple[str, ...]) -> Work:
    """The blocks that the refused call looked at, by relation."""
    transaction = superuser.transaction()
    await transaction.start()
    try:
        # The counters go on from what the session did before.
        before = {row["relname"]: row["blocks"] for row in await superuser.fetch(WORK)}
        await superuser.execute(f"set local session authorization {login}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with superuser.transaction():
                await superuser.fetch(statement, *arguments)
        await superuser.execute("reset session authorization")
        after = {row["relname"]: row["blocks"] for row in await superuser.fetch(WORK)}
        return {name: blocks - before.get(name, 0) for name, blocks in after.items() if blocks > before.get(name, 0)}
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("statement", [*CALLS, *JOINS])
async def test_a_refusal_costs_the_same_whether_the_channel_exists(scene: Scene, superuser, databases, statement: str):
    """The one row that an existing name finds may be looked at, to see whose it is; nothing more, above all no log."""
    login = databases[3].username
    two = "$2" in statement
    pairs = {
        "nothing": (NO_CHANNEL, NO_QUEUE),
        "queue": (NO_CHANNEL, scene.victim.queue),
        "name": (SECRET_NAME, NO_QUEUE),
        "both": (SECRET_NAME, scene.victim.queue),
    }
    for _ in range(8):  # the first read catalogs and make plans, until the generic ones are kept
        work = {
            name: await measure(superuser, login, statement, pair if two else pair[:1]) for name, pair in pairs.items()
        }
    unknown = work.pop("nothing")
    assert unknown, "nothing was measured"
    for name, blocks in work.items():
        logs = [relation for relation in blocks if relation.startswith(("q_", "a_"))]
        assert logs == [], (name, blocks)
        assert sum(blocks.values()) - sum(unknown.values()) <= 4, (name, blocks, unknown)
