"""Through a real PgBouncer: in session mode as if it were not there, in transaction mode with what that leaves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pgbouncer import PgBouncer, pgbouncer
from postgres import Channel, Server
from recorder import Recorder, eventually, note

from bus_runtime import AccessDeniedError, IsolatedPgmqBackend, PgmqBus, RejectedError
from bus_runtime.address import ADDRESS_VARIABLE
from bus_runtime.binding import find_binding
from bus_runtime.connection import Database, is_direct
from bus_runtime.listen import Listener


@pytest.fixture(params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pooler(server: Server, mode: str, bindings: Path, channel: Channel) -> Iterator[PgBouncer]:
    """The binding leads through it. In transaction mode it has fewer sessions than the tests have connections."""
    with pgbouncer(server, mode, pool_size=3 if mode == "transaction" else 20) as running:
        running.redirect(bindings, channel)
        yield running


@pytest.fixture
async def databases(pooler: PgBouncer, bindings: Path) -> AsyncIterator[list[Database]]:
    """As several processes have them."""
    made = [Database(binding=find_binding(root=bindings)) for _ in range(5)]
    yield made
    for database in made:
        await database.close()


async def calculate(database: Database, number: int, count: int = 100) -> None:
    """Statements of the same form, so that one taken for another shows."""
    for n in range(count):
        operator = "+-*"[(n + number) % 3]
        rows = await database.fetch(f"select $1::bigint {operator} $2::bigint as result", n, number)
        assert rows[0]["result"] == {"+": n + number, "-": n - number, "*": n * number}[operator]


async def test_a_pooler_is_noticed_where_it_matters(databases: list[Database], mode: str) -> None:
    await asyncio.gather(*(calculate(database, number) for number, database in enumerate(databases)))
    assert any(database.pooled for database in databases) == (mode == "transaction")
    assert any(not database.spares_a_connection for database in databases) == (mode == "transaction")
    async with databases[0].connection() as connection:
        assert not await is_direct(connection)


async def test_a_pool_of_the_application_is_served_as_well(pooler: PgBouncer, channel: Channel) -> None:
    async with (
        asyncpg.create_pool(pooler.uri(channel), min_size=1, max_size=3) as cached,
        asyncpg.create_pool(pooler.uri(channel), min_size=1, max_size=3, statement_cache_size=0) as plain,
    ):
        databases = [Database(pool=pool) for pool in (cached, plain)]
        await asyncio.gather(*(calculate(database, number) for number, database in enumerate(databases)))
        # Which mode it is cannot be seen before it is too late.
        assert all(database.pooled for database in databases)


async def test_errors_are_the_servers_in_either_mode(databases: list[Database]) -> None:
    for database in databases:
        await calculate(database, 1, 3)
        with pytest.raises(RejectedError):
            await database.fetch("select 1 / $1::bigint", 0)
        with pytest.raises(AccessDeniedError):
            await database.fetch("select * from pgmq_bus.peer")
        await calculate(database, 2, 3)


async def test_listening_is_relied_on_only_where_it_is_heard(databases: list[Database], mode: str) -> None:
    async def notify() -> None:
        await databases[1].fetch("select pg_notify('bell', '')")

    woken = asyncio.Event()
    listener = Listener(databases[0].connection, "bell", notify=notify, wake=woken.set, on_change=lambda: None)
    listener.start()
    await eventually(lambda: listener.listening or listener.deaf)
    assert listener.listening == (mode == "session")
    if listener.listening:
        await asyncio.wait_for(woken.wait(), 10)
        woken.clear()
        await notify()
        await asyncio.wait_for(woken.wait(), 10)
    await listener.close()


async def test_messages_are_exchanged_in_one_order(pooler: PgBouncer, make_bus: Any) -> None:
    recorders = [Recorder(str(number)) for number in range(3)]
    buses = [await make_bus(recorder) for recorder in recorders]
    await asyncio.gather(*(bus.publish(note(n), raise_on_error=True) for n in range(100) for bus in buses))
    await eventually(lambda: all(len(recorder.messages) == 300 for recorder in recorders), seconds=30)
    assert recorders[0].numbers == recorders[1].numbers == recorders[2].numbers
    assert sorted(recorders[0].numbers) == sorted([*range(100)] * 3)
    assert all(bus.stats().publish_errors == bus.stats().lost == 0 for bus in buses)


async def test_doorbells_do_not_care(pooler: PgBouncer, make_bus: Any) -> None:
    recorder = Recorder()
    reader, writer = await make_bus(recorder, max_poll_seconds=60), await make_bus()
    await eventually(lambda: reader.stats().wake == "doorbell")
    for number in range(20):
        await writer.publish(note(number), raise_on_error=True)
        await eventually(lambda expected=number: recorder.numbers == [*range(expected + 1)])
    assert reader.stats().wake == "doorbell"


async def test_without_doorbells_it_listens_where_that_is_heard(
    pooler: PgBouncer, make_bus: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "off")
    recorder = Recorder()
    reader, writer = await make_bus(recorder), await make_bus()
    if mode == "session":
        await eventually(lambda: reader.stats().wake == "listen")
    for number in range(20):
        await writer.publish(note(number), raise_on_error=True)
        await eventually(lambda expected=number: recorder.numbers == [*range(expected + 1)])
    assert reader.stats().wake == ("listen" if mode == "session" else "poll")


async def test_a_backend_on_a_pool_works_through_a_pooler(pooler: PgBouncer, channel: Channel) -> None:
    recorder = Recorder()
    async with asyncpg.create_pool(pooler.uri(channel), min_size=1, max_size=4) as pool:
        bus = PgmqBus(backend=IsolatedPgmqBackend(pool), channel=channel.name)
        await bus.subscribe(recorder)
        await bus.start()
        for number in range(10):
            await bus.publish(note(number), raise_on_error=True)
        await eventually(lambda: recorder.numbers == [*range(10)])
        await bus.stop()
