"""How many connections are kept, who gets one, and what becomes of them. The connections are fakes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from recorder import eventually

from bus_runtime import keeper as module
from bus_runtime.keeper import Keeper, Kept, statement_name


class Connection:
    """Counts what a keeper does with it."""

    def __init__(self) -> None:
        self.closed = False
        self.prepared: list[str] = []

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, *, timeout: float) -> None:
        self.closed = True

    async def prepare(self, sql: str, *, name: str) -> Any:
        self.prepared.append(name)

        class Statement:
            async def fetch(self, *arguments: object) -> list[object]:
                return [sql, *arguments]

        return Statement()


class Server:
    """Opens connections when it is asked to, and not before it is ready."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.attempts = 0
        self.failures: list[Exception] = []
        self.ready = asyncio.Event()
        self.ready.set()

    async def connect(self) -> Any:
        self.attempts += 1
        await self.ready.wait()
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.opened.append(Connection())
        return self.opened[-1]

    @property
    def open(self) -> int:
        return sum(not connection.closed for connection in self.opened)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def keeper(server: Server) -> AsyncIterator[Keeper]:
    keeper = Keeper(server.connect)
    yield keeper
    await keeper.close()
    assert server.open == 0


async def test_one_connection_serves_one_statement_after_the_other(keeper: Keeper, server: Server) -> None:
    for _ in range(10):
        keeper.release(await keeper.acquire())
    assert len(server.opened) == 1


async def test_short_waits_open_no_further_connection(
    keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 60.0)
    monkeypatch.setattr(module, "_DEBT_LIMIT", 60.0)

    async def use() -> None:
        kept = await keeper.acquire()
        await asyncio.sleep(0)
        keeper.release(kept)

    await asyncio.gather(*(use() for _ in range(50)))
    assert len(server.opened) == 1


async def test_who_waits_longest_is_served_first(keeper: Keeper) -> None:
    order: list[int] = []
    kept = await keeper.acquire()

    async def use(number: int) -> None:
        mine = await keeper.acquire()
        order.append(number)
        keeper.release(mine)

    tasks = [asyncio.create_task(use(number)) for number in range(5)]
    await asyncio.sleep(0)
    keeper.release(kept)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_a_long_wait_opens_another_up_to_three(keeper: Keeper, server: Server) -> None:
    held = [await asyncio.wait_for(keeper.acquire(), 5) for _ in range(3)]
    assert len(server.opened) == keeper.size == 3
    waiting = asyncio.create_task(keeper.acquire())
    await asyncio.sleep(module._PATIENCE * 3)
    assert not waiting.done()
    assert server.attempts == 3
    for kept in held:
        keeper.release(kept)
    keeper.release(await waiting)


async def test_many_short_waits_open_another(keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 60.0)

    async def use() -> None:
        kept = await keeper.acquire()
        await asyncio.sleep(0.001)
        keeper.release(kept)

    async def use_all_the_time() -> None:
        while len(server.opened) < 2:
            await use()

    async with asyncio.timeout(5):
        await asyncio.gather(use_all_the_time(), use_all_the_time())


async def test_what_is_not_needed_is_closed(keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_TIMEOUT", 0.02)
    monkeypatch.setattr(module, "_WATCH_INTERVAL", 0.01)
    for kept in [await keeper.acquire() for _ in range(3)]:
        keeper.release(kept)
    await eventually(lambda: server.open == 1)
    await eventually(lambda: keeper._watch is None)
    keeper.release(await keeper.acquire())
    assert len(server.opened) == 3


async def test_a_connection_that_broke_while_idle_is_replaced(keeper: Keeper, server: Server) -> None:
    keeper.release(await keeper.acquire())
    server.opened[0].closed = True
    kept = await keeper.acquire()
    assert kept.connection is server.opened[1]
    keeper.release(kept)


async def test_expired_connections_are_replaced_when_next_used(keeper: Keeper, server: Server) -> None:
    held = [await keeper.acquire() for _ in range(2)]
    keeper.release(held[0])
    keeper.expire()
    assert server.opened[0].closed
    assert not server.opened[1].closed, "in use"
    keeper.release(held[1])
    assert server.open == 0
    keeper.release(await keeper.acquire())
    assert server.open == 1


async def test_renewing_opens_first_and_lets_go_of_each_when_its_statement_is_over(
    keeper: Keeper, server: Server
) -> None:
    held = [await keeper.acquire() for _ in range(2)]
    keeper.release(held[0])
    server.ready.clear()
    renewing = asyncio.create_task(keeper.renew(server.connect))
    await eventually(lambda: server.attempts == 3)
    assert server.open == 2
    keeper.release(await keeper.acquire())
    server.ready.set()
    await renewing
    assert [connection.closed for connection in server.opened] == [True, False, False]
    keeper.release(held[1])
    assert [connection.closed for connection in server.opened] == [True, True, False]
    kept = await keeper.acquire()
    assert kept.connection is server.opened[2]
    keeper.release(kept)
    assert len(server.opened) == 3


async def test_renewing_in_vain_changes_nothing(keeper: Keeper, server: Server) -> None:
    keeper.release(await keeper.acquire())
    server.failures = [ConnectionRefusedError()]
    with pytest.raises(ConnectionRefusedError):
        await keeper.renew(server.connect)
    keeper.release(await keeper.acquire())
    assert len(server.opened) == server.open == 1


async def test_who_waits_is_served_by_the_renewed_connection(
    keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 60.0)
    held = await keeper.acquire()
    waiting = asyncio.create_task(keeper.acquire())
    await asyncio.sleep(0)
    await keeper.renew(server.connect)
    kept = await asyncio.wait_for(waiting, 5)
    assert kept.connection is server.opened[1]
    keeper.release(kept)
    keeper.release(held)
    assert server.open == 1


async def test_a_failure_to_connect_reaches_everyone_who_waits(keeper: Keeper, server: Server) -> None:
    server.failures = [ConnectionRefusedError(str(number)) for number in range(3)]
    results = await asyncio.gather(*(keeper.acquire() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionRefusedError] * 3
    keeper.release(await keeper.acquire())


async def test_waiting_goes_on_when_the_connection_broke(keeper: Keeper, server: Server) -> None:
    kept = await keeper.acquire()
    waiting = [asyncio.create_task(keeper.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    keeper.discard(kept)
    first = await waiting[0]
    assert first.connection is server.opened[1]
    keeper.release(first)
    keeper.release(await waiting[1])


async def test_growing_in_vain_disturbs_nobody(keeper: Keeper, server: Server) -> None:
    kept = await keeper.acquire()
    server.failures = [ConnectionRefusedError("too many connections")]
    waiting = asyncio.create_task(keeper.acquire())
    await eventually(lambda: server.attempts == 2)
    await asyncio.sleep(module._PATIENCE * 3)
    assert not waiting.done()
    assert server.attempts == 2
    keeper.release(kept)
    assert await waiting is kept
    keeper.release(kept)


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_wait_keeps_nothing(
    keeper: Keeper, server: Server, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 60.0)
    kept = await keeper.acquire()
    waiting = asyncio.create_task(keeper.acquire())
    await asyncio.sleep(0)
    keeper.release(kept)
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if not waiting.cancelled():
        keeper.release(waiting.result())
    keeper.release(await asyncio.wait_for(keeper.acquire(), 5))
    assert len(server.opened) == 1


async def test_a_statement_that_takes_too_long_loses_its_connection(
    keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATEMENT_TIMEOUT", 0.02)
    monkeypatch.setattr(module, "_WATCH_INTERVAL", 0.01)
    kept = await keeper.acquire()
    await eventually(lambda: server.opened[0].closed)
    keeper.discard(kept)


async def test_waiting_ends_when_all_connections_are_stuck(
    keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.02)
    monkeypatch.setattr(module, "_WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(module, "_MAX_CONNECTIONS", 1)
    kept = await keeper.acquire()
    with pytest.raises(TimeoutError, match="busy"):
        await keeper.acquire()
    keeper.release(kept)


async def test_a_server_that_does_not_answer_is_given_up(
    keeper: Keeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.02)
    server.ready.clear()
    with pytest.raises(TimeoutError):
        await keeper.acquire()
    assert keeper.size == 0


async def test_closing_waits_for_statements_under_way(server: Server) -> None:
    keeper = Keeper(server.connect)
    kept = await keeper.acquire()
    closing = asyncio.create_task(keeper.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    keeper.release(kept)
    await closing
    assert server.open == 0


async def test_closing_does_not_wait_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.02)
    keeper = Keeper(server.connect)
    kept = await keeper.acquire()
    await keeper.close()
    assert server.open == 0
    keeper.release(kept)


async def test_closing_that_is_given_up_leaves_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Connection, *, timeout: float) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Connection, "close", hang)
    keeper = Keeper(server.connect)
    held = [await keeper.acquire() for _ in range(2)]
    for kept in held:
        keeper.release(kept)
    assert server.open == 2
    closing = asyncio.create_task(keeper.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert server.open == 0


async def test_closing_ends_growing(server: Server) -> None:
    keeper = Keeper(server.connect)
    kept = await keeper.acquire()
    server.ready.clear()
    waiting = asyncio.create_task(keeper.acquire())
    await eventually(lambda: server.attempts == 2)
    closing = asyncio.create_task(keeper.close())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    keeper.release(kept)
    await closing
    assert server.open == 0


async def test_statements_are_prepared_once_and_named_by_their_text() -> None:
    connection: Any = Connection()
    kept = Kept(connection, 0)
    assert await kept.fetch("select 1", (2,)) == ["select 1", 2]
    assert await kept.fetch("select 1", (3,)) == ["select 1", 3]
    await kept.fetch("select 2", ())
    assert connection.prepared == [statement_name("select 1"), statement_name("select 2")]
    assert len(set(connection.prepared)) == 2
    assert all(len(name) < 64 for name in connection.prepared)
