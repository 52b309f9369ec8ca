"""Looking at the log unasked: how long to wait before, and whether what it finds had been announced.

Announcements are hints and may get lost, so a reader looks by itself as well: ever more rarely while the way in which
it is woken proves itself. A read that finds what nothing announces, before it or soon after, proves the contrary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds until the first look of a reader that is woken; each one that nothing called for doubles them.
FIRST_LOOK = 0.25
#: What a read finds may have been committed this very moment: seconds until its announcement counts as missing. If it
#: comes all the same, as happens on machines that have too much to do, the next ones are given twice as long.
GRACE = 0.25
MAX_GRACE = 2.0


class Lookout:
    """One reader's. All times in seconds.

    Args:
        mode: How the reader is woken right now; with `poll` nothing is announced.
        poll_interval: First delay between looks while nothing wakes the reader.
        on_overlooked: Called when messages were found that nothing had announced.
    """

    def __init__(self, mode: Callable[[], str], poll_interval: float, on_overlooked: Callable[[], None]) -> None:
        self._mode = mode
        self._poll_interval = poll_interval
        self._on_overlooked = on_overlooked
        self._timer: asyncio.TimerHandle | None = None
        self.begin()

    def begin(self) -> None:
        """The reader is woken in a new way from now on, which has proven nothing yet."""
        self.close()
        self._delay = 0.0
        self._delay_mode = ""
        self._wakes = self._wakes_when_reading = self._wakes_known = 0
        self._announced_to = 0
        self._is_up_to_date = self._was_up_to_date = False
        self._grace = GRACE

    def close(self) -> None:
        """Accuse nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._suspects = range(0)

    def woken(self, up_to: int | None = None) -> None:
        """Somebody else said that there are messages up to that id, or that there may be some."""
        if up_to is None:
            self._wakes += 1
            self.close()
        else:
            # From which id on is not known: in doubt it is what is waited for.
            self.offered(up_to if self._timer is None else min(up_to, self._suspects.start), up_to)

    def offered(self, first_id: int, last_id: int) -> None:
        """These messages were announced. Those that this process published are as well: they say nothing of others."""
        self._announced_to = max(self._announced_to, last_id)
        if first_id < self._suspects.stop and last_id >= self._suspects.start:
            if self._timer is None:
                self._grace = min(self._grace * 2, MAX_GRACE)
            self.close()

    def reading(self) -> None:
        """A read begins."""
        self._wakes_when_reading = self._wakes
        # Until this one is through: after an outage, what is found may have been announced any time.
        self._was_up_to_date, self._is_up_to_date = self._is_up_to_date, False

    def found(self, before: int, position: int, *, everything: bool) -> None:
        """The read found the messages after `before`, up to `position`; `everything`: there are no more."""
        # What is found by reading on, or by the first read, need not have been announced.
        if self._was_up_to_date and position > before >= self._announced_to and self._wakes == self._wakes_known:
            self._suspect(before + 1, position)
        self._wakes_known = self._wakes_when_reading
        self._is_up_to_date = everything

    def delay(self, longest: float, *, found: bool, least: float = 0.0) -> float:
        """How long to wait before looking unasked; `found`: the last look was worth it."""
        mode = self._mode()
        if mode != self._delay_mode or (found and mode == "poll"):
            self._delay, self._delay_mode = 0.0, mode
        self._delay = min(max(self._delay, self._poll_interval if mode == "poll" else FIRST_LOOK, least), longest)
        return self._delay

    def lapsed(self) -> None:
        """Nothing came in that time."""
        self._delay *= 2

    def _suspect(self, first_id: int, last_id: int) -> None:
        if self._timer is None and self._mode() != "poll":
            self._suspects = range(first_id, last_id + 1)
            self._timer = asyncio.get_running_loop().call_later(self._grace, self._judge)

    def _judge(self) -> None:
        self._timer = None
        self._delay = 0.0
        self._on_overlooked()
