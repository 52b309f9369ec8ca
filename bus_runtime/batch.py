"""How many messages to read at a time."""

from __future__ import annotations

from collections.abc import Sequence

from bus_runtime.backend import LogRecord

#: Bounds of one read.
_MAX_MESSAGES = 1000
_MAX_BYTES = 4 * 1024 * 1024


class BatchSize:
    """More while there are more, as far as the size of the messages allows.

    Args:
        least: How many to begin with, and to return to.
    """

    def __init__(self, least: int) -> None:
        self._least = self.limit = min(least, _MAX_MESSAGES)

    def adapt(self, records: Sequence[LogRecord], *, full: bool) -> None:
        """Learn from what a read gave; `full`: as many as were asked for."""
        if not full:
            if len(records) < self.limit // 4:
                self.limit = max(self._least, self.limit // 2)
            return
        size = sum(len(record.payload) for record in records if record.payload is not None)
        most = min(_MAX_MESSAGES, max(1, _MAX_BYTES * len(records) // max(size, 1)))
        self.limit = max(min(self.limit * 2, most), min(self._least, most))
