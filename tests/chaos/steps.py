"""Where an operator can be killed: between every two of its steps.

A step is a statement that PostgreSQL is asked to run, or a request to the API server that is no read. Whatever passes
steps on asks `Steps` before each; before the one that was chosen, the operator is killed, and neither that step nor a
later one of the same process ever reaches anybody. What it had done by then stays, a transaction that it had open is
rolled back, and an answer that was under way is lost: killing it before each of its steps is all that can happen.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from chaos import results
from gateway import Gateway, Streams


class Step(NamedTuple):
    """One of them.

    Attributes:
        what: In a few words.
        lasts: Whether it may change what the next operator finds: no read, and nothing within a transaction but its
            end.
    """

    what: str
    lasts: bool


class Steps:
    """Counts steps, and kills who takes them before the one that was chosen. All threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken: list[Step] = []
        self.fatal: Step | None = None
        """The one before which the operator was killed."""
        self.life = 0
        """Grows with every death: what belongs to a former life takes no steps any more."""
        self._last: int | None = None
        self._kill: Callable[[], None] | None = None

    def count(self, *, last: int | None = None, kill: Callable[[], None] | None = None) -> None:
        """Counts from here.

        Args:
            last: How many steps are taken before the operator is killed; None: it lives.
            kill: Kills it.
        """
        with self._lock:
            self.taken, self.fatal, self._last, self._kill = [], None, last, kill

    def stop(self) -> tuple[list[Step], Step | None]:
        """Nobody is killed from now on. Returns the steps that were taken, and the one before which somebody was."""
        with self._lock:
            taken, fatal = self.taken, self.fatal
            self.taken, self.fatal, self._last = [], None, None
            return taken, fatal

    def take(self, step: Step, life: int) -> bool:
        """Whether a step may be taken; False: who wants to is dead.

        Args:
            step: The step.
            life: The `life` in which the connection was made that it comes from.
        """
        with self._lock:
            if life != self.life:
                return False
            if len(self.taken) == self._last:
                if self._kill is not None:
                    self._kill()
                self.fatal, self._last = step, None
                self.life += 1
                return False
            self.taken.append(step)
            return True


_COMMENT = re.compile(r"--[^\n]*")
_LASTS_NOT = frozenset(
    ("BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "RESET", "SHOW", "SELECT", "WITH", "TABLE", "VALUES", "")
)
_SHOWN = 90
_READY, _PARSE, _BIND, _EXECUTE, _QUERY = b"Z", b"P", b"B", b"E", b"Q"


class Session:
    """What must be known of a session to tell its steps: see "Frontend/Backend Protocol" in PostgreSQL's manual."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}
        self._bound = ""
        self._in_transaction = False
        self._read_only = False

    def step_of(self, kind: bytes, body: bytes) -> Step | None:
        """The step that a client's message is; None: it is none."""
        if kind == _PARSE:
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        elif kind == _BIND:
            self._bound = self._prepared[body.split(b"\0", 2)[1]]
        elif kind == _EXECUTE:
            return self._step(self._bound)
        elif kind == _QUERY:
            return self._step(body.rstrip(b"\0").decode())
        return None

    def ready(self, status: bytes) -> None:
        """The server says whether the session is in a transaction."""
        self._in_transaction = status != b"I"

    def _step(self, text: str) -> Step:
        words = _COMMENT.sub("", text).split()
        first = words[0].upper().rstrip(";") if words else ""
        if first == "BEGIN":
            self._read_only = "READ ONLY" in text.upper()
        lasts = first == "COMMIT" and not self._read_only if self._in_transaction else first not in _LASTS_NOT
        return Step(" ".join(words)[:_SHOWN], lasts)


class StepwisePostgres(Gateway):
    """Stands before a PostgreSQL without TLS; the statements that pass it are steps.

    Args:
        port: The server's, on this machine.
        steps: Counts them.
        all_statements: Whether also those count that change nothing that lasts.
    """

    def __init__(self, port: int, steps: Steps, *, all_statements: bool) -> None:
        super().__init__(port)
        self._steps = steps
        self._all_statements = all_statements

    def _ways(self, client: Streams, server: Streams) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
        session = Session()
        return (
            self._requests(client, server, session, self._steps.life),
            self._answers(server[0], client[1], session),
        )

    async def _requests(self, client: Streams, server: Streams, session: Session, life: int) -> None:
        try:
            # The first message has no type.
            server[1].write(b"".join(await _message(client[0], typed=False)))
            while True:
                head, body = await _message(client[0])
                step = session.step_of(head[:1], body)
                counts = step is not None and (step.lasts or self._all_statements)
                if step is not None and counts and not self._steps.take(step, life):
                    for _, writer in (client, server):
                        writer.transport.abort()
                    return
                server[1].write(head + body)
                await server[1].drain()
        except (OSError, asyncio.IncompleteReadError):
            return

    async def _answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, session: Session) -> None:
        try:
            while True:
                head, body = await _message(server)
                if head[:1] == _READY:
                    session.ready(body)
                client.write(head + body)
                await client.drain()
        except (OSError, asyncio.IncompleteReadError):
            return


async def _message(reader: asyncio.StreamReader, *, typed: bool = True) -> tuple[bytes, bytes]:
    """Head and body of the next one."""
    head = await reader.readexactly(5 if typed else 4)
    return head, await reader.readexactly(int.from_bytes(head[-4:]) - 4)


@contextmanager
def stepwise_postgres(port: int, steps: Steps, *, all_statements: bool) -> Iterator[StepwisePostgres]:
    """A `StepwisePostgres` for a while."""
    made = StepwisePostgres(port, steps, all_statements=all_statements)
    with made.running():
        yield made


def points_that_matter(steps: Sequence[Step], most: int) -> list[int]:
    """After how many steps to kill an operator that took these: so many numbers, where it matters most.

    That is where the step before has changed what the next operator finds; and once in the longest stretch between.
    """
    matter = [point for point in range(len(steps)) if point == 0 or steps[point - 1].lasts]
    ends = [*matter[1:], len(steps)]
    begin, end = max(zip(matter, ends, strict=True), key=lambda stretch: stretch[1] - stretch[0])
    spread = {matter[round(n * (len(matter) - 1) / (most - 2))] for n in range(most - 1)}
    return sorted(spread | {(begin + end) // 2})


class Trials:
    """At which points of a scenario the operator is killed, and how many came to the same end: a block of `with`.

    Iterating gives the points: those that are to be tried in any case, then others, which chance orders, until
    `chaos.results.SECONDS` are over. When the block is left, it is written down what came of them.

    Args:
        suite: How steps are counted.
        scenario: What the operator does.
        steps: Which it takes if it lives.
        first: The points to be tried in any case.
    """

    def __init__(self, suite: str, scenario: str, steps: Sequence[Step], first: Sequence[int]) -> None:
        self._suite = suite
        self._scenario = scenario
        self._steps = steps
        self._first = first
        self._killed = self._same = 0

    def __enter__(self) -> Trials:
        return self

    def __iter__(self) -> Iterator[int]:
        deadline = time.monotonic() + results.SECONDS
        others = [point for point in range(len(self._steps)) if point not in self._first]
        random.Random(f"{results.SEED} {self._suite} {self._scenario}").shuffle(others)
        for number, point in enumerate([*self._first, *others]):
            if number >= len(self._first) and time.monotonic() > deadline:
                return
            self._killed += 1
            yield point

    def came_to(self, differs: str, taken: Sequence[Step], fatal: Step | None) -> None:
        """How the run ended in which the operator was killed at the point before this call.

        Args:
            differs: In what it differs from one in which it lives.
            taken: The steps before.
            fatal: The one before which it was killed. None: the run had fewer steps, and it lived.

        Raises:
            AssertionError: It differs.
        """
        assert not differs, f"killed after {[step.what for step in taken]}, before: {fatal}\n{differs}"
        if fatal is None:
            self._killed -= 1
        else:
            self._same += 1

    def __exit__(self, *_: object) -> None:
        results.note(
            results.Killed(
                suite=self._suite,
                scenario=self._scenario,
                steps=len(self._steps),
                lasting=sum(step.lasts for step in self._steps),
                killed=self._killed,
                same=self._same,
            )
        )
