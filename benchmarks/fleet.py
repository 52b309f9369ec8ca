"""The processes of the benchmark, seen from the one that commands them. Every wait is bounded."""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from benchmarks import worker
from benchmarks.clients.base import Endpoint
from benchmarks.commands import Command, Connect, Connected, Failed, Publish, Published, Receive, Received, Reset, Stop
from benchmarks.errors import BenchmarkError

_JOIN_SECONDS = 60.0
_STOP_SECONDS = 15.0
_ASK_SECONDS = 30.0

#: Imported once, in the process that the others are forked from: importing pipecat takes seconds.
_PRELOADED = ["benchmarks.worker", "benchmarks.clients.ours", "benchmarks.clients.reference", "nats", "redis.asyncio"]

Answer = TypeVar("Answer")


@dataclass(eq=False)
class Member:
    """One process."""

    process: ForkServerProcess
    connection: Connection
    name: str


class Fleet:
    """A group of processes, stopped together.

    Args:
        log: Where their output goes.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.stop(self._members)

    def spawn(self, count: int, name: str) -> list[Member]:
        """Processes that have joined nothing yet."""
        members = []
        for number in range(count):
            here, there = self._context.Pipe()
            process = self._context.Process(target=worker.main, args=(there, self._log), daemon=True)
            process.start()
            there.close()
            member = Member(process, here, f"{name} {number}")
            self._members.append(member)
            members.append(member)
        return members

    def join(self, endpoint: Endpoint, count: int, name: str, *, receive: bool) -> list[Member]:
        """Processes that have joined the channel, one connection each.

        Raises:
            BenchmarkError: One of them could not.
        """
        members = self.spawn(count, name)
        for answer in self.ask(members, Connect((endpoint,), receive), Connected, timeout=_JOIN_SECONDS):
            if answer.failures:
                raise BenchmarkError(f"{name} could not join: {answer.failures[0]}")
        return members

    def send(self, members: Sequence[Member], commands: Command | Sequence[Command]) -> None:
        """Tell members, each its own command or all the same, and do not wait for the answers."""
        given = [commands] * len(members) if not isinstance(commands, Sequence) else commands
        for member, command in zip(members, given, strict=True):
            try:
                member.connection.send(command)
            except OSError as exc:
                raise BenchmarkError(f"{member.name} has ended; see {self._log}") from exc

    def answers(self, members: Sequence[Member], kind: type[Answer], *, timeout: float) -> list[Answer]:
        """What each answers to what it was told.

        Raises:
            BenchmarkError: One failed, ended or does not answer in time.
        """
        deadline = time.monotonic() + timeout
        waiting = {member.connection: member for member in members}
        got: dict[Member, Any] = {}
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                names = ", ".join(member.name for member in waiting.values())
                raise BenchmarkError(f"no answer after {timeout:.0f} s from {names}; see {self._log}")
            for connection in ready:
                assert isinstance(connection, Connection)
                member = waiting.pop(connection)
                try:
                    answer = connection.recv()
                except (EOFError, OSError) as exc:
                    raise BenchmarkError(f"{member.name} has ended; see {self._log}") from exc
                if isinstance(answer, Failed):
                    raise BenchmarkError(f"{member.name} failed: {answer.reason}")
                assert isinstance(answer, kind)
                got[member] = answer
        return [got[member] for member in members]

    def ask(
        self,
        members: Sequence[Member],
        commands: Command | Sequence[Command],
        kind: type[Answer],
        *,
        timeout: float = _ASK_SECONDS,
    ) -> list[Answer]:
        """Tell and wait; see `send` and `answers`."""
        self.send(members, commands)
        return self.answers(members, kind, timeout=timeout)

    def publish(self, members: Sequence[Member], order: Publish, *, timeout: float) -> list[Published]:
        """Let members publish, and wait until they are through."""
        return self.ask(members, order, Published, timeout=timeout)

    def receive(
        self, members: Sequence[Member], expected: int, *, timeout: float, quiet: float = 3.0
    ) -> list[Received]:
        """What has arrived at each member, once all that was expected has, or no more comes."""
        return self.ask(members, Receive(expected, timeout, quiet), Received, timeout=timeout + _ASK_SECONDS)

    def warm_up(self, publishers: Sequence[Member], receivers: Sequence[Member], *, count: int, size: int) -> None:
        """Exchange some messages that do not count, so that connections, statements and rosters are as in use.

        Raises:
            BenchmarkError: They do not arrive: nothing could be measured.
        """
        self.publish(publishers, Publish(size, in_flight=8, count=count, warm_up=True), timeout=_JOIN_SECONDS)
        expected = count * len(publishers)
        order = Receive(expected, timeout=20.0, quiet=10.0, warm_up=True)
        counts = [received.count for received in self.ask(receivers, order, Received, timeout=40.0)]
        if min(counts) < expected:
            told = ", ".join(map(str, counts))
            raise BenchmarkError(f"of {expected} messages of the warm-up, the receivers got {told}; see {self._log}")
        self.ask(receivers, Reset(), object)

    def stop(self, members: Sequence[Member]) -> None:
        """Let members leave and end; end those that do not. Never raises for one that has ended already."""
        leaving = list(members)
        for member in leaving:
            try:
                member.connection.send(Stop())
            except OSError:
                continue
        deadline = time.monotonic() + _STOP_SECONDS
        for member in leaving:
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join(5)
            member.connection.close()
        self._members = [member for member in self._members if member not in leaving]
