"""Former versions of operator and runtime, frozen by hack/former.py, and workers that use them beside today's."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import postgres

FORMER = Path(__file__).parents[1] / "former"
TODAY = 0
"""Instead of a schema version: what is in this checkout."""

VERSIONS = tuple(sorted(int(path.stem.removeprefix("schema-")) for path in FORMER.glob("schema-*.zip")))
"""The schema versions of which there is an operator and a runtime."""

RATES = {"ours": 80.0, "reference": 10.0}
"""Messages a second that a worker publishes. The reference client takes some milliseconds for each that it reads."""

SECONDS = 120
"""In which whatever is waited for has come true on the slowest machine."""


def _environment(version: int) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return environment | ({"PYTHONPATH": str(FORMER / f"schema-{version}.zip")} if version else {})


async def run_operator(version: int, database: postgres.Database, *arguments: str) -> tuple[int, str]:
    """What the operator of that version does to the database: see installer.py. The exit status, and what it wrote.

    Cancelling it is kill -9.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, FORMER / "installer.py", database.dsn, *arguments,
        env=_environment(version), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode().strip()


async def create_channel(version: int, database: postgres.Database, name: str, **spec: Any) -> str:
    """Makes a channel as the operator of that version does; the URI of its login."""
    status, output = await run_operator(version, database, "channel", name, json.dumps(spec))
    assert status == 0, output
    return database.admin.endpoint.uri(*json.loads(output))


@dataclass
class Worker:
    """A process of worker.py."""

    name: str
    process: asyncio.subprocess.Process

    async def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        await self.process.stdin.drain()

    async def hear(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), SECONDS)
        assert line, f"{self.name} ended"
        return line.decode().strip()


@asynccontextmanager
async def worker(name: str, client: int | str, uri: str, channel: str) -> AsyncIterator[Worker]:
    """A worker that has joined. `client`: a schema version's runtime, TODAY's, or "reference"."""
    kind = "reference" if client == "reference" else "ours"
    process = await asyncio.create_subprocess_exec(
        sys.executable, FORMER / "worker.py", name, kind, uri, channel, str(RATES[kind]),
        env=_environment(0 if isinstance(client, str) else client),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    try:
        started = Worker(name, process)
        assert await started.hear() == "joined"
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finish(workers: list[Worker]) -> dict[str, dict[str, Any]]:
    """Ends the publishing, waits until everybody has received all, and lets them leave. What each has to tell."""
    for one in workers:
        await one.say("stop")
    published = {one.name: int(await one.hear()) for one in workers}
    for one in workers:
        so_far: dict[str, Any] = {}
        deadline = time.monotonic() + SECONDS
        while so_far.get("received") != published:
            assert time.monotonic() < deadline, f"{one.name}: {so_far} of {published}"
            await one.say("count")
            so_far = json.loads(await one.hear())
            await asyncio.sleep(0.05)
    for one in workers:
        await one.say("leave")
    return {one.name: json.loads(await one.hear()) for one in workers}
