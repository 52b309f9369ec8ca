"""Publishes numbered orders: first a measured run, then one a second, so that there is always something to watch."""

import asyncio
import logging
import os
import signal
import socket
import time

from messages import OrderPlaced

from bus_runtime import PgmqBus

TOTAL = int(os.environ.get("ORDERS", "2000"))
PER_SECOND = int(os.environ.get("ORDERS_PER_SECOND", "200"))


async def main() -> None:
    logging.basicConfig(level="INFO")
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    bus = PgmqBus.from_binding()
    await bus.start()
    source = socket.gethostname()
    due = time.monotonic()
    sequence = 0
    while not stopping.is_set():
        sequence += 1
        order = OrderPlaced(source=source, sequence=sequence, total=TOTAL, published_at=time.time())
        await bus.publish(order, raise_on_error=True)
        if sequence == TOTAL:
            print(f"published {TOTAL} orders; one a second from now on", flush=True)
        due += 1 / PER_SECOND if sequence < TOTAL else 1
        await asyncio.sleep(max(0, due - time.monotonic()))
    await bus.stop()


asyncio.run(main())
