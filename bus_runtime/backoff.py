"""Waiting between attempts, and logging an outage once rather than per attempt."""

from __future__ import annotations

import logging
import random
import time


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
    """Says once that something stopped working and once that it works again."""

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        self._logger = logger
        self._subject = subject
        self._since: float | None = None

    def failed(self, error: BaseException) -> bool:
        """Note a failure; True when it begins an outage."""
        if self._since is not None:
            self._logger.debug("%s: still failing: %s", self._subject, error)
            return False
        self._since = time.monotonic()
        self._logger.warning("%s: %s: %s; trying again until it works", self._subject, type(error).__name__, error)
        return True

    def recovered(self) -> bool:
        """Note a success; True when it ends an outage."""
        if self._since is None:
            return False
        self._logger.info("%s: works again after %.1f s", self._subject, time.monotonic() - self._since)
        self._since = None
        return True
