"""Fixtures of tests that talk SQL: one database for many of them, a channel of its own for each."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import postgres
import pytest
from wire import Peer

MakeChannel = Callable[..., Awaitable[postgres.Channel]]
Connect = Callable[[postgres.Channel], Awaitable[asyncpg.Connection]]


@pytest.fixture(scope="session")
def shared(server: postgres.Server) -> Iterator[postgres.Database]:
    """One database with the schema installed, for tests that only need a channel of their own."""
    created = asyncio.run(postgres.create_database(server))
    yield created
    asyncio.run(postgres.drop_database(created))


@pytest.fixture
def make_channel(shared: postgres.Database) -> MakeChannel:
    """Provisions a channel with a fresh name; keywords as in a manifest."""

    async def make(**spec: Any) -> postgres.Channel:
        return await shared.create_channel(f"channel-{secrets.token_hex(6)}", **spec)

    return make


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens sessions as a channel's login; closed at the end of the test, whatever state they are in."""
    async with AsyncExitStack() as stack:

        async def open_session(channel: postgres.Channel) -> asyncpg.Connection:
            session = await channel.connect()
            stack.callback(session.terminate)
            return session

        yield open_session


@pytest.fixture
async def admin(shared: postgres.Database) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's session in the shared database."""
    session = await shared.server.connect(shared.name)
    yield session
    session.terminate()


@pytest.fixture
async def elapse(shared: postgres.Database) -> AsyncIterator[Callable[[Peer, str], Awaitable[None]]]:
    """As if so much time had passed in silence for a peer of the shared database: nobody waits minutes for a test."""
    session = await shared.server.connect(shared.name)

    async def move_back(peer: Peer, interval: str) -> None:
        await session.execute(
            "update pgmq_bus.peer set last_seen = last_seen - $2::text::interval,"
            " visible_at = visible_at - $2::text::interval where queue = $1",
            peer.queue,
            interval,
        )

    yield move_back
    session.terminate()


@pytest.fixture
def join(connect: Connect) -> Callable[..., Awaitable[Peer]]:
    """Joins a channel over a session of its own; keywords are the options of `join_channel`."""

    async def join_channel(
        channel: postgres.Channel, session: asyncpg.Connection | None = None, **options: Any
    ) -> Peer:
        return await Peer.join(session or await connect(channel), channel.name, **options)

    return join_channel


@pytest.fixture
def waits(admin: asyncpg.Connection) -> Callable[..., Awaitable[None]]:
    """Returns when a session waits for another's lock, or sleeps in the server, which a long poll does."""

    async def until(session: asyncpg.Connection, *, asleep: bool = False) -> None:
        query = (
            "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1"
            if asleep
            else "select cardinality(pg_blocking_pids($1)) > 0"
        )
        async with asyncio.timeout(10):
            while not await admin.fetchval(query, session.get_server_pid()):
                await asyncio.sleep(0.01)

    return until
