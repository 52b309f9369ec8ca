"""A process whose subscriber stalls, on a real server: its memory stays within its limits, and nothing is lost."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import bus_runtime
from bus_runtime import BusJobUpdateRequestMessage, IsolatedPgmqBackend, JoinOptions, JSONMessageSerializer

MESSAGES = 100_000
MIB = 1024 * 1024

Report = dict[str, Any]


class Stalled:
    """`stalled_subscriber.py` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, word: str = "report") -> Report:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        report: Report = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 30))
        return report

    async def until(self, condition: Callable[[Report], bool]) -> Report:
        async with asyncio.timeout(120):
            while not condition(report := await self.say()):
                await asyncio.sleep(0.02)
        return report


@asynccontextmanager
async def stalled(bindings: Path, **options: Any) -> AsyncIterator[Stalled]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("stalled_subscriber.py")),
        str(bindings),
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(bus_runtime.__file__).parents[1])},
    )
    try:
        yield Stalled(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def publish(bindings: Path) -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
    """Publishes numbered messages of so many bytes each, as fast as the server takes them."""
    serializer = JSONMessageSerializer()
    backend = IsolatedPgmqBackend.from_binding(root=bindings)
    channel = bus_runtime.find_binding(root=bindings).channel

    async def publish_numbered(count: int, size: int) -> None:
        payloads = [
            serializer.serialize(BusJobUpdateRequestMessage(str(number), source="x" * (size - 120)))
            for number in range(count)
        ]
        step = min(1000, max(1, 2 * MIB // size))
        # Leaves again: a peer that follows the log and reads none of it would keep it from being trimmed.
        membership = await backend.join_channel(channel, JoinOptions())
        try:
            for first in range(0, count, step):
                await backend.publish_many(channel, membership.queue, payloads[first : first + step])
        finally:
            await backend.leave_channel(channel, membership.queue, forget=True)

    yield publish_numbered
    await backend.close()


@pytest.mark.slow
async def test_alone_it_leaves_a_hundred_thousand_messages_in_the_log(bindings: Path, publish: Any) -> None:
    async with stalled(bindings, quick=False) as process:
        before = await process.say()
        await publish(MESSAGES, 200)
        full = await process.until(lambda report: report["queued"] == 1000)
        assert full["lagging"] == {"slow": 0}
        assert full["queued_bytes"] < 300_000
        assert full["peak"] - before["peak"] < 24 * MIB
        await process.say("go")
        done = await process.until(lambda report: report["slow"] == MESSAGES)
        assert done["in_order"]
        assert done["queued"] == 0
        assert done["peak"] - before["peak"] < 24 * MIB


@pytest.mark.slow
async def test_beside_a_quick_one_it_holds_no_more_and_catches_up(bindings: Path, publish: Any) -> None:
    async with stalled(bindings, quick=True) as process:
        before = await process.say()
        await publish(MESSAGES, 200)
        full = await process.until(lambda report: report["quick"] == MESSAGES and report["queued"] == 1000)
        assert full["lagging"] == {"slow": MESSAGES - 1000}
        assert full["acknowledged"] == 0
        assert full["peak"] - before["peak"] < 32 * MIB
        await process.say("go")
        done = await process.until(lambda report: report["slow"] == report["acknowledged"] == MESSAGES)
        assert done["in_order"]
        assert (done["queued"], done["lagging"]) == (0, {})
        assert done["peak"] - before["peak"] < 32 * MIB


@pytest.mark.slow
async def test_large_messages_count_by_their_bytes(bindings: Path, publish: Any) -> None:
    async with stalled(bindings, quick=True, max_in_flight=100_000, max_in_flight_bytes=4 * MIB) as process:
        before = await process.say()
        await publish(1000, 64 * 1024)
        full = await process.until(lambda report: report["quick"] == 1000 and report["queued"] < 100)
        assert 4 * MIB <= full["queued_bytes"] < 4 * MIB + 65 * 1024
        # Besides what is held: a batch being read, in several stages from the socket to the message.
        assert full["peak"] - before["peak"] < 48 * MIB
        await process.say("go")
        done = await process.until(lambda report: report["slow"] == report["acknowledged"] == 1000)
        assert done["in_order"]
        assert done["peak"] - before["peak"] < 48 * MIB
