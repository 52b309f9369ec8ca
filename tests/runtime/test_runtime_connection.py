"""Running statements on a real server: what is repeated, what is replaced, how many connections it takes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from postgres import Channel, Server
from postgres import Database as Provisioned

from bus_runtime import AccessDeniedError, ConnectionLostError, RejectedError, UnavailableError, keeper
from bus_runtime.binding import find_binding
from bus_runtime.connection import Database, is_direct
from bus_runtime.driver import notice_death

CONNECTIONS = "select count(*) from pg_stat_activity where usename like 'bus_login_%' and datname = current_database()"


@pytest.fixture
async def own(bindings: Path) -> AsyncIterator[Database]:
    """On connections of its own."""
    database = Database(binding=find_binding(root=bindings))
    yield database
    await database.close()


@pytest.fixture
async def pooled(channel: Channel) -> AsyncIterator[Database]:
    """On a pool of the application's."""
    async with channel.pool(max_size=2) as pool:
        yield Database(pool=pool)


@pytest.fixture(params=["own", "pooled"])
async def either(request: pytest.FixtureRequest, own: Database, pooled: Database) -> Database:
    return {"own": own, "pooled": pooled}[request.param]


async def backend(database: Database) -> int:
    return int((await database.fetch("select pg_backend_pid()"))[0][0])


async def asleep(database: Provisioned, pid: int) -> None:
    """Returns when that session runs pg_sleep."""
    async with database.session() as session, asyncio.timeout(10):
        query = "select count(*) from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'"
        while not await session.fetchval(query, pid):
            await asyncio.sleep(0.01)


async def test_rows_come_back(either: Database) -> None:
    rows = await either.fetch("select $1::bigint + n as sum from generate_series(1, 3) as n", 10)
    assert [row["sum"] for row in rows] == [11, 12, 13]
    assert not either.pooled
    assert either.spares_a_connection


async def test_a_refused_statement_leaves_a_usable_connection(either: Database) -> None:
    with pytest.raises(RejectedError):
        await either.fetch("select 1 / $1::integer", 0)
    assert await backend(either) > 0


async def test_statements_of_one_process_share_a_connection(own: Database, database: Provisioned) -> None:
    assert len({await backend(own) for _ in range(10)}) == 1
    async with database.session() as session:
        assert await session.fetchval(CONNECTIONS) == 1


async def test_a_slow_statement_does_not_hold_up_the_others(own: Database) -> None:
    slow = asyncio.create_task(own.fetch("select pg_sleep(30)"))
    await backend(own)
    assert not slow.done()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_a_cancelled_statement_leaves_nothing_behind(own: Database, database: Provisioned) -> None:
    before = await backend(own)
    task = asyncio.create_task(own.fetch("select pg_sleep(30)"))
    await asleep(database, before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await backend(own) != before


async def test_a_statement_without_an_answer_is_given_up(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "STATEMENT_TIMEOUT", 0.05)
    monkeypatch.setattr(keeper, "_WATCH_INTERVAL", 0.02)
    with pytest.raises(ConnectionLostError):
        await own.fetch("select pg_sleep(30)")
    monkeypatch.undo()
    assert await backend(own) > 0


async def test_a_killed_session_is_replaced(either: Database, database: Provisioned) -> None:
    before = await backend(either)
    running = asyncio.create_task(either.fetch("select pg_sleep(30)"))
    await asleep(database, before)
    async with database.session() as session:
        await session.fetchval("select pg_terminate_backend($1)", before)
    with pytest.raises(ConnectionLostError):
        await running
    assert await backend(either) != before


async def test_a_refusal_replaces_the_connections(own: Database, database: Provisioned) -> None:
    """The login may have been rotated away under them."""
    before = await backend(own)
    with pytest.raises(AccessDeniedError):
        await own.fetch("select * from pgmq_bus.peer")
    assert await backend(own) != before


async def test_a_new_connection_uses_the_binding_as_it_is_then(own: Database, bindings: Path, channel: Channel) -> None:
    await backend(own)
    (bindings / "orders" / "uri").write_text("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(AccessDeniedError):
        await own.fetch("select * from pgmq_bus.peer")
    with pytest.raises(UnavailableError):
        await backend(own)
    (bindings / "orders" / "uri").unlink()
    with pytest.raises(UnavailableError, match="uri"):
        await backend(own)
    (bindings / "orders" / "uri").write_text(channel.uri)
    assert await backend(own) > 0


async def test_replaced_functions_are_called_anew(server: Server, database: Provisioned, tmp_path: Path) -> None:
    """An upgrade gives a function other columns while its calls are prepared: nothing ran, so they are repeated."""
    root = (await database.create_channel("shop.orders")).binding_dir(tmp_path)
    (root / "orders" / "uri").write_text(database.dsn)
    own = Database(binding=find_binding(root=root))
    async with database.session() as session:
        await session.execute("create function public.upgraded() returns table (a int) return 1")
        assert [tuple(row) for row in await own.fetch("select * from public.upgraded()")] == [(1,)]
        await session.execute(
            "drop function public.upgraded(); "
            "create function public.upgraded() returns table (a int, b text) language sql as $$ select 1, 'two' $$"
        )
    assert [tuple(row) for row in await own.fetch("select * from public.upgraded()")] == [(1, "two")]
    await own.close()


async def test_closing_leaves_no_session_and_a_later_statement_opens_one(own: Database, database: Provisioned) -> None:
    await backend(own)
    async with own.connection() as connection:
        assert await connection.fetchval("select 1") == 1
    await own.close()
    async with database.session() as session, asyncio.timeout(10):
        while await session.fetchval(CONNECTIONS):
            await asyncio.sleep(0.01)
    assert await backend(own) > 0


async def test_a_connection_for_listening_is_one_more(own: Database, database: Provisioned) -> None:
    await backend(own)
    async with own.connection() as connection:
        assert connection.get_server_pid() != await backend(own)
        async with database.session() as session:
            assert await session.fetchval(CONNECTIONS) == 2
        assert await is_direct(connection)


async def test_the_local_address_is_that_of_the_connection(either: Database, server: Server, channel: Channel) -> None:
    assert await either.local_ip() == "127.0.0.1"
    async with asyncpg.create_pool(
        host=str(server.directory), port=server.port, user="postgres", password=server.password, min_size=0, max_size=1
    ) as pool:
        database = Database(pool=pool)
        assert await database.local_ip() == "127.0.0.1", "through the Unix socket"
        assert not database.spares_a_connection


async def test_a_server_that_is_away_is_unavailable(bindings: Path, channel: Channel) -> None:
    (bindings / "orders" / "uri").write_text("postgresql://nobody@127.0.0.1:1/none")
    own = Database(binding=find_binding(root=bindings))
    calls: list[Any] = [own.fetch("select 1"), own.local_ip(), own.connection().__aenter__()]
    for call in calls:
        with pytest.raises(UnavailableError):
            await call
    await own.close()


async def test_concurrent_statements_all_return(either: Database) -> None:
    async def add(number: int) -> int:
        return int((await either.fetch("select $1::integer + 1", number))[0][0])

    assert await asyncio.gather(*(add(number) for number in range(200))) == list(range(1, 201))


async def test_the_death_of_the_other_machine_is_noticed_in_seconds(own: Database) -> None:
    """Not by the statement's timeout, which allows for servers that are slow."""
    async with own.connection() as connection:
        found = connection._transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 5000
        idle, interval, count = (
            found.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count <= 8


async def test_connections_through_a_unix_socket_need_no_such_thing(server: Server) -> None:
    connection = await asyncpg.connect(
        host=str(server.directory), port=server.port, user="postgres", password=server.password
    )
    notice_death(connection)
    assert await connection.fetchval("select 1") == 1
    await connection.close()
