"""A connection that is opened while another attempt hangs. The connections are fakes."""

import asyncio
from typing import Any

import pytest

from bus_runtime import opening
from bus_runtime.opening import open_in_time


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def terminate(self) -> None:
        self.closed = True


class Attempts:
    """What becomes of each attempt is decided by the test."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[Any]] = []

    async def connect(self) -> Any:
        self.made.append(asyncio.get_running_loop().create_future())
        return await self.made[-1]

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.made) < count:
                await asyncio.sleep(0)


@pytest.fixture
async def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always another attempt before those before it can be through."""
    monkeypatch.setattr(opening, "NEXT_ATTEMPT", 0.0)


async def test_one_attempt_does_where_it_is_quick(attempts: Attempts) -> None:
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(1)
    connection = Connection()
    attempts.made[0].set_result(connection)
    assert await opened is connection
    assert len(attempts.made) == 1


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("winner", [0, 1, 2])
async def test_the_first_to_arrive_is_taken_and_the_others_given_up(attempts: Attempts, winner: int) -> None:
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(3)
    connection = Connection()
    attempts.made[winner].set_result(connection)
    assert await opened is connection
    await asyncio.sleep(0)
    assert all(attempt.cancelled() for number, attempt in enumerate(attempts.made) if number != winner)
    assert not connection.closed


@pytest.mark.usefixtures("at_once")
async def test_of_those_that_arrive_together_one_stays_open(attempts: Attempts) -> None:
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(2)
    connections = [Connection(), Connection()]
    for attempt, connection in zip(attempts.made, connections, strict=False):
        attempt.set_result(connection)
    taken = await opened
    await asyncio.sleep(0)
    assert [connection.closed for connection in connections].count(False) == 1
    assert taken in connections
    assert not taken.closed


async def test_what_fails_does_not_end_another_attempt(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "NEXT_ATTEMPT", 0.2)
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(2)
    monkeypatch.setattr(opening, "NEXT_ATTEMPT", 60.0)
    *others, last = attempts.made
    for attempt in others:
        attempt.set_exception(OSError("reset"))
    await asyncio.sleep(0.01)
    assert not opened.done()
    last.set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await opened


@pytest.mark.usefixtures("at_once")
async def test_who_is_cancelled_leaves_no_attempt_behind(attempts: Attempts) -> None:
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(3)
    opened.cancel()
    await asyncio.gather(opened, return_exceptions=True)
    await asyncio.sleep(0)
    assert all(attempt.cancelled() for attempt in attempts.made)


async def test_an_attempt_that_fails_is_not_repeated(attempts: Attempts) -> None:
    opened = asyncio.create_task(open_in_time(attempts.connect))
    await attempts.reach(1)
    attempts.made[0].set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await opened
    assert len(attempts.made) == 1
