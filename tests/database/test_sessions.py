"""The operator's kept sessions, on a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import postgres
import pytest

from bus_operator.errors import ConnectionFailedError, SpecError, TransientError
from bus_operator.roles import as_owner
from bus_operator.sessions import IDLE_SECONDS, KEPT, Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sessions(clock: Clock) -> AsyncIterator[Sessions]:
    made = Sessions(clock)
    yield made
    await made.keep_only([])


async def pid(sessions: Sessions, database: postgres.Database) -> int:
    async with sessions.session(database.admin) as session:
        return int(await session.fetchval("select pg_backend_pid()"))


async def test_a_session_is_used_again(sessions: Sessions, database: postgres.Database) -> None:
    assert await pid(sessions, database) == await pid(sessions, database)


async def test_those_in_use_at_once_differ_and_few_are_kept(sessions: Sessions, database: postgres.Database) -> None:
    together = asyncio.Barrier(KEPT + 2)

    async def use() -> int:
        async with sessions.session(database.admin) as session:
            found = int(await session.fetchval("select pg_backend_pid()"))
            await together.wait()
            return found

    first = set(await asyncio.gather(*(use() for _ in range(KEPT + 2))))
    assert len(first) == KEPT + 2
    assert len(first & set(await asyncio.gather(*(use() for _ in range(KEPT + 2))))) == KEPT


async def test_what_is_idle_for_long_is_closed(sessions: Sessions, database: postgres.Database, clock: Clock) -> None:
    first = await pid(sessions, database)
    clock.now += IDLE_SECONDS - 1
    await sessions.keep_only([database.admin])
    assert await pid(sessions, database) == first
    clock.now += IDLE_SECONDS + 1
    await sessions.keep_only([database.admin])
    assert await pid(sessions, database) != first


async def test_a_changed_credential_ends_the_sessions_of_the_one_before(
    sessions: Sessions, database: postgres.Database
) -> None:
    before = await pid(sessions, database)
    other = database.server.admin(database.name, password="another")
    await sessions.keep_only([other])
    assert await pid(sessions, database) != before


async def test_a_session_that_broke_while_idle_is_replaced(sessions: Sessions, database: postgres.Database) -> None:
    first = await pid(sessions, database)
    async with database.session() as killer:
        await killer.fetchval("select pg_terminate_backend($1, 5000)", first)
        # Whoever is quicker than the news of the end gets an error, and a new session then.
        with contextlib.suppress(ConnectionFailedError):
            await pid(sessions, database)
    assert await pid(sessions, database) != first


async def test_a_failure_ends_the_session_and_a_refusal_does_not(
    sessions: Sessions, database: postgres.Database
) -> None:
    first = await pid(sessions, database)
    with pytest.raises(SpecError):
        async with sessions.session(database.admin):
            raise SpecError("refused")
    assert await pid(sessions, database) == first
    with pytest.raises(TransientError):
        async with sessions.session(database.admin) as session:
            await session.execute("select 1/0")
    assert await pid(sessions, database) != first


async def test_what_is_left_open_does_not_reach_the_next_user(sessions: Sessions, database: postgres.Database) -> None:
    async with sessions.session(database.admin) as session:
        await session.execute("begin")
    async with sessions.session(database.admin) as session:
        assert not session.is_in_transaction()
    async with sessions.session(database.admin) as session:
        async with session.transaction(), as_owner(session):
            assert await session.fetchval("select current_user") == "pgmq_bus_owner"
        assert await session.fetchval("select current_user") == "postgres"


async def test_those_in_use_when_all_are_dropped_do_not_come_back(
    sessions: Sessions, database: postgres.Database
) -> None:
    async with sessions.session(database.admin) as session:
        first = await session.fetchval("select pg_backend_pid()")
        sessions.drop()
    assert await pid(sessions, database) != first


async def test_all_may_be_dropped_while_some_are_being_closed(sessions: Sessions, database: postgres.Database) -> None:
    for admin in (database.admin, database.admin.for_database("postgres")):
        async with sessions.session(admin):
            pass
    closing = asyncio.create_task(sessions.keep_only([]))
    await asyncio.sleep(0)
    assert not closing.done(), "it waits for the server"
    sessions.drop()
    await closing
