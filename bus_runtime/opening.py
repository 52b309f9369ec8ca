"""Opens connections, also while what is under way never arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from bus_runtime.driver import drop

#: Seconds after which another connection is opened besides those that are still being opened. What they wait for may be
#: lost, while whoever begins now is served at once; or the server is slow, and the first comes first.
NEXT_ATTEMPT = 3.0


async def open_in_time(connect: Callable[[], Awaitable[asyncpg.Connection]]) -> asyncpg.Connection:
    """A connection: where attempts take long, the one that is there first.

    Args:
        connect: Opens one. What it raises is raised when no other attempt is under way.
    """
    attempts: set[asyncio.Future[asyncpg.Connection]] = set()
    done: set[asyncio.Future[asyncpg.Connection]] = set()
    try:
        while True:
            if not done:
                attempts.add(asyncio.ensure_future(connect()))
            done, pending = await asyncio.wait(attempts, timeout=NEXT_ATTEMPT, return_when=asyncio.FIRST_COMPLETED)
            opened = [attempt for attempt in done if attempt.exception() is None]
            if opened or not pending:
                taken = (opened or list(done))[0]
                attempts.remove(taken)
                return taken.result()
            attempts = pending
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_drop_opened)


def _drop_opened(attempt: asyncio.Future[asyncpg.Connection]) -> None:
    """Close what came too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        drop(attempt.result())
