"""That a fault struck: what it did to clients, by their histories, and to the server, by what that said.

A nemesis that breaks nothing lets every system pass. So each shows what it did, and a run in which it did not is
worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import postgres
from chaos.history import read


class NotStruckError(Exception):
    """There is no sign of a fault that should have struck."""


class Log:
    """What a server says from now on.

    Args:
        server: The server. It may be started again meanwhile.
    """

    def __init__(self, server: postgres.Server) -> None:
        self._server = server
        self._begin = len(server.log)

    @property
    def text(self) -> str:
        """All of it."""
        return self._server.log[self._begin :]

    def require(self, words: str) -> None:
        """It said that.

        Raises:
            NotStruckError: It did not.
        """
        if words not in self.text:
            raise NotStruckError(f"PostgreSQL did not say {words!r}")


def _publishes(histories: Iterable[Path], began: int, ended: int) -> Iterator[tuple[int, int]]:
    """When publishes began, and when they returned, of those that returned between two times."""
    for path in histories:
        invoked: dict[str, int] = {}
        for event in read(path):
            if event.kind == "publish":
                invoked[event.message] = event.time
            elif event.kind == "published" and began <= event.time <= ended:
                yield invoked[event.message], event.time


def standstill(histories: Iterable[Path], began: int, ended: int) -> float:
    """The longest time between two, in seconds, in which no publish returned. Times in nanoseconds."""
    returned = sorted(when for _, when in _publishes(histories, began, ended))
    return max(after - before for before, after in zip([began, *returned], [*returned, ended], strict=True)) / 1e9


def latency(histories: Iterable[Path], began: int, ended: int) -> float:
    """How long publishes took that began and returned between two times: the median, in seconds.

    Raises:
        NotStruckError: There were none.
    """
    times = [returned - invoked for invoked, returned in _publishes(histories, began, ended) if invoked >= began]
    if not times:
        raise NotStruckError("nothing was published while it lasted")
    return median(times) / 1e9


def published(histories: Iterable[Path], began: int, ended: int) -> int:
    """How many publishes returned between two times."""
    return sum(1 for _ in _publishes(histories, began, ended))


def told(histories: Iterable[Path]) -> int:
    """Of how many lost messages processes were told."""
    return sum(event.details["count"] for path in histories for event in read(path) if event.kind == "lost")
