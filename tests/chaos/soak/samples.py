"""Looks every few seconds at what could grow: processes, the server's sessions, tables, the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024

#: Seconds for the server's answer: one that is broken just now is looked at the next time.
_ANSWER = 5.0

_SERVER = """
select
    (select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class
        where relnamespace = 'pgmq'::regnamespace and relkind = 'r') as logs_bytes,
    (select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class
        where relnamespace = 'pgmq_bus'::regnamespace and relkind = 'r') as registry_bytes,
    (select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class
        where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r') as catalog_bytes,
    (select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables) as dead_rows,
    (select coalesce(sum(size), 0)::bigint from pg_ls_waldir()) as wal_bytes,
    (select count(*) from pg_roles where rolname ~ '^(bus|pgmq_bus)_') as roles,
    (select count(*) from pgmq_bus.peer) as peers
"""
_SESSIONS = """
select
    case
        when backend_type <> 'client backend' then 'auxiliary'
        when usename ~ '^bus_login_' then 'clients'
        else 'operator'
    end as kind,
    array_agg(pid) as pids
from pg_stat_activity where pid <> pg_backend_pid() group by 1
"""


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> Mapping[str, int]:
    """What is resident, and what of it nobody else has: anonymous pages. The others are files and shared memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(value.split()[0]) * _KIB for name, _, value in (line.partition(":") for line in lines)}
    return {"resident": sizes["Rss"], "private": sizes["Anonymous"], "proportional": sizes["Pss_Anon"]}


@dataclass(eq=False, slots=True)
class Series:
    """What was seen of one process, or of the server.

    Attributes:
        name: Whose; a process has its own, also after another one of the same name.
        kind: `runtime`, `pipecat`, `operator`, `server`.
        values: By what was looked at; `seconds` is when, since the beginning.
    """

    name: str
    kind: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, seconds: float, seen: Mapping[str, float]) -> None:
        """Another sample."""
        for what, value in {"seconds": seconds, **seen}.items():
            self.values.setdefault(what, []).append(value)


@dataclass(frozen=True, slots=True)
class Subject:
    """A process to look at.

    Attributes:
        name: See `Series`.
        kind: See `Series`.
        pid: Its id.
        tasks: Of its event loop, if it says so.
    """

    name: str
    kind: str
    pid: int
    tasks: int | None = None


class Sampler:
    """Looks at processes and at the server.

    Args:
        subjects: Says which processes there are.
        admin: Opens a session of a superuser.
        costs: Says how much processor time others have taken, by whom and by a process's id.
    """

    def __init__(
        self,
        subjects: Callable[[], Sequence[Subject]],
        admin: Callable[[], Any],
        costs: Callable[[], Mapping[tuple[str, int], float]],
    ) -> None:
        self.series: dict[str, Series] = {}
        self._subjects = subjects
        self._admin = admin
        self._costs = costs
        self._began = time.monotonic()
        self._cpu: dict[tuple[str, int], tuple[float, float]] = {}

    async def run(self, seconds: float) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(seconds)

    async def look(self) -> None:
        """A sample of everything that is there."""
        now = time.monotonic() - self._began
        subjects = self._subjects()
        # In a thread: the event loop has messages to pass on.
        looks = await asyncio.to_thread(lambda: [look_at(subject) for subject in subjects])
        for subject, seen in zip(subjects, looks, strict=True):
            if seen is not None:
                self._series(f"{subject.name} ({subject.pid})", subject.kind).add(now, seen)
                self._note_cpu((subject.kind, subject.pid), seen["cpu"])
        for whom, taken in self._costs().items():
            self._note_cpu(whom, taken)
        try:
            async with asyncio.timeout(_ANSWER):
                seen = await self._look_at_server()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return
        self._series("server", "server").add(now, seen)

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that each kind of process took between the first and the last look at it."""
        total: dict[str, float] = {}
        for (whom, _), (first, last) in self._cpu.items():
            total[whom] = total.get(whom, 0.0) + last - first
        return total

    def _note_cpu(self, whom: tuple[str, int], seconds: float) -> None:
        first, _ = self._cpu.get(whom, (seconds, seconds))
        self._cpu[whom] = first, seconds

    def _series(self, name: str, kind: str) -> Series:
        return self.series.setdefault(name, Series(name, kind))

    async def _look_at_server(self) -> dict[str, float]:
        session = await self._admin()
        try:
            seen = {name: float(value) for name, value in (await session.fetchrow(_SERVER)).items()}
            private = 0
            for kind, pids in await session.fetch(_SESSIONS):
                sizes = await asyncio.to_thread(_private, pids)
                seen |= {f"{kind}": len(sizes), f"{kind}_bytes": sum(sizes)}
                private += sum(sizes)
            return seen | {"private": private}
        finally:
            session.terminate()


def look_at(subject: Subject) -> dict[str, float] | None:
    """What a process holds; None: it has ended."""
    process = Path(f"/proc/{subject.pid}")
    try:
        seen: dict[str, float] = dict(memory(subject.pid))
        seen["files"] = sum(1 for _ in (process / "fd").iterdir())
        seen["threads"] = sum(1 for _ in (process / "task").iterdir())
        seen["cpu"] = cpu_seconds(subject.pid)
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None
    if subject.tasks is not None:
        seen["tasks"] = subject.tasks
    return seen


def _private(pids: Sequence[int]) -> list[int]:
    """Their shares of pages that no file and no shared memory has; what they have from the postmaster is divided."""
    sizes = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
            sizes.append(memory(pid)["proportional"])
    return sizes
