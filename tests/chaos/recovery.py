"""How long a bus takes to deliver again: from a fault's end until everybody has something newer of every publisher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

#: Seconds from the end of a fault within which each peer is to be delivered to again. From the project's goals.
GOAL = 10.0

#: Seconds between looks at the histories.
_LOOK = 0.1


@dataclass(eq=False, slots=True)
class _Tail:
    """What a process wrote down since it was looked at first.

    Attributes:
        path: Its history.
        offset: Up to where it was read.
        received: What it received, and when.
    """

    path: Path
    offset: int
    received: list[tuple[str, int]] = field(default_factory=list)

    def follow(self, published: dict[str, int]) -> None:
        """Read on, up to the last whole line; its own publishes are added to those of all."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)
        for line in text.splitlines():
            event = orjson.loads(line)
            if event["event"] == "publish":
                published[event["message"]] = event["time"]
            elif event["event"] == "received":
                self.received.append((event["message"], event["time"]))


class Watch:
    """Looks at histories from now on.

    Args:
        histories: One for each process that should receive something.
        publishers: Those of processes that publish. Whoever is in the same directory should receive from them.
    """

    def __init__(self, histories: Sequence[Path], publishers: Sequence[Path]) -> None:
        # From a whole line on: one that is being written may be there in part.
        self._tails = {path: _Tail(path, path.read_bytes().rfind(b"\n") + 1) for path in {*histories, *publishers}}
        self._expected = {
            reader: {path.stem for path in publishers if path.parent == reader.parent} for reader in histories
        }
        self._published: dict[str, int] = {}

    async def delivered(self, since: int, seconds: float) -> dict[str, float | None]:
        """How long it took until each process was handed a message whose publish had begun after `since`, by everybody.

        Args:
            since: Nanoseconds of CLOCK_MONOTONIC.
            seconds: How long to wait for it.

        Returns:
            Seconds for each process; None for one that was handed nothing, or nothing of some publisher.
        """
        deadline = time.monotonic() + seconds
        while True:
            for tail in self._tails.values():
                tail.follow(self._published)
            first = {f"{path.parent.name}/{path.stem}": self._all_heard(path, since) for path in self._expected}
            if None not in first.values() or time.monotonic() > deadline:
                return first
            await asyncio.sleep(_LOOK)

    def _all_heard(self, reader: Path, since: int) -> float | None:
        missing = set(self._expected[reader])
        for message, when in self._tails[reader].received:
            if self._published.get(message, 0) > since:
                # A message is called <process>-<number>.
                missing.discard(message.rpartition("-")[0])
                if not missing:
                    return (when - since) / 1e9
        return None
