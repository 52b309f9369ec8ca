"""A process that publishes and subscribes with a client of some version, for the tests of upgrades.

    python worker.py NAME ours|reference URI CHANNEL RATE

`ours` is the bus_runtime that PYTHONPATH leads to, `reference` pipecat's own client, unmodified. It says when it has
joined. From a line `go` on it publishes RATE messages a second, as `NAME:<number>`; `stop` ends that, and it says how
many there were. To any other line it says how many it has received. After `leave` it ends with a line of JSON: how many
it published, which publishes failed, what it received in which order, what its client complained about.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

import asyncpg

complaints: list[str] = []


class Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complaints.append(record.getMessage())


async def make_bus(kind: str, pool: asyncpg.Pool, channel: str) -> tuple[Any, Any, type]:
    """A bus that is not started, the module of its classes, and the class of its subscribers."""
    if kind == "ours":
        import bus_runtime

        logging.getLogger("bus_runtime").addHandler(Complaints(logging.WARNING))
        backend = bus_runtime.IsolatedPgmqBackend(pool)
        return (
            bus_runtime.PgmqBus(backend=backend, channel=channel),
            bus_runtime.BusDataMessage,
            bus_runtime.BusSubscriber,
        )
    import warnings

    warnings.simplefilter("ignore")
    from loguru import logger
    from pipecat.bus import BusDataMessage, BusSubscriber
    from pipecat.bus.network.pgmq import PgmqBus
    from pipecat.bus.network.pgmq_backends import IsolatedPgmqBackend
    from pipecat.utils.asyncio.task_manager import TaskManager

    logger.remove()
    logger.add(lambda text: complaints.append(str(text)[-600:]), level="WARNING")
    bus = PgmqBus(backend=IsolatedPgmqBackend(pool), channel=channel)
    await bus.setup(TaskManager(loop=asyncio.get_running_loop()))
    return bus, BusDataMessage, BusSubscriber


async def main(name: str, kind: str, uri: str, channel: str, rate: float) -> None:
    received: dict[str, list[int]] = {}
    failed: list[str] = []
    published = 0
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, _read_commands, loop, commands)
    async with asyncpg.create_pool(uri, min_size=2, max_size=4) as pool:
        bus, message_class, subscriber_class = await make_bus(kind, pool, channel)

        class Subscriber(subscriber_class):  # type: ignore[misc, valid-type]
            @property
            def name(self) -> str:
                return name

            async def on_bus_message(self, message: Any) -> None:
                source, _, number = message.source.partition(":")
                received.setdefault(source, []).append(int(number))

        await bus.subscribe(Subscriber())
        await bus.start()
        print("joined", flush=True)
        assert await commands.get() == "go"
        options = {"raise_on_error": True} if kind == "ours" else {}
        began = time.monotonic()
        while commands.empty():
            try:
                await bus.publish(message_class(source=f"{name}:{published}"), **options)
            except Exception as exc:
                failed.append(repr(exc))
            published += 1
            await asyncio.sleep(max(0.0, began + published / rate - time.monotonic()))
        assert await commands.get() == "stop"
        print(published, flush=True)
        while True:
            command = await commands.get()
            if command == "leave":
                break
            counts = {source: len(set(numbers)) for source, numbers in received.items()}
            print(json.dumps({"received": counts, "complaints": complaints}), flush=True)
        await bus.stop()
    print(json.dumps({"published": published, "failed": failed, "received": received, "complaints": complaints}))


def _read_commands(loop: asyncio.AbstractEventLoop, commands: "asyncio.Queue[str]") -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(commands.put_nowait, line.strip())
        if line.strip() == "leave":
            return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5], float(sys.argv[5])))
