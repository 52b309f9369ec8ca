"""The publishing side of a process: so many at once, at a rate, or with gaps."""

import asyncio
import random
import time
from array import array
from collections.abc import Sequence

from benchmarks.clients.base import Client
from benchmarks.commands import Publish, Published

#: Seconds between looks at which messages are due, when publishing at a rate.
_TICK = 0.002
#: Publishes under way at most, for each connection, when publishing at a rate the system does not keep up with.
_MAX_UNDER_WAY = 2000


class Publisher:
    """Carries out one `Publish`."""

    def __init__(self, clients: Sequence[Client], order: Publish) -> None:
        self._clients = clients
        self._order = order
        self._padding = "x" * order.size
        self._started = self._count = self._errors = 0
        self._first_error: str | None = None
        self._calls = array("q")

    async def run(self) -> Published:
        """Until the count or the time is reached, and what was begun has ended."""
        began = time.monotonic()
        until = None if self._order.seconds is None else began + self._order.seconds
        if self._order.rate is not None:
            await self._at_rate(self._order.rate, began, until)
        else:
            await asyncio.gather(
                *(self._loop(client, until) for client in self._clients for _ in range(self._order.in_flight))
            )
        seconds = time.monotonic() - began
        return Published(self._count, self._errors, self._first_error, seconds, self._calls)

    async def _loop(self, client: Client, until: float | None) -> None:
        gap = self._order.gap
        while self._more(until):
            self._started += 1
            began = time.monotonic_ns()
            await self._one(client)
            if gap is not None:
                self._calls.append(time.monotonic_ns() - began)
                await asyncio.sleep(random.uniform(*gap))

    async def _at_rate(self, rate: float, began: float, until: float | None) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while self._more(until):
            due = int((time.monotonic() - began) * rate)
            while self._started < due and self._more(until) and len(under_way) < _MAX_UNDER_WAY:
                task = asyncio.create_task(self._one(self._clients[self._started % len(self._clients)]))
                self._started += 1
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(_TICK)
        await asyncio.gather(*under_way)

    def _more(self, until: float | None) -> bool:
        if self._order.count is not None and self._started >= self._order.count:
            return False
        return until is None or time.monotonic() < until

    async def _one(self, client: Client) -> None:
        payload = {"t": 0 if self._order.warm_up else time.monotonic_ns(), "pad": self._padding}
        try:
            await client.publish(payload)
        # Whatever a client raises: counted, and the first one told.
        except Exception as exc:
            self._errors += 1
            if self._first_error is None:
                self._first_error = f"{type(exc).__name__}: {exc}"
        else:
            self._count += 1
