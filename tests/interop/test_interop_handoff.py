"""The reference client's own two-process worker hand-off over what was provisioned; a bus of ours listens in."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder, eventually

SCRIPT = Path(__file__).parent / "handoff.py"


async def start(role: str, kind: str, bindings: Path) -> asyncio.subprocess.Process:
    environment = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "LOGURU_LEVEL": "ERROR"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", str(SCRIPT), role, kind, str(bindings),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize("kinds", [("reference", "reference"), ("ours", "reference")], ids=" and ".join)
async def test_two_runners_find_each_other_and_hand_over(
    kinds: tuple[str, str], bindings: Path, ours: Callable[..., Any]
) -> None:
    listener = Recorder()
    bus = await ours(listener)
    processes = [await start(role, kind, bindings) for role, kind in zip(("greeter", "specialist"), kinds, strict=True)]
    try:
        outputs = await asyncio.wait_for(asyncio.gather(*(p.communicate() for p in processes)), 240)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    (greeter, greeter_errors), (specialist, specialist_errors) = [(o.decode(), e.decode()) for o, e in outputs]
    # What the reference logs is not judged: on its way out it may publish with the queue that it has just left.
    assert [p.returncode for p in processes] == [0, 0], greeter_errors + specialist_errors
    assert greeter.splitlines() == [
        "greeter activated None",
        "specialist ready",
        "job {'sum': 6} [{'half': True}]",
        "greeter activated {'metadata': {'from': 'specialist'}}",
        "ended",
    ], greeter_errors
    assert specialist.splitlines() == [
        "specialist activated None",
        "specialist activated {'metadata': {'topic': 'sums'}}",
        "specialist deactivated",
        "ended",
    ], specialist_errors

    await eventually(lambda: bus.stats().acknowledged == bus.stats().position)
    assert bus.stats().undecodable == 0
    assert {type(message).__name__ for message in listener.messages} >= {
        "BusWorkerReadyMessage", "BusWorkerRegistryMessage", "BusJobRequestMessage", "BusJobUpdateMessage",
        "BusJobResponseMessage", "BusActivateWorkerMessage", "BusDeactivateWorkerMessage", "BusEndMessage",
    }  # fmt: skip
