"""What tests of the operator's faults find out, written down for the tables in docs/reliability.md."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

#: For how long an operator is killed at other points of a scenario than those that are always tried. 0: at no others;
#: `inf`: at all.
SECONDS = float(os.environ.get("KILL_SECONDS", "0"))

#: Decides which others come first.
SEED = int(os.environ.get("CHAOS_SEED", "0"))

#: A file to which results are added, a line of JSON each.
_FILE = os.environ.get("CHAOS_RESULTS", "")

#: Seconds after the end of a fault in which a bus is to deliver again, and an operator to have done what it is given to
#: do then. From the project's goals.
GOAL = 10.0

#: The suite that kills a process; others are called by what they run on.
PROCESS = "process"


def environment(file: Path, seconds: float, seed: int) -> dict[str, str]:
    """The variables that say so to tests."""
    return {"CHAOS_RESULTS": str(file), "KILL_SECONDS": str(seconds), "CHAOS_SEED": str(seed)}


@dataclass(frozen=True)
class Killed:
    """An operator was killed at points of a scenario.

    Attributes:
        suite: How steps are counted.
        scenario: What it does.
        steps: How many it takes.
        lasting: How many of them may change what the next operator finds.
        killed: Before how many of them it was killed.
        same: How many of these led to the same end.
    """

    suite: str
    scenario: str
    steps: int
    lasting: int
    killed: int
    same: int

    def __bool__(self) -> bool:
        """Whether all did."""
        return self.killed == self.same > 0


@dataclass(frozen=True)
class Broken:
    """Kubernetes, or the operator in it, was broken while pods used the bus.

    Attributes:
        title: How.
        pause: The longest time in seconds in which a process that uses the bus was handed nothing, since the fault had
            begun.
        recovery: How many seconds after the end of the fault the operator had done what it was given to do then; None:
            it did not.
    """

    title: str
    pause: float
    recovery: float | None

    def __bool__(self) -> bool:
        """Whether both are as they should be."""
        return self.pause <= GOAL and self.recovery is not None and self.recovery <= GOAL


Result = Killed | Broken
Kind = TypeVar("Kind", bound=Result)


def note(result: Result) -> None:
    """Writes it down, if there is a file for it."""
    if _FILE:
        with Path(_FILE).open("ab") as file:
            file.write(orjson.dumps({"kind": type(result).__name__, **dataclasses.asdict(result)}) + b"\n")


def read(path: Path) -> list[Result]:
    """What was written into a file, in order."""
    kinds: Mapping[str, type[Result]] = {kind.__name__: kind for kind in (Killed, Broken)}
    found: list[Result] = []
    for line in path.read_bytes().splitlines():
        fields: dict[str, Any] = orjson.loads(line)
        found.append(kinds[fields.pop("kind")](**fields))
    return found


def of_kind(found: Iterable[Result], kind: type[Kind]) -> list[Kind]:
    """Those of one kind."""
    return [result for result in found if isinstance(result, kind)]
