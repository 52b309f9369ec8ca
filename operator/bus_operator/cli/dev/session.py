"""One run of `busctl dev`: server, channels, message log, workers; and their end in the opposite order."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bus_operator.cli import applying
from bus_operator.cli.dev import files, server
from bus_operator.cli.dev.message_log import MessageLog
from bus_operator.cli.dev.programs import Programs
from bus_operator.cli.dev.screen import Screen
from bus_operator.cli.dev.server import Server
from bus_operator.cli.dev.workers import Command, Worker
from bus_operator.cli.dev.workspace import Workspace
from bus_operator.cli.manifests import Manifests
from bus_operator.errors import BusError, StartError

_LOOK = 0.5
"""Seconds between looks at the files."""

_OBSERVERS = 1
"""Peers on each channel besides the workers': the message log."""


@dataclass(frozen=True)
class Settings:
    """What the user wants."""

    manifests: tuple[Path, ...]
    namespace: str
    commands: tuple[Command, ...]
    programs: Programs
    reload: bool
    quiet: bool
    grace: float


async def run(settings: Settings, workspace: Workspace, found: Manifests) -> int:
    """Runs until the workers have ended or somebody ends it; the exit status.

    Args:
        settings: What is wanted.
        workspace: The folder.
        found: What the manifests say to begin with.

    Raises:
        BusError: What is needed cannot be started.
    """
    screen = Screen([*(command.name for command in settings.commands), *(channel.name for channel in found.channels)])
    session = Session(settings, workspace, screen)
    work = asyncio.create_task(session.work(found), name="dev")
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup, for one, wants some ignored.
        if signal.getsignal(signum) is not signal.SIG_IGN or signum is signal.SIGINT:
            loop.add_signal_handler(signum, session.interrupted, signum, work)
    try:
        return await work
    except asyncio.CancelledError:
        # To be ended is how it ends.
        return 0
    finally:
        await screen.close()


class Session:
    """What belongs to one run; see `run`."""

    def __init__(self, settings: Settings, workspace: Workspace, screen: Screen) -> None:
        self._settings = settings
        self._workspace = workspace
        self._screen = screen
        self._ended_by: signal.Signals | None = None
        environment = os.environ | {"SERVICE_BINDING_ROOT": str(workspace.bindings)}
        # What is written to a pipe would wait in a buffer.
        environment.setdefault("PYTHONUNBUFFERED", "1")
        self._workers = [
            Worker(command, environment, workspace, say=screen.output, tell=screen.event, grace=settings.grace)
            for command in settings.commands
        ]
        self._log = MessageLog(workspace.bindings, screen.message, lambda text: screen.talk(text, failed=True))

    def interrupted(self, signum: signal.Signals, work: asyncio.Task[int]) -> None:
        """A signal to end: the first one lets the workers end by themselves, a further one waits for them no more."""
        if self._ended_by is None:
            self._ended_by = signum
            work.cancel()
            return
        for worker in self._workers:
            worker.hurry()

    async def work(self, found: Manifests) -> int:
        """The whole of it; cancelled to end it."""
        begun = time.monotonic()
        if self._workspace.recovered:
            self._screen.talk("the run before was killed: what it had left is ended and removed")
        async with server.running(self._settings.programs, self._workspace) as started:
            self._workspace.write_uri(started.uri)
            # Stored files that watch for a change begin here, so that none is missed.
            watched = files.snapshot(files.manifest_files(self._settings.manifests))
            if await self._apply(started, found):
                return 1
            seconds = time.monotonic() - begun
            self._introduce(started, seconds)
            async with self._running():
                return await self._supervise(started, watched)

    def _introduce(self, started: Server, seconds: float) -> None:
        shown = _relative(self._workspace.folder)
        data = "with the data that was kept" if started.kept else "kept" if self._workspace.keep else "gone afterwards"
        programs = self._settings.programs
        endpoint = started.admin.endpoint
        self._screen.talk(
            f"PostgreSQL {programs.version} on {endpoint.host}:{endpoint.port}, {data}; ready in {seconds:.1f} s"
        )
        self._screen.talk(
            f"other commands: BUSCTL_DATABASE=$(cat {shown / self._workspace.uri_file.name}) busctl status"
        )
        if not self._workers:
            bindings = shown / self._workspace.bindings.name
            self._screen.talk(
                f"next, in another terminal: SERVICE_BINDING_ROOT={bindings} python worker.py; Ctrl-C ends this"
            )

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        try:
            if not self._settings.quiet:
                await self._log.follow(self._bound())
            await self._start_workers()
            yield
        finally:
            how = signal.SIGINT if self._ended_by in (None, signal.SIGINT) else signal.SIGTERM
            await asyncio.gather(*(worker.stop(how) for worker in self._workers))
            await self._log.stop()

    async def _start_workers(self) -> None:
        for worker in self._workers:
            await worker.start()

    async def _supervise(self, started: Server, watched: files.Snapshot) -> int:
        """Until something ends it."""
        waiting = {
            asyncio.create_task(started.process.wait(), name="server"),
            asyncio.create_task(self._screen.printer.gone.wait(), name="output"),
            asyncio.create_task(self._watch(started, watched), name="files"),
        }
        if self._workers and not self._settings.reload:
            waiting.add(asyncio.create_task(self._all_ended(), name="workers"))
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        for task in done:
            if task.get_name() == "server":
                raise StartError(f"PostgreSQL ended by itself: {self._workspace.log} says why", reason="PostgresFailed")
            if (failure := task.exception()) is not None:
                raise failure
        return self._status()

    async def _all_ended(self) -> None:
        for worker in self._workers:
            await worker.wait()

    def _status(self) -> int:
        """A single command's own, as if it had been run without us; of several 1 if any failed."""
        statuses = [worker.status or 0 for worker in self._workers]
        return statuses[0] if len(statuses) == 1 else int(any(statuses))

    async def _watch(self, started: Server, manifests: files.Snapshot) -> None:
        """Applies manifests that changed, and starts the workers anew with code that changed if that is wanted."""
        code = await self._code()
        while True:
            await asyncio.sleep(_LOOK)
            now = files.snapshot(files.manifest_files(self._settings.manifests))
            anew = False
            if now != manifests:
                manifests = await self._settled(now)
                anew = await self._apply_again(started)
            if self._settings.reload:
                current = await self._code()
                anew = anew or current != code
                code = current
                if anew:
                    await self._restart()

    async def _settled(self, before: files.Snapshot) -> files.Snapshot:
        """An editor may be in the middle of it: what the files are when they stay so for a moment."""
        while True:
            await asyncio.sleep(_LOOK / 5)
            now = files.snapshot(files.manifest_files(self._settings.manifests))
            if now == before:
                return now
            before = now

    async def _code(self) -> files.Snapshot:
        if not self._settings.reload:
            return {}
        return await asyncio.to_thread(lambda: files.snapshot(files.code_files(Path.cwd())))

    async def _apply_again(self, started: Server) -> bool:
        """Whether any binding is another now."""
        self._screen.talk("manifests changed")
        before = self._bound()
        try:
            await self._apply(started, files.manifests(self._settings.manifests, self._settings.namespace))
        except BusError as exc:
            self._screen.talk(f"{exc}\nthe channels stay as they were", failed=True)
            return False
        if not self._settings.quiet:
            await self._log.follow(self._bound())
        return self._bound() != before

    async def _apply(self, started: Server, found: Manifests) -> int:
        """Makes the channels and their bindings, and removes the bindings of others; how much failed."""
        applying.refuse_shared_directories(found.channels)
        names = {channel.name for channel in found.channels}
        for name in self._bound().keys() - names:
            self._screen.talk(
                f"BusChannel {name} is in no manifest any more: its binding is removed, its messages stay"
            )
            shutil.rmtree(self._workspace.bindings / name)
        return await applying.apply(started.admin, found, self._workspace.bindings, say=self._say, observers=_OBSERVERS)

    def _say(self, applied: applying.Applied) -> None:
        failed = applied.failure is not None
        if failed or applied.where is not None:
            folder = self._workspace.folder
            self._screen.talk(applied.line.replace(str(folder), str(_relative(folder))), failed=failed)

    def _bound(self) -> dict[str, files.Snapshot]:
        """The names of the bindings that there are, and how their files are."""
        root = self._workspace.bindings
        if not root.is_dir():
            return {}
        return {entry.name: files.snapshot(entry.iterdir()) for entry in root.iterdir() if entry.is_dir()}

    async def _restart(self) -> None:
        self._screen.talk("changed: the workers start anew")
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        await self._start_workers()


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path))
