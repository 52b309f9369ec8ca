"""Workers for hours, whose histories have pages."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from chaos.fleet import Fleet, Worker
from chaos.history import Recorder
from chaos.promises import Promise
from chaos.soak.worker import STATE_FILE, State, read_state
from chaos.worker import Options


class LongFleet(Fleet):
    """A fleet whose workers are told what to do.

    Args:
        directory: Where the first page of the histories goes; made if need be.
        promise: What the channel promises.
        logs: Directory of logs, and of what workers say of themselves.
        temporary: Directory for their temporary files.
    """

    # Ctrl-C is for whoever runs them.
    _process_options: ClassVar[Mapping[str, Any]] = {"stdin": asyncio.subprocess.PIPE, "start_new_session": True}

    def __init__(self, directory: Path, promise: Promise | Mapping[str, Promise], logs: Path, temporary: Path) -> None:
        super().__init__(directory, promise)
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._temporary = temporary

    async def _launch(self, wanted: Options, log: Path, *command: str, **environment: str) -> Worker:
        environment |= {STATE_FILE: str(self._state(wanted)), "TMPDIR": str(self._temporary)}
        return await super()._launch(
            wanted, self._logs / log.name, "chaos.soak.worker", *wanted.arguments(), **environment
        )

    def _state(self, options: Options) -> Path:
        return self._logs / f"{options.process}.state"

    def state(self, worker: Worker) -> State | None:
        """What a worker said of itself last."""
        return read_state(self._state(worker.options))

    async def set_rates(self, rates: Mapping[str, float]) -> None:
        """Have them publish from now on, by their names; who is not named publishes nothing."""
        for worker in self.workers:
            rate = rates.get(worker.name, 0.0)
            worker.options = dataclasses.replace(worker.options, publish_rate=rate)
            if rate:
                await self._tell(worker, f"rate {rate:.3f}")

    async def pause(self) -> None:
        """Have them publish no more; returns when all that they had begun has an outcome.

        Raises:
            RuntimeError: One has ended, or does not answer.
        """
        for worker in self.workers:
            await self._tell(worker, "pause")
        await asyncio.gather(*(worker.expect("quiet") for worker in self.workers))

    async def turn(self, directory: Path) -> None:
        """Close the page of histories, on which everything has settled, and go on with the next one.

        Args:
            directory: Where it goes.
        """
        self._recorder.write("settled")
        self._recorder.close()
        directory.mkdir(parents=True)
        self.directory = directory
        self._recorder = Recorder(directory / "driver.jsonl")
        for worker in self.workers:
            history = directory / worker.options.history.name
            worker.options = dataclasses.replace(worker.options, history=history)
            await self._tell(worker, f"page {history}")
        await asyncio.gather(*(worker.expect("turned") for worker in self.workers))

    def ended(self) -> list[Worker]:
        """Those that ended by themselves; they are no part of the fleet any more."""
        gone = [worker for worker in self.workers if worker.process.returncode is not None]
        for worker in gone:
            self.workers.remove(worker)
            self._recorder.write("ended", process=worker.options.process, how="killed")
        return gone

    async def _tell(self, worker: Worker, line: str) -> None:
        assert worker.process.stdin is not None
        worker.process.stdin.write(f"{line}\n".encode())
        await worker.process.stdin.drain()
