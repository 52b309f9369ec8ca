"""When a subscriber that is full now and then counts as one that does not keep up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds after which it is said that a subscriber lags, unless it kept up for as long as it takes to say the contrary.
#: To be full for a moment, after a burst, is what queues are for.
LAGS_AFTER = 2.0
KEEPS_UP_AFTER = 1.0


class LagNotice:
    """One subscriber's.

    Args:
        on_change: Called with True when it begins to lag and with False when it keeps up again.
    """

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._lags = False
        self._beginning: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None

    def behind(self) -> None:
        """It is full, and dropped out."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if not self._lags and self._beginning is None:
            self._beginning = asyncio.get_running_loop().call_later(LAGS_AFTER, self._begin)

    def abreast(self) -> None:
        """It has all that there is."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(KEEPS_UP_AFTER, self._end)

    def close(self) -> None:
        """Say nothing any more, and begin anew if it is used again."""
        for timer in (self._beginning, self._ending):
            if timer is not None:
                timer.cancel()
        self._beginning = self._ending = None
        self._lags = False

    def _begin(self) -> None:
        self._beginning = None
        self._lags = True
        self._on_change(True)

    def _end(self) -> None:
        self._ending = None
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        elif self._lags:
            self._lags = False
            self._on_change(False)
