"""Writes lines to a terminal or a pipe that may be slow, without anybody waiting who must not.

A terminal that is scrolled back or paused takes nothing; whoever wrote to it directly would stand still, and with it
everything else in the process. So a thread writes, from a buffer of bounded size.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TextIO

CAPACITY = 8 * 1024 * 1024
"""Characters that wait at most."""

_PATIENCE = 2.0
"""Seconds that what still waits gets at the end."""


class Printer:
    """Lines to one stream, in order.

    Args:
        stream: Where to write. Nothing is kept in its own buffer.
        skipped: Makes a line of how many were left out, which is written where they are missing; None: no line.
        capacity: Characters.
    """

    def __init__(
        self, stream: TextIO, *, skipped: Callable[[int], str] | None = None, capacity: int = CAPACITY
    ) -> None:
        self._out = _writer(stream)
        self._note = skipped
        self._capacity = capacity
        self._lines: deque[str] = deque()
        self._size = 0
        self._missing = 0
        self._closed = False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self.skipped = 0
        """How many lines were left out so far."""
        self.gone = asyncio.Event()
        """Set when nobody reads what is written any more."""
        self._thread = threading.Thread(target=self._write, name="printer", daemon=True)
        self._thread.start()

    def offer(self, line: str, *, always: bool = False) -> bool:
        """Writes the line if there is room for it, or `always`; else it is left out, and counted."""
        with self._changed:
            if not always and self._size + len(line) > self._capacity and self._size:
                self._missing += 1
                self.skipped += 1
                return False
            self._append(line)
        return True

    async def put(self, line: str) -> None:
        """Writes the line, when there is room for it."""
        while not self.gone.is_set():
            with self._changed:
                if self._size + len(line) <= self._capacity or not self._size:
                    self._append(line)
                    return
                self._room.clear()
            await self._room.wait()

    def _append(self, line: str) -> None:
        if self._missing and self._note is not None:
            self._lines.append(self._note(self._missing))
        self._missing = 0
        self._lines.append(line)
        self._size += len(line)
        self._changed.notify()

    async def close(self) -> None:
        """Writes what waits, if that does not take too long. A thread that is stuck ends with the process."""
        with self._changed:
            if self._missing and self._note is not None:
                self._lines.append(self._note(self._missing))
            self._missing = 0
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, _PATIENCE)

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closed:
                    self._changed.wait()
                if not self._lines:
                    return
                text = "".join(f"{line}\n" for line in self._lines)
                self._lines.clear()
            try:
                self._out(text)
            except (OSError, ValueError):
                # Closed by whoever read it, such as `head`.
                self._tell(self.gone.set)
                self._tell(self._room.set)
                return
            with self._changed:
                # What is being written counts until it is out.
                self._size = sum(map(len, self._lines))
            self._tell(self._room.set)

    def _tell(self, what: Callable[[], None]) -> None:
        # The loop may have ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)


def _writer(stream: TextIO) -> Callable[[str], None]:
    """What writes to it at once.

    Not by the stream, which has a lock: if the thread were stuck in it, Python could not end.
    """
    try:
        descriptor = stream.fileno()
    except OSError:
        return partial(print, end="", file=stream)

    def write(text: str) -> None:
        # Better a question mark than nothing, where the terminal knows no such character.
        rest = memoryview(text.encode(stream.encoding, "replace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write
