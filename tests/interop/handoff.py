"""One process of the reference client's hand-off pattern: a `WorkerRunner` with one worker.

    python handoff.py greeter|specialist reference|ours BINDINGS

The greeter waits until the other runner's specialist is known, gives it a job, hands over (activating the other
and deactivating itself), is handed back, and ends the session for both. `reference` uses pipecat's own
backend with nothing but the binding's uri and channel, `ours` uses `bus_runtime.IsolatedPgmqBackend`.
Events are printed one per line.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import asyncpg
from loguru import logger
from pipecat.bus.network.pgmq import PgmqBus
from pipecat.bus.network.pgmq_backends import IsolatedPgmqBackend
from pipecat.pipeline.job_context import JobEvent, JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.registry.types import WorkerReadyData
from pipecat.workers.base_worker import BaseWorker, WorkerActivationArgs
from pipecat.workers.runner import WorkerRunner

import bus_runtime


def say(*words: object) -> None:
    print(*words, flush=True)


class Greeter(BaseWorker):
    def __init__(self) -> None:
        super().__init__("greeter")
        self._handed_over = False

    async def start(self) -> None:
        await super().start()
        await self.watch_workers("specialist")

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await super().on_worker_ready(data)
        if data.worker_name == "specialist" and not self._handed_over:
            self._handed_over = True
            say("specialist ready")
            self.create_task(self._hand_over(), "hand_over")

    async def _hand_over(self) -> None:
        async with self.job(
            "specialist", params=JobParams(name="add", payload={"numbers": [1, 2, 3]}, timeout=30)
        ) as work:
            updates = [event.data async for event in work if event.type == JobEvent.UPDATE]
        say("job", work.response, updates)
        await self.activate_worker("specialist", args=WorkerActivationArgs({"topic": "sums"}), deactivate_self=True)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        say("greeter activated", args)
        if args:
            await self.end(reason="all said")


class Specialist(BaseWorker):
    def __init__(self) -> None:
        super().__init__("specialist")

    @job(name="add")
    async def add(self, message: Any) -> None:
        await self.send_job_update(message.job_id, {"half": True})
        await self.send_job_response(message.job_id, {"sum": sum(message.payload["numbers"])})

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        say("specialist activated", args)
        if args:
            await self.activate_worker(
                "greeter", args=WorkerActivationArgs({"from": "specialist"}), deactivate_self=True
            )

    async def on_deactivated(self) -> None:
        await super().on_deactivated()
        say("specialist deactivated")


async def main(role: str, kind: str, root: Path) -> None:
    directory = next(root.iterdir())
    channel = (directory / "channel").read_text()
    pool = None
    if kind == "reference":
        pool = await asyncpg.create_pool((directory / "uri").read_text(), min_size=2, max_size=4)
        bus = PgmqBus(backend=IsolatedPgmqBackend(pool), channel=channel)
    else:
        bus = PgmqBus(backend=bus_runtime.IsolatedPgmqBackend.from_binding(root=root))
    runner = WorkerRunner(name=f"runner-{role}", bus=bus, handle_sigint=False)
    await runner.add_workers(Greeter() if role == "greeter" else Specialist())
    await asyncio.wait_for(runner.run(), 180)
    if pool is not None:
        await pool.close()
    say("ended")


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
