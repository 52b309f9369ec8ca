"""A leader that is frozen in the middle of a transaction: its locks do not outlive it."""

import asyncio

import asyncpg
import postgres
import pytest

from bus_operator.database import AdminConnection, end_silent_sessions, open_session


async def test_a_session_that_is_silent_in_a_transaction(database: postgres.Database) -> None:
    """The protocol's state between Parse and Bind: active, in which no timeout of the server applies."""
    admin = AdminConnection.from_uri(database.dsn)
    frozen, idle, busy, other = [await open_session(admin) for _ in range(4)]
    try:
        transaction = frozen.transaction()
        await transaction.start()
        await frozen.execute("lock table pgmq_bus.channel in access exclusive mode")
        await frozen.prepare("select 1")
        work = asyncio.create_task(busy.fetchval("select pg_sleep(2)"))
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.execute("set lock_timeout = '100ms'; select from pgmq_bus.channel")
        assert await end_silent_sessions(other, 60) == 0
        assert await end_silent_sessions(other, 0.1) == 1
        await other.execute("set lock_timeout = '10s'; select from pgmq_bus.channel")
        assert await idle.fetchval("select 1") == 1
        await work
    finally:
        for session in (frozen, idle, busy, other):
            session.terminate()
