"""A worker that is told what to do while it lives, and whose history has pages.

    python -m chaos.soak.worker --history FILE --binding ROOT ...        as chaos.worker

Standard input says what to do, a line each:

| line | what it does | it answers |
|---|---|---|
| `rate N` | publish N messages a second from now on | |
| `pause` | publish no more | `quiet` when all it had begun has an outcome |
| `page FILE` | go on with the history in this file, as if it had just joined | `turned` |

What it says of itself it keeps in a file beside its log, which is replaced four times a second: see `State`. On
SIGTERM, or when standard input ends, it leaves the channel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from chaos.history import Kind, Recorder
from chaos.worker import (
    REFUSED,
    Bus,
    Options,
    PipecatBus,
    Publishing,
    RuntimeBus,
    lose_rings,
    open_history,
    parse,
    write_joining,
)

from bus_runtime import find_binding

#: Names the file of the worker's state: it is no matter of its history.
STATE_FILE = "SOAK_STATE_FILE"

#: Seconds between two looks whether something is to be published, and between two states.
_TICK, _STATE = 0.01, 0.25

#: Seconds of publishing that are caught up with after a stall; after an outage it is as many, and no more.
_CATCH_UP = 0.1


class State(NamedTuple):
    """What a worker says of itself.

    Attributes:
        time: When; nanoseconds of CLOCK_MONOTONIC.
        published: Messages whose publish returned, since it was started.
        received: Messages that its handler was given, since it was started.
        tasks: Tasks of its event loop.
        acknowledged: Id up to which the server knows that it has handled all; None: its client does not tell.
        in_hand: Messages that it was handed and has not handled.
        wake: How it notices new messages.
    """

    time: int
    published: int
    received: int
    tasks: int
    acknowledged: int | None
    in_hand: int
    wake: str


def read_state(path: Path) -> State | None:
    """The last state that was written; None: none was yet."""
    try:
        return State(*orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


class CountingRecorder(Recorder):
    """Counts what it writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.counts: Counter[str] = Counter()

    def write(self, kind: Kind, message: str = "", **details: Any) -> None:
        """Write an event down, and count it."""
        super().write(kind, message, **details)
        self.counts[kind] += 1


class Pace(Publishing):
    """Publishes at a rate that changes."""

    def __init__(self, bus: Bus, recorder: Recorder, options: Options) -> None:
        super().__init__(bus, recorder, options)
        self.rate = options.publish_rate

    async def run(self) -> None:
        """Publish; returns when it was told to stop, and all that was begun has an outcome."""
        loop = asyncio.get_running_loop()
        credit, last = 0.0, loop.time()
        while not self._over.is_set():
            await self._sleep(_TICK)
            now = loop.time()
            credit = min(credit + (now - last) * self.rate, self.rate * _CATCH_UP + 1)
            last = now
            while credit >= 1 and not self._slots.locked() and not self._over.is_set():
                await self._slots.acquire()
                self._begin()
                credit -= 1
        await self.settled()

    async def settled(self) -> None:
        """Wait until all that was begun has an outcome."""
        await asyncio.gather(*self._under_way)


class Worker:
    """A process's life.

    Args:
        options: What it does at first.
        state: Where it says how it is.
    """

    def __init__(self, options: Options, state: Path) -> None:
        self._options = options
        self._state = state
        self._stopping = asyncio.Event()
        self._binding = find_binding(options.channel_binding, root=options.binding)
        self._recorder = CountingRecorder(options.history)
        client = RuntimeBus if options.client == "bus_runtime" else PipecatBus
        self._bus: Bus = client(options, self._recorder, self._stopping.set)
        self._pace = Pace(self._bus, self._recorder, options)

    async def run(self) -> int:
        """Work until told to stop; the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        if self._options.relay:
            lose_rings()
        open_history(self._recorder, self._options, self._binding.channel)
        write_joining(self._recorder, self._options)
        await self._bus.start()
        self._recorder.write("joined")
        print("ready", flush=True)
        work = [asyncio.create_task(each) for each in (self._pace.run(), self._obey(), self._tell())]
        for task in work:
            task.add_done_callback(_require)
        await self._stopping.wait()
        self._pace.stop()
        # Also those that are tried again get their outcome then.
        await asyncio.gather(self._bus.stop(), work[0])
        self._recorder.write("ended", how="left")
        self._recorder.close()
        for task in work:
            task.cancel()
        return REFUSED if self._bus.refused else 0

    async def _obey(self) -> None:
        """Do what standard input says."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().strip():
            word, _, argument = line.partition(" ")
            if word == "rate":
                self._pace.rate = float(argument)
            elif word == "pause":
                self._pace.rate = 0.0
                await self._pace.settled()
                print("quiet", flush=True)
            elif word == "page":
                self._recorder.turn(Path(argument))
                open_history(self._recorder, self._options, self._binding.channel)
                write_joining(self._recorder, self._options)
                self._recorder.write("joined")
                print("turned", flush=True)
            else:
                raise ValueError(f"standard input says {line!r}, which is nothing to do")
        self._stopping.set()

    async def _tell(self) -> None:
        """Say how it is."""
        new = self._state.with_suffix(".new")
        while True:
            new.write_bytes(orjson.dumps(tuple(self._now())))
            new.rename(self._state)
            await asyncio.sleep(_STATE)

    def _now(self) -> State:
        counts = self._recorder.counts
        told: tuple[int | None, int, str] = (None, counts["received"] - counts["handled"], "poll")
        if isinstance(self._bus, RuntimeBus):
            stats = self._bus.stats()
            told = (stats.acknowledged, max(stats.in_flight, stats.queued), stats.wake)
        now = time.monotonic_ns()
        return State(now, counts["published"], counts["received"], len(asyncio.all_tasks()), *told)


def _require(task: asyncio.Task[None]) -> None:
    """A part that fails ends the process, and is noticed."""
    if not task.cancelled() and task.exception() is not None:
        logging.critical("the worker itself is broken", exc_info=task.exception())
        os._exit(1)


async def run(options: Options) -> int:
    """Run a worker."""
    return await Worker(options, Path(os.environ[STATE_FILE])).run()


def main() -> int:
    """As a program."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return asyncio.run(run(parse()))


if __name__ == "__main__":
    sys.exit(main())
