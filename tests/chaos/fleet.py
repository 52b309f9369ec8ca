"""Workers as processes: started, killed, stopped; their histories in one directory, and the verdict about them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from chaos.checker import check
from chaos.history import Event, Fault, Recorder, read_all
from chaos.promises import Promise
from chaos.verdict import Verdict
from chaos.worker import Options

#: Seconds that a worker may take to start, or to stop, on a machine that has other things to do.
_PATIENCE = 60.0

#: Seconds between looks whether histories still grow.
_LOOK = 0.5


@dataclass(eq=False, slots=True)
class Worker:
    """A running worker.

    Attributes:
        options: What it does.
        process: The process.
        log_file: Where its log goes.
        ready: It has joined, and does what signals tell it.
    """

    options: Options
    process: asyncio.subprocess.Process
    log_file: Path
    ready: bool = False

    @property
    def name(self) -> str:
        """What it was started as; its successors are called the same."""
        return self.options.process.partition(".")[0]

    @property
    def log(self) -> str:
        """What it logged."""
        return self.log_file.read_text(errors="replace")

    async def expect(self, word: str) -> None:
        """Wait for its next line.

        Raises:
            RuntimeError: It says something else, has ended, or takes too long.
        """
        assert self.process.stdout is not None
        try:
            line = (await asyncio.wait_for(self.process.stdout.readline(), _PATIENCE)).decode().strip()
        except TimeoutError:
            line = f"nothing for {_PATIENCE:.0f} s"
        if line != word:
            raise RuntimeError(
                f"worker {self.options.process!r} should say {word!r}, not {line!r}:\n{self.log[-3000:]}"
            )


class Fleet:
    """All workers of a run, and its histories.

    Args:
        directory: Where histories and logs go; made if need be.
        promise: What the channel promises, or each of them by its name.
    """

    _process_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, directory: Path, promise: Promise | Mapping[str, Promise]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.promise = promise
        self.workers: list[Worker] = []
        self._recorder = Recorder(directory / "driver.jsonl")
        self._starts: dict[str, int] = {}

    def promises(self, **changes: Any) -> None:
        """Change what the channel promises, where a fault turns out to have been of another measure; see `Promise`."""
        assert isinstance(self.promise, Promise)
        self.promise = dataclasses.replace(self.promise, **changes)

    async def start(self, name: str, binding: Path, **options: Any) -> Worker:
        """Start a worker and wait until it has joined.

        Args:
            name: Of the process; from its second start on with a number.
            binding: Directory of bindings.
            **options: What it does; see `Options`.
        """
        self._starts[name] = start = self._starts.get(name, 0) + 1
        process = name if start == 1 else f"{name}.{start}"
        wanted = Options(history=self.directory / f"{process}.jsonl", binding=binding, process=process, **options)
        worker = await self._launch(wanted, wanted.history.with_suffix(".log"), "chaos.worker", *wanted.arguments())
        self.workers.append(worker)
        await worker.expect("ready")
        worker.ready = True
        return worker

    async def _launch(self, wanted: Options, log: Path, *command: str, **environment: str) -> Worker:
        """A worker's process: a module, and its arguments."""
        here = Path(__file__).parent.parent
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *command),
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"} | environment,
                **self._process_options,
            )
        return Worker(wanted, process, log)

    async def kill(self, worker: Worker) -> None:
        """Kill it, with SIGKILL, and write that down."""
        worker.process.kill()
        await worker.process.wait()
        self.workers.remove(worker)
        self._recorder.write("ended", process=worker.options.process, how="killed")

    async def stop(self, worker: Worker) -> None:
        """Have it leave.

        Raises:
            RuntimeError: It ended in another way.
        """
        worker.process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(worker.process.wait(), _PATIENCE)
        self.workers.remove(worker)
        if status != 0:
            raise RuntimeError(f"worker {worker.options.process!r} ended with {status}:\n{worker.log[-3000:]}")

    @contextmanager
    def fault(self, kind: Fault) -> Iterator[None]:
        """What is done in here is a fault, and over when it is left: write that down."""
        began = time.monotonic_ns()
        yield
        self.struck(kind, began)

    def struck(self, kind: Fault, began: int) -> None:
        """A fault that began then is over now: write that down."""
        self._recorder.write("fault", fault=kind, began=began)

    async def settle(self, seconds: float = 30.0) -> Verdict:
        """Publish no more, wait at most so long until everybody has everything, and have all leave; the verdict."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGUSR1)
        for worker in self.workers:
            await worker.expect("quiet")
        deadline = time.monotonic() + seconds
        sizes: list[int] = []
        while time.monotonic() < deadline:
            before, sizes = sizes, [path.stat().st_size for path in sorted(self.directory.glob("*.jsonl"))]
            if sizes == before and self.verdict(settled=time.monotonic_ns()):
                break
            await asyncio.sleep(_LOOK)
        self._recorder.write("settled")
        for worker in tuple(self.workers):
            await self.stop(worker)
        return self.verdict()

    def verdict(self, *, settled: int | None = None) -> Verdict:
        """What the checker says of the histories so far; `settled`: as if everybody should have everything by then."""
        assumed = [] if settled is None else [[Event("settled", settled)]]
        return check([*read_all(self.directory), *assumed], self.promise)

    async def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()
        self._recorder.close()


@asynccontextmanager
async def fleet(directory: Path, promise: Promise | Mapping[str, Promise]) -> AsyncIterator[Fleet]:
    """A fleet whose processes end with the block."""
    created = Fleet(directory, promise)
    try:
        yield created
    finally:
        await created.close()
