"""One process of the benchmark: joins channels, publishes and receives as it is told through a pipe."""

import asyncio
import os
import resource
import signal
import time
import traceback
from array import array
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.clients.base import Client, Payload
from benchmarks.commands import (
    Command,
    Connect,
    Connected,
    Failed,
    Memory,
    Publish,
    Receive,
    Received,
    Reset,
    Resume,
    Stop,
)
from benchmarks.publishing import Publisher

#: Seconds between looks whether all has arrived. Only looked at once publishing is over.
_LOOK = 0.02
_CLOSE_SECONDS = 10.0


class Recorder:
    """The handler: notes when a message arrived and how long after its publish call."""

    def __init__(self) -> None:
        self.warmed_up = 0
        self.arrived = array("q")
        self.latencies = array("q")

    def __call__(self, payload: Payload) -> None:
        """Takes one message."""
        now = time.monotonic_ns()
        published = payload["t"]
        if published == 0:
            self.warmed_up += 1
            return
        self.arrived.append(now)
        self.latencies.append(now - published)

    def reset(self) -> None:
        """Forgets all that was taken."""
        self.warmed_up = 0
        self.arrived = array("q")
        self.latencies = array("q")


class Worker:
    """Carries out commands, one after the other."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._clients: list[Client] = []

    async def carry_out(self, command: Command) -> object:
        """The answer to a command."""
        match command:
            case Connect():
                return await self._connect(command)
            case Publish():
                return await Publisher(self._clients, command).run()
            case Receive():
                return await self._receive(command)
            case Reset():
                self._recorder.reset()
            case Resume():
                for client in self._clients:
                    client.resume()
            case Memory():
                return _resident_bytes()
            case Stop():
                # Whoever does not leave in time is left to its server.
                closing = (asyncio.wait_for(client.close(), _CLOSE_SECONDS) for client in self._clients)
                await asyncio.gather(*closing, return_exceptions=True)
        return None

    async def _connect(self, command: Connect) -> Connected:
        began = time.monotonic()
        receive = self._recorder if command.receive else None
        outcomes = await asyncio.gather(
            *(endpoint.connect(receive) for endpoint in command.endpoints), return_exceptions=True
        )
        joined = [outcome for outcome in outcomes if isinstance(outcome, Client)]
        self._clients += joined
        failures = tuple(repr(outcome) for outcome in outcomes if isinstance(outcome, BaseException))
        return Connected(len(joined), time.monotonic() - began, failures)

    async def _receive(self, command: Receive) -> Received:
        recorder = self._recorder
        deadline = time.monotonic() + command.timeout
        seen, seen_at = -1, time.monotonic()
        while True:
            count = recorder.warmed_up if command.warm_up else len(recorder.arrived)
            now = time.monotonic()
            if count != seen:
                seen, seen_at = count, now
            if count >= command.expected or now > deadline or now - seen_at > command.quiet:
                return Received(count, recorder.arrived, recorder.latencies)
            await asyncio.sleep(_LOOK)


def _resident_bytes() -> int:
    """Of this process, from proc(5)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _serve(connection: Connection) -> None:
    commands: asyncio.Queue[Command] = asyncio.Queue()
    current: asyncio.Task[object] | None = None

    def on_readable() -> None:
        try:
            command = connection.recv()
        except (EOFError, OSError):
            # The benchmark is gone; nobody is there to be told.
            os._exit(1)
        if isinstance(command, Stop) and current is not None:
            current.cancel()
        commands.put_nowait(command)

    asyncio.get_running_loop().add_reader(connection.fileno(), on_readable)
    worker = Worker()
    while True:
        command = await commands.get()
        current = asyncio.create_task(worker.carry_out(command))
        try:
            answer = await current
        except asyncio.CancelledError:
            answer = Failed("stopped")
        # Reported to the benchmark, which decides.
        except Exception:
            answer = Failed(traceback.format_exc())
        current = None
        connection.send(answer)
        if isinstance(command, Stop):
            # Not through the interpreter's own end, which would wait for what did not close.
            os._exit(0)


def main(connection: Connection, log: Path) -> None:
    """The process. Ends with the pipe."""
    # Ctrl-C reaches the whole group; the benchmark tells its processes to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(connection))
