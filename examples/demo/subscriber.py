"""Receives orders and, once a publisher's measured run is over, prints a report as one line of JSON."""

import asyncio
import json
import logging
import signal
import socket
import statistics
import time
from collections import Counter
from pathlib import Path

from messages import OrderPlaced

from bus_runtime import BusMessage, BusSubscriber, PgmqBus

JOINED = Path("/tmp/joined")  # noqa: S108 - the readiness probe of the manifest looks for it


class Orders(BusSubscriber):
    """Counts what arrives from each publisher."""

    def __init__(self, bus: PgmqBus) -> None:
        self.bus = bus
        self.seen: dict[str, Counter[int]] = {}
        self.latencies: dict[str, list[float]] = {}

    @property
    def name(self) -> str:
        return "orders"

    async def on_bus_message(self, message: BusMessage) -> None:
        if not isinstance(message, OrderPlaced):
            return
        seen = self.seen.setdefault(message.source, Counter())
        latencies = self.latencies.setdefault(message.source, [])
        seen[message.sequence] += 1
        if message.sequence <= message.total:
            latencies.append((time.time() - message.published_at) * 1000)
        if message.sequence == message.total + 1 and seen[message.sequence] == 1:
            print(json.dumps(self.report(message.source, message.total)), flush=True)

    def report(self, source: str, total: int) -> dict[str, object]:
        """Figures of one publisher's measured run. Everything after the first order seen counts as expected."""
        seen = self.seen[source]
        first = min(seen)
        expected = range(first, total + 1)
        stats = self.bus.stats()
        quantiles = statistics.quantiles(self.latencies[source], n=100)
        return {
            "report": socket.gethostname(),
            "publisher": source,
            "first": first,
            "received": sum(1 for sequence in expected if seen[sequence]),
            "lost": sum(1 for sequence in expected if not seen[sequence]),
            "duplicated": sum(seen[sequence] - 1 for sequence in expected if seen[sequence] > 1),
            "wake": stats.wake,
            "announced": stats.announced,
            "p50_ms": round(quantiles[49], 2),
            "p99_ms": round(quantiles[98], 2),
        }


async def main() -> None:
    logging.basicConfig(level="INFO")
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    bus = PgmqBus.from_binding()
    await bus.subscribe(Orders(bus))
    await bus.start()
    JOINED.touch()
    await stopping.wait()
    await bus.stop()


asyncio.run(main())
