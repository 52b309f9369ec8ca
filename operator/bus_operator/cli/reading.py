"""Reads lines of standard input as they come, without keeping the process from ending."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import BinaryIO

_AHEAD = 1000
"""Lines that are read before they are asked for."""


async def lines(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Its lines without their ends, but not empty ones. A thread that waits for the next ends with the process."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[bytes | OSError | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def read() -> None:
        last: OSError | None = None
        try:
            for line in stream:
                room.acquire()
                loop.call_soon_threadsafe(coming.put_nowait, line)
        except OSError as exc:
            last = exc
        except RuntimeError:
            # The loop has ended.
            return
        try:
            loop.call_soon_threadsafe(coming.put_nowait, last)
        except RuntimeError:
            return

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while (line := await coming.get()) is not None:
        if isinstance(line, OSError):
            raise line
        room.release()
        if stripped := line.strip():
            yield stripped
