"""Whoever ends `make chaos` in the middle of a fault finds the machine as it was."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


class Traces:
    """Of one run: its processes carry a mark in their environment, its files are below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = f"CHAOS_MARK={uuid.uuid4()}"

    def processes(self) -> Iterator[Path]:
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    yield path.parent
            except OSError:
                pass

    def servers(self) -> set[Path]:
        """The directories of PostgreSQL servers that run."""
        words = [(path / "cmdline").read_bytes().split(b"\0") for path in self.processes()]
        return {Path(os.fsdecode(each[2])).parent for each in words if each[1:2] == [b"-D"]}

    def chains(self) -> list[str]:
        ports = {path.read_text() for path in self.directory.rglob("orders/port")}
        rules = subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True, check=True).stdout
        return [port for port in ports if f"pgmq-bus-{port}" in rules]

    def left(self) -> list[str]:
        mounts = (
            Path("/proc/mounts").read_text()
            + subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
        )
        return [
            *(str(path) for path in self.processes()),
            *(line for line in mounts.splitlines() if str(self.directory) in line),
            *map(str, self.directory.iterdir()),
        ]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shared_memory() -> set[str]:
    """What is shared by a key (System V), by its number."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that the server's user can pass through."""
    with tempfile.TemporaryDirectory(prefix="pgmq-bus-interrupted-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left(which: signal.Signals, directory: Path) -> None:
    traces = Traces(directory)
    name, value = traces.mark.split("=")
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos", "--only", "disk-hangs+forgotten+workers-paused", "--seed", "1"],
        env=os.environ | {name: value, "TMPDIR": str(directory), "PYTHONPATH": f"{ROOT}/tests:{ROOT}"},
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(traces.chains, process)
        servers = traces.servers()
        assert servers
        segments = {(path / "data" / "postmaster.pid").read_text().split()[-2] for path in servers}
        assert segments <= shared_memory()
        (port,) = traces.chains()
        # Ctrl-C reaches all that belong to the terminal; whoever sends SIGTERM means one.
        (os.killpg if which == signal.SIGINT else os.kill)(process.pid, which)
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + which, said
    assert traces.left() == []
    assert not any(path.exists() for path in servers)
    assert not segments & shared_memory()
    rules = subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True, check=True).stdout
    assert f"pgmq-bus-{port}" not in rules
