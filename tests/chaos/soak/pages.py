"""Pages of histories, each checked by a process of its own while the load goes on, and then deleted.

A page ends at a quiet moment, when all that was published on it was handled and acknowledged by everybody: whatever
comes later of what it holds is a phantom on another page. So each is judged alone, and nothing is left out.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

#: Seconds that a check may take at the end, when nothing else is left to do.
_PATIENCE = 600.0


@dataclass(slots=True)
class Account:
    """What the checker said of all pages so far.

    Attributes:
        published: Of each page that was checked, how many messages were published on it.
        tally: Of each channel, the sums of `chaos.verdict.Tally`.
        broken: How often each promise was broken.
        violations: Described.
        seconds: Processor time that checking took.
    """

    published: dict[int, int] = field(default_factory=dict)
    tally: dict[str, dict[str, int]] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def total(self, what: str) -> int:
        """The sum over all channels."""
        return sum(tally.get(what, 0) for tally in self.tally.values())

    @property
    def pages(self) -> int:
        """How many were checked."""
        return len(self.published)

    def add(self, page: int, said: dict[str, Any]) -> None:
        """What was said of a page."""
        self.published[page] = sum(verdict["tally"]["published"] for verdict in said["verdicts"].values())
        self.seconds += said["seconds"]
        for channel, verdict in said["verdicts"].items():
            sums = self.tally.setdefault(channel, {})
            for what, count in verdict["tally"].items():
                sums[what] = sums.get(what, 0) + count
            for broken, count in verdict["broken"].items():
                self.broken[broken] = self.broken.get(broken, 0) + count
            self.violations += [f"page {page}, {channel}: {text}" for text in verdict["violations"]]


class Checker:
    """Checks pages one after the other, at the lowest priority."""

    def __init__(self) -> None:
        self.account = Account()
        self._pages: asyncio.Queue[Path | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._work())

    @property
    def waiting(self) -> int:
        """Pages that are not checked yet."""
        return self._pages.qsize()

    def hand_in(self, page: Path) -> None:
        """A page that is complete."""
        self._pages.put_nowait(page)

    async def finish(self) -> Account:
        """Wait until all are checked.

        Raises:
            RuntimeError: One could not be checked.
        """
        self._pages.put_nowait(None)
        await asyncio.wait_for(self._task, _PATIENCE)
        return self.account

    async def close(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while (page := await self._pages.get()) is not None:
            kept = await self._check(page)
            if kept:
                shutil.rmtree(page)

    async def _check(self, page: Path) -> bool:
        here = Path(__file__).parents[2]
        process = await asyncio.create_subprocess_exec(
            *("nice", "-n", "19", sys.executable, "-m", "chaos.soak.checking", str(page)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
            start_new_session=True,
        )
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{page} could not be checked: {errors.decode()[-2000:]}")
        said = orjson.loads(output)
        self.account.add(int(page.name), said)
        return all(verdict["kept"] for verdict in said["verdicts"].values())
