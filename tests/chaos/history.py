"""What happened: events that every process writes down for itself, before or after it does something.

A process has a file of its own. A line is one event as JSON, appended by a single `write` to the page cache: that
survives any death of the process, and what the process had not written yet, nobody had been told. Times are
CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.

What a process writes:

| event | when | details |
|---|---|---|
| `opened` | first, once | `process`, a name that no other process has; `channel`; `client` |
| `joining` | before it joins | `peer` or null; `acknowledge`; `in_hand`: messages its subscriber may hold |
| `joined` | joining returned | |
| `publish` | before publishing | the message |
| `published` | publishing returned: acknowledged | the message |
| `failed` | publishing raised: certainly not taken | the message |
| `unknown` | publishing raised: nobody knows | the message |
| `received` | its handler begins | the message |
| `handled` | its handler is about to return | the message |
| `lost` | it was told of messages that were trimmed | `count`, at most so many |
| `redelivered` | it was told that a message comes again | `id`, its number in the log |
| `refused` | it was told that its place is another's | |
| `ended` | it has left the channel | `how` is `left` |

What whoever runs them writes, in a file of its own:

| event | when | details |
|---|---|---|
| `ended` | it has killed a process and waited for its end | `process`; `how` is `killed` |
| `fault` | a fault has ended | `fault`, its kind; `began`, a time before the fault began |
| `settled` | nothing has been published or been broken for long enough | |

A message is named by a text that is given to no other: `<process>-<number>`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

import orjson

Kind = Literal[
    "opened", "joining", "joined", "publish", "published", "failed", "unknown", "received", "handled", "lost",
    "redelivered", "refused", "ended", "fault", "settled",
]  # fmt: skip

#: `crash`: PostgreSQL ended without a checkpoint, and recovered. `failover`: a standby was promoted in its place.
#: `disruption`: whatever loses no data: connections cut or frozen, a clean restart, a backend killed by SIGTERM, a
#: pause.
Fault = Literal["crash", "failover", "disruption"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Event(NamedTuple):
    """One line of a history.

    Attributes:
        kind: What happened.
        time: When, in nanoseconds of CLOCK_MONOTONIC.
        message: The message's name, where it is about one.
        details: What else there is to say; see the module.
    """

    kind: Kind
    time: int
    message: str = ""
    details: Mapping[str, Any] = _NOTHING


class Recorder:
    """Writes a history, one process's file.

    Args:
        path: The file; created, or appended to.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open(path)

    def write(self, kind: Kind, message: str = "", **details: Any) -> None:
        """Write an event down, as of now.

        Raises:
            OSError: It could not be written as a whole. The history is worth nothing then.
        """
        event: dict[str, Any] = {"event": kind, "time": time.monotonic_ns()}
        if message:
            event["message"] = message
        line = orjson.dumps(event | details) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes of the event {kind!r} were written")

    def turn(self, path: Path) -> None:
        """Go on in another file."""
        former, self._file = self._file, _open(path)
        os.close(former)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def read(path: Path) -> Iterator[Event]:
    """The events of one file, in the order in which they were written.

    Raises:
        ValueError: A line is no event. Only the last may be cut short, when its writer was killed while it wrote.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                fields = orjson.loads(line)
                yield Event(fields.pop("event"), fields.pop("time"), fields.pop("message", ""), fields or _NOTHING)
            except (ValueError, KeyError, AttributeError) as exc:
                raise ValueError(f"{path}, line {number}: no event: {line[:200]!r}") from exc


def read_all(directory: Path) -> list[Iterator[Event]]:
    """The histories in a directory, one for each file `*.jsonl`."""
    return [read(path) for path in sorted(directory.glob("*.jsonl"))]
