"""`python -m benchmarks.operator_scale.rotating_peer ROOT NAME RATE`: publishes and receives while credentials change.

Standard input: `stop` ends publishing, a number says how many messages there were in all. Each is answered by a line of
JSON.
"""

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bus_runtime import BusDataMessage, BusMessage, BusSubscriber, PgmqBus, PublishError

_PATIENCE = 60.0
"""Seconds to wait for messages that were published and did not come."""


@dataclass(kw_only=True)
class Numbered(BusDataMessage):
    """A message that is told from all others."""

    number: int


class _Receiver(BusSubscriber):
    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self._expected: int | None = None
        self._complete = asyncio.Event()

    @property
    def name(self) -> str:
        return "receiver"

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Numbered):
            self.seen[message.source, message.number] += 1
            if self._expected is not None and len(self.seen) >= self._expected:
                self._complete.set()

    async def wait_for(self, expected: int) -> None:
        """Returns when so many came, or no more can be hoped for."""
        self._expected = expected
        if len(self.seen) < expected:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._complete.wait()


class _Publisher:
    """Publishes at a fixed rate, whatever a single publish takes."""

    def __init__(self, bus: PgmqBus, name: str, rate: float) -> None:
        self._bus = bus
        self._name = name
        self._interval = 1 / rate
        self._under_way: set[asyncio.Task[None]] = set()
        self.published = self.failed = 0
        self.longest = 0.0

    async def run(self) -> None:
        number, due = 0, time.monotonic()
        while True:
            number += 1
            task = asyncio.create_task(self._publish(number))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def finish(self) -> None:
        await asyncio.gather(*self._under_way)

    async def _publish(self, number: int) -> None:
        begun = time.monotonic()
        try:
            await self._bus.publish(Numbered(source=self._name, number=number), raise_on_error=True)
        except PublishError as exc:
            self.failed += 1
            print(exc, file=sys.stderr)
        else:
            self.published += 1
        self.longest = max(self.longest, time.monotonic() - begun)


async def _main(root: Path, name: str, rate: float) -> None:
    lines = await _standard_input()
    receiver, bus = _Receiver(), PgmqBus.from_binding(root=root, peer=name)
    await bus.subscribe(receiver)
    await bus.start()
    publisher = _Publisher(bus, name, rate)
    _say({"ready": True})
    await lines.readline()
    publishing = asyncio.create_task(publisher.run())
    await lines.readline()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    await publisher.finish()
    _say({"published": publisher.published, "failed": publisher.failed, "longest": publisher.longest})
    await receiver.wait_for(int(await lines.readline()))
    stats = bus.stats()
    await bus.stop()
    _say(
        {
            "received": len(receiver.seen),
            "again": receiver.seen.total() - len(receiver.seen),
            "dropped": stats.rejoined + (stats.state != "running"),
            "generation": stats.generation,
        }
    )


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format=f"{sys.argv[2]}: %(message)s")
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
