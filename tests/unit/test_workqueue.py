"""The work queue: one key at a time, nothing missed, failures come back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bus_operator import workqueue
from bus_operator.errors import TransientError
from bus_operator.workqueue import WorkQueue, backoff

Start = Callable[..., WorkQueue[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts queues, which are cancelled at the end."""
    tasks: list[asyncio.Task[None]] = []

    def begin(
        work: Callable[[str], Awaitable[float | None]],
        workers: int = 4,
        lane_of: Callable[[str], str] = lambda key: "the only one",
    ) -> WorkQueue[str]:
        queue = WorkQueue(work, workers_of=lambda _: workers, lane_of=lane_of)
        tasks.append(asyncio.create_task(queue.run()))
        return queue

    yield begin
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


class Worker:
    """Work that a test lets go on step by step."""

    def __init__(self, outcome: Callable[[str], float | None] = lambda key: None) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.may_end = asyncio.Semaphore(0)
        self.active: list[str] = []
        self.done: list[str] = []
        self._outcome = outcome

    async def __call__(self, key: str) -> float | None:
        assert key not in self.active, "a key is worked on twice at the same time"
        self.active.append(key)
        self.begun.put_nowait(key)
        try:
            await self.may_end.acquire()
            return self._outcome(key)
        finally:
            self.active.remove(key)
            self.done.append(key)


async def settle() -> None:
    """Lets everything run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_added_often_is_worked_on_once(start: Start) -> None:
    worker = Worker()
    queue = start(worker, workers=1)
    for key in "abaabb":
        queue.add(key)
    worker.may_end.release()
    worker.may_end.release()
    await settle()
    assert worker.done == ["a", "b"]
    assert worker.begun.qsize() == 2


async def test_what_is_added_during_the_work_is_worked_on_again_once(start: Start) -> None:
    worker = Worker()
    queue = start(worker)
    queue.add("a")
    await settle()
    for _ in range(3):
        queue.add("a")
    await settle()
    assert worker.active == ["a"]
    worker.may_end.release()
    await settle()
    assert worker.active == ["a"]
    worker.may_end.release()
    await settle()
    assert worker.done == ["a", "a"]
    assert worker.active == []


async def test_as_many_at_once_as_there_are_workers(start: Start) -> None:
    worker = Worker()
    queue = start(worker, workers=2)
    for key in "abc":
        queue.add(key)
    await settle()
    assert worker.active == ["a", "b"]
    worker.may_end.release()
    await settle()
    assert sorted(worker.active) == ["b", "c"]


async def test_a_lane_in_which_everything_hangs_delays_no_other(start: Start) -> None:
    worker = Worker()

    async def work(key: str) -> float | None:
        if key.startswith("dead"):
            await asyncio.Event().wait()
        return await worker(key)

    queue = start(work, workers=2, lane_of=lambda key: key.split("/")[0])
    for number in range(50):
        queue.add(f"dead/{number}")
    queue.add("alive/1")
    worker.may_end.release()
    await settle()
    assert worker.done == ["alive/1"]


async def test_a_key_that_changes_its_lane_is_worked_on_once_and_then_in_the_new_one(start: Start) -> None:
    lanes = dict.fromkeys(("first", "second", "moves"), "old")
    worker = Worker()
    queue = start(worker, workers=1, lane_of=lanes.__getitem__)
    for key in ("first", "second", "moves"):
        queue.add(key)
    await settle()
    lanes["moves"] = "new"
    queue.add("moves")
    await settle()
    # It overtook the one before it in the old lane, and is not in that one any more.
    assert worker.active == ["first", "moves"]
    lanes["moves"] = "old"
    queue.add("moves")
    await settle()
    assert worker.active == ["first", "moves"]
    for _ in range(4):
        worker.may_end.release()
    await settle()
    assert worker.done == ["first", "moves", "second", "moves"]


async def test_what_was_added_before_the_start_is_worked_on_in_all_lanes() -> None:
    worker = Worker()
    queue = WorkQueue(worker, workers_of=lambda lane: {"a": 2, "b": 1}[lane], lane_of=lambda key: key[0])
    for key in ("a1", "a2", "a3", "b1", "b2"):
        queue.add(key)
    task = asyncio.create_task(queue.run())
    await settle()
    assert sorted(worker.active) == ["a1", "a2", "b1"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_key_comes_back_after_the_delay_that_its_work_returned(start: Start) -> None:
    worker = Worker(lambda key: 0.01)
    queue = start(worker)
    queue.add("a")
    worker.may_end.release()
    for _ in range(2):
        assert await asyncio.wait_for(worker.begun.get(), 5) == "a"
        worker.may_end.release()


async def test_the_earlier_of_two_delays_counts(start: Start) -> None:
    worker = Worker()
    queue = start(worker)
    queue.add("a", delay=3600)
    queue.add("a", delay=0.01)
    queue.add("a", delay=3600)
    assert await asyncio.wait_for(worker.begun.get(), 5) == "a"


async def test_a_forgotten_key_does_not_come_back(start: Start) -> None:
    worker = Worker()
    queue = start(worker)
    queue.add("a", delay=0.01)
    queue.forget("a")
    queue.add("b", delay=0.02)
    assert await asyncio.wait_for(worker.begun.get(), 5) == "b"


@pytest.mark.parametrize(
    "failure", [TransientError("the server is away", reason="ConnectionFailed"), KeyError("a defect")]
)
async def test_a_failure_comes_back_and_disturbs_no_other_key(
    start: Start, failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workqueue, "FIRST_RETRY", 0.002)
    attempts: dict[str, int] = {}
    done = asyncio.Event()

    async def work(key: str) -> float | None:
        attempts[key] = attempts.get(key, 0) + 1
        if key == "bad" and attempts[key] < 4:
            raise failure
        if key == "bad":
            done.set()
        return None

    with caplog.at_level(logging.WARNING):
        queue = start(work, workers=1)
        queue.add("bad")
        queue.add("good")
        await asyncio.wait_for(done.wait(), 5)
    assert attempts == {"bad": 4, "good": 1}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    if isinstance(failure, TransientError):
        assert messages[0].startswith("bad: ConnectionFailed: the server is away; next attempt in 0.0 s")
        assert all(record.exc_info is None for record in caplog.records)
    else:
        assert messages[0].startswith("bad: unexpected failure; next attempt in ")
        assert all(record.exc_info is not None for record in caplog.records)


async def test_success_resets_the_backoff(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def record(failures: int) -> float:
        seen.append(failures)
        return 0.001

    monkeypatch.setattr(workqueue, "backoff", record)
    outcomes = iter([False, False, True, False, True])
    done = asyncio.Event()

    async def work(key: str) -> float | None:
        if not next(outcomes):
            raise TransientError("again")
        if len(seen) == 3:
            done.set()
            return None
        return 0.001

    queue = start(work)
    queue.add("a")
    await asyncio.wait_for(done.wait(), 5)
    assert seen == [1, 2, 1]


def test_backoff_grows_is_capped_and_jittered() -> None:
    assert all(0.5 <= backoff(1) <= 1.0 for _ in range(100))
    assert all(4.0 <= backoff(4) <= 8.0 for _ in range(100))
    assert all(30.0 <= backoff(failures) <= 60.0 for failures in range(7, 2000))
    assert len({backoff(3) for _ in range(10)}) > 1
