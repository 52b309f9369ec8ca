"""Waiting between attempts, and logging an outage once rather than per attempt."""

from __future__ import annotations

import logging
import random
import time

from bus_runtime.errors import BusError


class Backoff:
    """Exponentially growing delays with full jitter in their upper half, so that peers do not return in step.

    Args:
        initial: First delay in seconds.
        maximum: Upper bound of a delay in seconds.
    """

    def __init__(self, initial: float = 0.1, maximum: float = 5.0) -> None:
        self._initial = initial
        self._maximum = maximum
        self._next = initial

    def next_delay(self) -> float:
        """The delay before the next attempt, in seconds."""
        ceiling = self._next
        self._next = min(ceiling * 2, self._maximum)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, hides nothing

    def reset(self) -> None:
        """Begin again with the initial delay, after a success."""
        self._next = self._initial


class OutageLog:
    """Says once that something stopped working, again only for another kind of error, and once that it works again."""

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        self._logger = logger
        self._subject = subject
        self._since: float | None = None
        self._told: set[str] = set()

    def failed(self, error: BaseException) -> None:
        """Note a failure, which may begin an outage."""
        if self._since is None:
            self._since = time.monotonic()
        kind = error.code if isinstance(error, BusError) else type(error).__name__
        level = logging.DEBUG if kind in self._told else logging.WARNING
        self._told.add(kind)
        words = error if isinstance(error, BusError) else f"{kind}: {error}"
        self._logger.log(level, "%s: %s; trying again until it works", self._subject, words)

    def recovered(self) -> bool:
        """Note a success; True when it ends an outage."""
        if self._since is None:
            return False
        self._logger.info("%s: works again after %.1f s", self._subject, time.monotonic() - self._since)
        self._since = None
        self._told.clear()
        return True
