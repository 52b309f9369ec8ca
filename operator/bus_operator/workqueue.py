"""A keyed work queue with lanes, as controllers use it.

A key that is added many times is worked on once; a key is never worked on twice at the same time; what is added while
it is worked on is worked on again afterwards, so no change is missed. Failures come back with capped, jittered backoff,
and never stop coming back.

Each key waits in a lane, and each lane has workers of its own: where all workers of one lane hang, the others go on. A
lane is there while it has work. Which one a key is in is asked whenever it is added; one that has changed lane
meanwhile moves, and is still worked on once at a time.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

from bus_operator.errors import BusError

logger = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Hashable)

FIRST_RETRY = 1.0
LAST_RETRY = 60.0
"""Seconds between the first two and between late attempts."""


def backoff(failures: int) -> float:
    """Seconds until the next attempt after that many failures in a row: exponential, capped, with 50% jitter."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311


def _one_lane(_: object) -> Hashable:
    return None


class _Lane(Generic[Item]):
    """Keys that wait, in order, and how many workers there are for them."""

    def __init__(self) -> None:
        self.ready: dict[Item, None] = {}
        self.workers = 0


class WorkQueue(Generic[Item]):
    """Hands keys to `work`, which returns the seconds after which it wants to see the key again, or None.

    Args:
        work: Called with a key. A BusError is a failure that backoff may cure; it is logged with the key.
        workers_of: How many keys of a lane are worked on at the same time.
        lane_of: The lane of a key; without it there is one lane.
    """

    def __init__(
        self,
        work: Callable[[Item], Awaitable[float | None]],
        *,
        workers_of: Callable[[Hashable], int],
        lane_of: Callable[[Item], Hashable] = _one_lane,
    ) -> None:
        self._work = work
        self._workers_of = workers_of
        self._lane_of = lane_of
        self._lanes: dict[Hashable, _Lane[Item]] = {}
        self._queued: dict[Item, Hashable] = {}
        self._active: set[Item] = set()
        self._again: set[Item] = set()
        self._failures: dict[Item, int] = {}
        self._timers: dict[Item, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None

    def add(self, item: Item, *, delay: float = 0) -> None:
        """Asks for a key to be worked on, now or in `delay` seconds; the earlier of two wishes wins."""
        if delay > 0:
            due = asyncio.get_running_loop().time() + delay
            timer = self._timers.get(item)
            if timer is not None and timer.when() <= due:
                return
            if timer is not None:
                timer.cancel()
            self._timers[item] = asyncio.get_running_loop().call_at(due, self._due, item)
            return
        if item in self._active:
            self._again.add(item)
            return
        name = self._lane_of(item)
        if item in self._queued:
            if self._queued[item] == name:
                return
            del self._lanes[self._queued[item]].ready[item]
        self._queued[item] = name
        lane = self._lanes.setdefault(name, _Lane())
        lane.ready[item] = None
        self._staff(name, lane)

    def forget(self, item: Item) -> None:
        """Drops timers and the failure count of a key that is gone."""
        self._failures.pop(item, None)
        timer = self._timers.pop(item, None)
        if timer is not None:
            timer.cancel()

    def depths(self) -> Iterator[tuple[Hashable, int]]:
        """How many keys wait for a worker, in each lane that has work."""
        return ((name, len(lane.ready)) for name, lane in self._lanes.items())

    async def run(self) -> None:
        """Works until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for name, lane in tuple(self._lanes.items()):
                    self._staff(name, lane)
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None
                for timer in self._timers.values():
                    timer.cancel()

    def _due(self, item: Item) -> None:
        self._timers.pop(item, None)
        self.add(item)

    def _retry(self, item: Item) -> float:
        self._failures[item] = self._failures.get(item, 0) + 1
        return backoff(self._failures[item])

    def _staff(self, name: Hashable, lane: _Lane[Item]) -> None:
        """Workers end when their lane is empty, so each key that comes to a lane may need one."""
        if self._group is None:
            return
        for _ in range(min(len(lane.ready), self._workers_of(name) - lane.workers)):
            lane.workers += 1
            self._group.create_task(self._worker(name, lane))

    async def _worker(self, name: Hashable, lane: _Lane[Item]) -> None:
        try:
            while lane.ready:
                item = next(iter(lane.ready))
                del lane.ready[item]
                del self._queued[item]
                await self._work_on(item)
                # Work that waits for nothing would keep the loop for a whole lane of thousands, and the Lease be lost.
                await asyncio.sleep(0)
        finally:
            lane.workers -= 1
            if not lane.workers and not lane.ready:
                self._lanes.pop(name, None)

    async def _work_on(self, item: Item) -> None:
        self._active.add(item)
        try:
            delay = await self._work(item)
        except BusError as exc:
            delay = self._retry(item)
            logger.warning("%s: %s: %s; next attempt in %.1f s", item, exc.reason, exc, delay)
        except Exception:  # a defect: it must stop neither this worker nor the key's next attempt
            delay = self._retry(item)
            logger.exception("%s: unexpected failure; next attempt in %.1f s", item, delay)
        else:
            self._failures.pop(item, None)
        finally:
            self._active.discard(item)
        if item in self._again:
            self._again.discard(item)
            self.add(item)
        elif delay is not None:
            self.add(item, delay=delay)
