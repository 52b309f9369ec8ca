"""How `busctl dev` runs and ends workers, and what becomes of them when it is killed itself."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from busctl_run import gone, is_running
from recorder import eventually

from bus_operator.cli.dev import workspace
from bus_operator.cli.dev.workers import Command, Worker
from bus_operator.cli.dev.workspace import Workspace
from bus_operator.errors import StartError

Lines = list[tuple[str, bool]]
MakeWorker = Callable[..., Worker]

STUBBORN = """
import os, signal, subprocess, sys, time
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
LEAVES_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    with workspace.opened(tmp_path / ".busctl", keep=False) as opened:
        yield opened


@pytest.fixture
def printed() -> Lines:
    return []


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def worker(space: Workspace, printed: Lines, told: list[str]) -> MakeWorker:
    async def say(_: str, line: str, is_error: bool) -> None:
        printed.append((line, is_error))

    def make(program: str, grace: float = 10, arguments: tuple[str, ...] | None = None) -> Worker:
        command = Command("worker", arguments or (sys.executable, "-u", "-c", program))
        return Worker(command, os.environ, space, say=say, tell=lambda _, text: told.append(text), grace=grace)

    return make


async def test_what_it_prints_and_how_it_ends(worker: MakeWorker, printed: Lines, told: list[str]) -> None:
    running = worker(
        "import sys; print('a'); print('b', file=sys.stderr); sys.stdout.write('x' * 100_000); sys.exit(3)"
    )
    await running.start()
    await running.wait()
    assert running.status == 3
    assert told[1:] == ["ended with status 3"]
    assert ("b", True) in printed
    output = [line for line, is_error in printed if not is_error]
    assert output[0] == "a"
    assert "".join(output[1:]) == "x" * 100_000


async def test_it_is_asked_and_then_made_to_end(worker: MakeWorker, printed: Lines, told: list[str]) -> None:
    """With all that it started; and it can be started again."""
    running = worker(STUBBORN, grace=0.2)
    for _ in range(2):
        printed.clear()
        await running.start()
        await eventually(lambda: printed)
        pids = [int(pid) for pid in printed[0][0].split()]
        await running.stop()
        assert told[-1] == "does not end, and is killed"
        assert gone(*pids, seconds=5)
        assert running.status is None


async def test_whoever_is_in_a_hurry_waits_for_nobody(worker: MakeWorker, printed: Lines) -> None:
    running = worker(STUBBORN, grace=600)
    await running.start()
    await eventually(lambda: printed)
    stopping = asyncio.create_task(running.stop())
    async with asyncio.timeout(10):
        while not stopping.done():
            await asyncio.sleep(0.05)
            running.hurry()


async def test_what_a_worker_leaves_behind_ends_with_it(worker: MakeWorker, printed: Lines, space: Workspace) -> None:
    running = worker(LEAVES_A_CHILD)
    await running.start()
    await running.wait()
    assert running.status == 0
    assert gone(int(printed[0][0]), seconds=5)
    assert '"processes": []' in (space.folder / "run.json").read_text()


@pytest.mark.parametrize(("program", "status"), [("./no-such-program", 127), ("/etc/passwd", 126)])
async def test_what_cannot_be_started(worker: MakeWorker, told: list[str], program: str, status: int) -> None:
    running = worker("", arguments=(program,))
    await running.start()
    await running.wait()
    await running.stop()
    assert running.status == status
    assert told == [f"cannot be started: {told[0].split(': ')[1]}: {program}"]


async def test_what_only_a_shell_would_start(worker: MakeWorker, told: list[str]) -> None:
    running = worker("", arguments=("GREET=1", "python", "x y.py"))
    await running.start()
    assert told == [
        "cannot be started: No such file or directory: GREET=1; no shell runs it: env GREET=1 python 'x y.py'"
    ]


def test_a_folder_is_used_by_one_at_a_time(space: Workspace) -> None:
    with (
        pytest.raises(StartError, match=rf"already \(process {os.getpid()}\)"),
        workspace.opened(space.folder, keep=False),
    ):
        pass


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from bus_operator.cli.dev import workspace

with workspace.opened(Path(sys.argv[1]), keep=False) as space:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    space.began(worker.pid, "worker")
    (space.data() / "pgdata").touch()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


def test_its_guard_ends_what_a_killed_one_left(tmp_path: Path) -> None:
    folder = tmp_path / ".busctl"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    data = (folder / "run").resolve()
    assert is_running(pid)
    assert data.is_dir()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with workspace.opened(folder, keep=False) as space:
        # Whoever of both was faster.
        assert gone(pid, seconds=5)
        assert not data.exists()
        assert list(folder.glob("run*")) == [space.folder / "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "lock"]
