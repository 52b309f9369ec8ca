"""A process with one subscriber that stalls until it is told not to, and perhaps a quick one beside it.

    python stalled_subscriber.py BINDINGS {"quick": false, ...options of PgmqBus}

Answers each line of standard input with a report as JSON; the line `go` ends the stall.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bus_runtime import BusJobUpdateRequestMessage, BusMessage, BusSubscriber, PgmqBus


class Counting(BusSubscriber):
    """Counts messages that come in order, and keeps none."""

    def __init__(self, name: str, gate: asyncio.Event) -> None:
        self._name = name
        self._gate = gate
        self.count = 0
        self.in_order = True

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        await self._gate.wait()
        assert isinstance(message, BusJobUpdateRequestMessage)
        self.in_order &= int(message.job_id) == self.count
        self.count += 1


def memory(field: str) -> int:
    """Bytes that this process takes (`VmRSS`), or took at most (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


async def main(root: str, options: dict[str, Any]) -> None:
    gate, opened = asyncio.Event(), asyncio.Event()
    opened.set()
    subscribers = [Counting("slow", gate)]
    if options.pop("quick"):
        subscribers.append(Counting("quick", opened))
    bus = PgmqBus.from_binding(root=root, **options)
    for subscriber in subscribers:
        await bus.subscribe(subscriber)
    await bus.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "go":
            gate.set()
        stats = bus.stats()
        report = {
            "rss": memory("VmRSS"),
            "peak": memory("VmHWM"),
            "queued": stats.queued,
            "queued_bytes": stats.queued_bytes,
            "acknowledged": stats.acknowledged,
            "lagging": stats.lagging,
            "in_order": all(subscriber.in_order for subscriber in subscribers),
        } | {subscriber.name: subscriber.count for subscriber in subscribers}
        print(json.dumps(report), flush=True)
    await bus.stop()


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
