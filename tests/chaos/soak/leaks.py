"""The end of a soak: everything that was begun is ended, step by step, and after each nothing else may be left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from chaos.soak.inventory import Inventory, sessions, take
from chaos.soak.samples import Subject, look_at
from chaos.soak.world import SoakWorld
from scraping import scrape_text

if TYPE_CHECKING:
    from chaos.soak.run import Soak

#: What a process holds that it may not hold more and more of.
_HELD = ("files", "threads", "tasks")

#: Threads that there may be: asyncio makes those that look up names when they are first needed, and keeps them. The
#: number is `concurrent.futures`' default, and one more for the event loop.
_THREADS = 1 + min(32, (os.cpu_count() or 1) + 4)

#: Seconds until what times out has gone: peers that were killed, sessions that were cut off.
_PATIENCE = 120.0
_LOOK = 0.5


def holdings(world: SoakWorld) -> Mapping[int, Mapping[str, float]]:
    """How many files, threads and tasks each process with `bus_runtime` has.

    pipecat's are not looked at: what its pool has grown to, it keeps for five minutes.
    """
    found = {}
    for worker, state in world.states():
        if worker.options.client != "bus_runtime":
            continue
        name = f"{worker.options.channel_binding}/{worker.options.process}"
        seen = look_at(Subject(name, "", worker.process.pid, state.tasks if state is not None else None))
        if seen is not None:
            found[worker.process.pid] = {what: seen[what] for what in _HELD if what in seen}
    return found


async def wind_up(soak: Soak) -> None:
    """End everything; what is left over is noted in the outcome."""
    world, control, outcome = soak.world, soak.control, soak.outcome
    # Messages still flow: so that what is timed out is noticed.
    await world.publish(outcome.wanted)
    await asyncio.to_thread(control.remove_churned)
    await asyncio.to_thread(control.settled)
    outcome.leaks += await _until_empty(lambda: _beyond(soak, soak.full))
    outcome.leaks += await _until_empty(lambda: _metrics(soak))
    await soak.turn()
    outcome.leaks += await _until_empty(lambda: _held(soak))

    for fleet in world.channels_fleets.values():
        for worker in tuple(fleet.workers):
            try:
                await fleet.stop(worker)
            except (RuntimeError, TimeoutError) as exc:
                outcome.errors.append(str(exc))
    outcome.leaks += await _until_empty(lambda: _sessions(soak, "bus_login"))
    outcome.leaks += [f"file of a worker: {path.name}" for path in soak.temporary.iterdir()]

    await asyncio.to_thread(control.remove_channels)
    outcome.leaks += await _until_empty(lambda: _beyond(soak, soak.empty))
    status, _ = await asyncio.to_thread(control.operator.terminate)
    if status != 0:
        outcome.errors.append(f"the operator ended with {status}")
    outcome.leaks += await _until_empty(lambda: _sessions(soak, ""))


async def _until_empty(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What is still found after a long time."""
    deadline = time.monotonic() + _PATIENCE
    while (found := await look()) and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)
    return found


async def _beyond(soak: Soak, expected: Inventory) -> list[str]:
    """What the server has, and should not have."""
    session = await soak.world.admin()
    try:
        found = await take(session)
    finally:
        await session.close()
    if expected is soak.full:
        soak.outcome.checked |= found.counts()
    return found.beyond(expected)


async def _sessions(soak: Soak, prefix: str) -> list[str]:
    """Sessions of roles that begin so."""
    session = await soak.world.admin()
    try:
        found = await sessions(session)
    finally:
        await session.close()
    return [f"{count} sessions of {role}" for role, count in found.items() if role.startswith(prefix)]


async def _metrics(soak: Soak) -> list[str]:
    """Time series of channels that are gone."""
    text = await asyncio.to_thread(scrape_text, soak.control.operator)
    return sorted({f"metrics of {word}" for line in text.splitlines() for word in line.split('"') if "churn-" in word})


async def _held(soak: Soak) -> list[str]:
    """What workers hold beyond what they held at their first quiet moment."""
    found = []
    for pid, seen in holdings(soak.world).items():
        first = soak.quiet.get(pid, seen)
        name = next(worker.options.process for worker, _ in soak.world.states() if worker.process.pid == pid)
        for what, count in seen.items():
            if count > max(first.get(what, count), _THREADS if what == "threads" else 0):
                found.append(f"{count - first[what]:.0f} more {what} of {name} than {first[what]:.0f}")
    return found
