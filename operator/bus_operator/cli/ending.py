"""Lets a command that runs until somebody ends it do so properly."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


async def until_interrupted(work: Coroutine[Any, Any, None]) -> int | None:
    """Runs it; a signal cancels it, so that it can leave. The signal's number, None if it ended by itself.

    A second signal has its usual effect, for who cannot wait.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    received: list[int] = []

    def interrupted(signum: int) -> None:
        received.append(signum)
        for every in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(every)
        task.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, interrupted, signum)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    return received[0] if received else None
