"""Runs the workers' commands, each a group of processes of its own, and prefixes what they print."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus_operator.cli.dev.leftovers import group_exists
from bus_operator.cli.dev.workspace import Workspace
from bus_operator.errors import SpecError

_LINE_LIMIT = 64 * 1024
"""Bytes of a line that are shown at once; what is longer comes in parts."""

_TICK = 0.05

_LAST_WORDS = 1.0
"""Seconds for what was printed and not yet read."""

_ASSIGNMENT = re.compile(r"\w+=")
"""What a shell takes for a variable of the command that follows."""

Print = Callable[[str, str, bool], Awaitable[None]]
"""Takes a worker's name, a line of what it printed, and whether that was to standard error."""

Tell = Callable[[str, str], None]
"""Takes a worker's name and what happened to it."""


@dataclass(frozen=True)
class Command:
    """A command and what it is called in prefixes."""

    name: str
    arguments: tuple[str, ...]
    takes_input: bool = False
    """Whether it reads busctl's own standard input."""

    def __str__(self) -> str:
        return shlex.join(self.arguments)


def commands(texts: Iterable[str], last: Sequence[str]) -> list[Command]:
    """The commands as they were given: each text as a shell would split it, and the one after `--`.

    Raises:
        SpecError: A text is empty, or a quotation mark in it is not closed.
    """
    split = []
    for text in texts:
        try:
            arguments = shlex.split(text)
        except ValueError as exc:
            raise SpecError(f"--worker {text!r}: {exc}") from exc
        if not arguments:
            raise SpecError("--worker needs a command, such as --worker 'python worker.py'")
        split.append(arguments)
    if last:
        split.append(list(last))
    names = _distinct([_name(arguments) for arguments in split])
    alone = len(split) == 1
    return [Command(name, tuple(arguments), alone) for name, arguments in zip(names, split, strict=True)]


def _name(arguments: Sequence[str]) -> str:
    """What tells a command from others best: of `python -u shop/worker.py --fast` that is `worker`."""
    interpreter = Path(arguments[0]).name
    if re.match(r"python|uv$|uvx$|poetry$|sh$|bash$|env$", interpreter):
        for argument in arguments[1:]:
            if argument.endswith((".py", ".sh")):
                return Path(argument).stem
        if "-m" in arguments[1:-1]:
            return arguments[arguments.index("-m") + 1].rpartition(".")[2]
    return Path(interpreter).stem or interpreter


def _distinct(names: Sequence[str]) -> list[str]:
    total, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}.{seen[name]}" if total[name] > 1 else name)
    return result


class Worker:
    """One command, which may be started again and again.

    Args:
        command: What to run.
        environment: Its environment.
        workspace: Where running processes are noted.
        say: Takes what it prints.
        tell: Told what happens to it.
        grace: Seconds that it has to end by itself after it was asked to.
    """

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        workspace: Workspace,
        *,
        say: Print,
        tell: Tell,
        grace: float,
    ) -> None:
        self.command = command
        self._environment = environment
        self._workspace = workspace
        self._say = say
        self._tell = tell
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[int] | None = None
        self._stopping = False
        self._hurry = asyncio.Event()
        self.status: int | None = None
        """How it ended last, as a shell says it; None while it runs or when it was stopped."""

    async def start(self) -> None:
        """Starts it. One that cannot be started has ended with the status that a shell gives: 126 or 127."""
        self.status = None
        self._stopping = False
        self._hurry.clear()
        # Not those of asyncio: with them its `wait` would wait for whoever has inherited the other ends.
        outputs = [await _Output.open() for _ in range(2)]
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command.arguments,
                stdin=None if self.command.takes_input else asyncio.subprocess.DEVNULL,
                stdout=outputs[0].end,
                stderr=outputs[1].end,
                env=self._environment,
                # Ctrl-C in the terminal is for busctl, which stops the workers before the server.
                start_new_session=True,
            )
        except OSError as exc:
            self.status = 127 if isinstance(exc, FileNotFoundError) else 126
            program = self.command.arguments[0]
            hint = f"; no shell runs it: env {shlex.join(self.command.arguments)}" if _ASSIGNMENT.match(program) else ""
            self._tell(self.command.name, f"cannot be started: {exc.strerror}: {program}{hint}")
            for output in outputs:
                output.close()
            return
        finally:
            for output in outputs:
                os.close(output.end)
        self._workspace.began(process.pid, "worker")
        self._process = process
        self._tell(self.command.name, f"started: {self.command}")
        self._watching = asyncio.create_task(self._watch(process, outputs), name=f"worker {self.command.name}")

    async def wait(self) -> None:
        """Until it has ended, and all that it printed was shown."""
        if self._watching is not None:
            await asyncio.shield(self._watching)

    async def stop(self, signum: signal.Signals = signal.SIGINT) -> None:
        """Asks it to end, and ends it if it does not: `signum`, after the grace period SIGTERM, then SIGKILL."""
        if self._process is None or self._watching is None:
            return
        self._stopping = True
        steps = [(signum, self._grace), (signal.SIGTERM, self._grace / 2), (signal.SIGKILL, None)]
        for step, seconds in steps[1:] if signum == signal.SIGTERM else steps:
            if step is signal.SIGKILL:
                self._tell(self.command.name, "does not end, and is killed")
            _signal_group(self._process.pid, step)
            if await self._has_ended(seconds):
                break
        await self._watching

    def hurry(self) -> None:
        """Waits no longer for it to end by itself: the next signal is sent at once."""
        self._hurry.set()

    async def _has_ended(self, seconds: float | None) -> bool:
        assert self._watching is not None  # noqa: S101 - only called while there is one
        self._hurry.clear()
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({self._watching, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        return self._watching.done()

    async def _watch(self, process: asyncio.subprocess.Process, outputs: Sequence["_Output"]) -> int:
        printing = asyncio.gather(*(self._print(output.stream, bool(i)) for i, output in enumerate(outputs)))
        status = await process.wait()
        if not self._stopping:
            # What it leaves behind belongs to it: a worker that ended is started again as a whole, or not at all.
            _signal_group(process.pid, signal.SIGTERM)
        await self._end_rest(process.pid)
        with contextlib.suppress(TimeoutError):
            # Somebody who left the group may have the other ends.
            await asyncio.wait_for(printing, _LAST_WORDS)
        for output in outputs:
            output.close()
        self._workspace.ended(process.pid)
        self._process = None
        if not self._stopping:
            self.status = status if status >= 0 else 128 - status
            self._tell(self.command.name, _how(status))
        return status

    async def _end_rest(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        # Where nobody reaps orphans a group may stay for ever.
        while group_exists(pid) and loop.time() < deadline + _LAST_WORDS:
            if loop.time() > deadline or self._hurry.is_set():
                _signal_group(pid, signal.SIGKILL)
            await asyncio.sleep(_TICK)

    async def _print(self, stream: asyncio.StreamReader, is_error: bool) -> None:
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as exc:
                line = exc.partial
            except asyncio.LimitOverrunError as exc:
                line = await stream.read(max(exc.consumed, 1))
            if not line:
                return
            await self._say(self.command.name, line.decode(errors="replace").rstrip("\r\n"), is_error)


@dataclass(frozen=True)
class _Output:
    """A pipe from a worker."""

    stream: asyncio.StreamReader
    end: int
    """The worker's."""
    close: Callable[[], None]

    @classmethod
    async def open(cls) -> "_Output":
        ours, theirs = os.pipe()
        stream = asyncio.StreamReader(_LINE_LIMIT)
        protocol = asyncio.StreamReaderProtocol(stream)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(ours, "rb", 0))
        return cls(stream, theirs, transport.close)


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return "ended" if status == 0 else f"ended with status {status}"
