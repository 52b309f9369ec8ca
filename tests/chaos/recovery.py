"""How long a bus takes to deliver again: from a fault's end to each peer's first message published after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

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
    """

    def __init__(self, histories: Sequence[Path]) -> None:
        self._tails = [_Tail(path, path.stat().st_size) for path in histories]
        self._published: dict[str, int] = {}

    async def delivered(self, since: int, seconds: float) -> dict[str, float | None]:
        """How long it took until each process was handed a message whose publish had begun after `since`.

        Args:
            since: Nanoseconds of CLOCK_MONOTONIC.
            seconds: How long to wait for it.

        Returns:
            Seconds for each process; None for one that was handed nothing.
        """
        deadline = time.monotonic() + seconds
        while True:
            for tail in self._tails:
                tail.follow(self._published)
            first = {f"{tail.path.parent.name}/{tail.path.stem}": self._first(tail, since) for tail in self._tails}
            if None not in first.values() or time.monotonic() > deadline:
                return first
            await asyncio.sleep(_LOOK)

    def _first(self, tail: _Tail, since: int) -> float | None:
        for message, when in tail.received:
            if self._published.get(message, 0) > since:
                return (when - since) / 1e9
        return None
