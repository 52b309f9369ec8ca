"""What tests of reading the log share: a backend that is scripted, a waker by hand, and a reader over both."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bus_runtime import JoinOptions, LogRecord, Membership, Waker
from bus_runtime.backend import Offer, Wake
from bus_runtime.flow import Limits
from bus_runtime.lagging import LogFlow
from bus_runtime.reader import LogReader, ReaderSettings
from bus_runtime.session import Session
from bus_runtime.stats import Counters
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


class HandWaker:
    """Calls when the test says so."""

    wake: Wake
    offer: Offer

    def __init__(self, mode: str = "doorbell", audience: int = 1) -> None:
        self.mode = mode
        self.audience = audience
        self.complaints = 0
        self.started = self.closed = False

    async def start(self, wake: Wake, offer: Offer) -> None:
        self.wake, self.offer = wake, offer
        self.started = True

    def overlooked(self) -> None:
        self.complaints += 1

    async def close(self) -> None:
        self.closed = True


@dataclass
class Read:
    """One call of `read_after`."""

    after: int
    acknowledge: int | None
    limit: int
    at: float


class ScriptedBackend(InMemoryBackend):
    """Records reads, holds them at a gate and fails them as told; announces nothing by itself."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__(broker)
        self.reads: list[Read] = []
        self.failures: list[BaseException] = []
        self.answers: list[list[LogRecord]] = []
        self.peer_timeout = 600.0
        self.announced = False
        self.make_waker: Callable[[], HandWaker] = HandWaker
        self.wakers: list[HandWaker] = []
        #: The server has answered, the answer is still on its way.
        self.answered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        membership = await super().join_channel(channel, options)
        object.__setattr__(membership, "peer_timeout_seconds", self.peer_timeout)
        object.__setattr__(membership, "announced", self.announced)
        return membership

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        self.reads.append(Read(after, acknowledge, limit, time.monotonic()))
        if self.failures:
            raise self.failures.pop(0)
        records = await super().read_after(channel, queue, after=after, acknowledge=acknowledge, limit=limit)
        self.answered.set()
        await self.gate.wait()
        return self.answers.pop(0) if self.answers else records

    def waker(self, membership: Membership) -> Waker:
        self.wakers.append(self.make_waker())
        return self.wakers[-1]


class ScriptedFlow(LogFlow):
    """Has as much room as the test says; whoever is behind has handled as much as it says."""

    room = sys.maxsize
    acknowledgeable = sys.maxsize

    def __init__(self) -> None:
        super().__init__(
            Limits(),
            decode=lambda _: None,
            acknowledge_on_dispatch=False,
            on_lost=lambda _: None,
            on_lagging=lambda _, __: None,
        )

    @property
    def is_open(self) -> bool:
        return self.room > 0

    def follow(self, position: int, read: Any, *, on_room: Any, on_handled: Any) -> None:
        self.begun_at, self.read, self.on_room, self.on_handled = position, read, on_room, on_handled

    def move(self, position: int) -> None:
        self.begun_at = position


class Harness:
    """A reader whose messages are handled when the test says so. `settings` are those of `ReaderSettings`."""

    def __init__(self, broker: InMemoryBroker | None = None, *, peer: str | None = None, **settings: Any) -> None:
        self.broker = broker or InMemoryBroker()
        self.backend = ScriptedBackend(self.broker)
        self.session = Session(self.backend, "orders", JoinOptions(peer=peer))
        self.settings = ReaderSettings(**settings)
        self.received: list[int] = []
        self.lost: list[int] = []
        self.redelivered: list[int] = []
        self.handled: dict[int, Callable[[], None]] = {}
        self.counters = Counters()
        self.flow = ScriptedFlow()

    @property
    def reads(self) -> list[Read]:
        return self.backend.reads

    @property
    def waker(self) -> HandWaker:
        return self.backend.wakers[-1]

    @property
    def acknowledgements(self) -> list[int]:
        return [read.acknowledge for read in self.reads if read.acknowledge is not None]

    async def start(self) -> None:
        """Join, and read until it waits."""
        await self.session.join(0)
        await self.read()

    async def read(self) -> None:
        """For a session that has joined."""
        self.reader = LogReader(
            self.backend,
            self.session,
            self.settings,
            receive=self.receive,
            flow=self.flow,
            on_lost=self.lost.append,
            on_redelivered=self.redelivered.append,
            counters=self.counters,
        )
        self.task = asyncio.create_task(self.reader.run())
        await settle()

    def receive(self, msg_id: int, payload: bytes, handled: Callable[[], None]) -> None:
        self.received.append(msg_id)
        self.handled[msg_id] = handled

    async def publish(self, count: int = 1, payload: bytes = b"{}") -> None:
        """Append to the log and say nothing."""
        await self.backend.publish_many("orders", self.session.membership.queue, [payload] * count)

    async def announce(self, count: int = 1) -> None:
        """Append to the log and offer it."""
        first_id = self.broker.channel("orders").head + 1
        await self.publish(count)
        self.waker.offer(first_id, payloads(count))

    def handle(self, *ids: int) -> None:
        for msg_id in ids:
            self.handled.pop(msg_id)()

    async def stop(self, *, acknowledge: bool = True) -> None:
        self.reader.stop()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.reader.close(acknowledge=acknowledge)


def payloads(count: int) -> Sequence[bytes]:
    return [b"{}"] * count


async def settle() -> None:
    """Let whatever is ready run, and what becomes ready by that. In memory nothing else is ever waited for."""
    for _ in range(20):
        await asyncio.sleep(0)
