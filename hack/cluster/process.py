"""Daemons that outlive the command that started them.

Each daemon has a record: its process id, its start time and the boot it belongs to. A process id alone names another
process after the first has ended; with the start time it names one process for ever. A new process becomes the
program only once its record is written, so that no daemon runs unrecorded, whenever the command is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .commands import environment
from .console import ClusterError
from .files import write

LOG_LINES = 20
KILL_SECONDS = 20.0
POLL_SECONDS = 0.05
# Waits for a line, then becomes the program; ends by itself when the line will never come.
WAIT_FOR_RECORD = 'read -r recorded && exec "$0" "$@" </dev/null'


@dataclass(frozen=True)
class Program:
    """A daemon to run.

    Attributes:
        name: what it is called here.
        argv: how it is started.
        files: its configuration; a daemon started with another content is started anew.
    """

    name: str
    argv: Sequence[str]
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Record:
    """One started process, identified for ever, and what it was started with."""

    pid: int
    start_time: int
    boot_id: str
    argv: list[str]
    files: str


def boot_id() -> str:
    """Return the kernel's identifier of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it does not run (any more)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): fields after the parenthesised name, which may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def flags(values: Mapping[str, str]) -> list[str]:
    """Return command line options as Go's programs take them: `--name=value`."""
    return [f"--{name}={value}" for name, value in values.items()]


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


class Processes:
    """The daemons of one cluster.

    Args:
        records: directory of their records, one file a daemon.
        logs: directory of their output.
    """

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs
        self._children: list[subprocess.Popen[bytes]] = []

    def names(self) -> list[str]:
        """Return the names of all daemons ever started and not stopped, running or not."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def record(self, name: str) -> Record | None:
        """Return a daemon's record, None when it has none."""
        try:
            known = json.loads((self._records / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        # Whatever else an earlier version of this program wrote: what identifies the process is always there.
        identity = known["pid"], known["start_time"], known["boot_id"]
        return Record(*identity, known.get("argv", []), known.get("files", ""))

    def running(self, name: str) -> bool:
        """Return whether a daemon runs."""
        record = self.record(name)
        return record is not None and self._is_alive(record)

    def ensure(self, program: Program) -> bool:
        """Start a daemon unless it runs with this very command and configuration; return whether it was started."""
        record = self.record(program.name)
        if record is not None and self._is_alive(record):
            if record.argv == list(program.argv) and record.files == _digest(program.files):
                return False
            self.stop(program.name)
        self._start(program)
        return True

    def stop(self, name: str, grace_seconds: float = 10.0) -> None:
        """End a daemon, by force when it has not ended in the time of grace, and forget it."""
        record = self.record(name)
        if record is not None:
            self._end(record, grace_seconds)
            self._reap()
            (self._records / f"{name}.json").unlink()

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float, needs: Sequence[str] = ()) -> None:
        """Wait for a condition.

        Args:
            ready: the condition.
            what: the condition in words, for the error.
            seconds: how long to wait at most.
            needs: daemons without which it will never hold.

        Raises:
            ClusterError: the time is over or a needed daemon has ended; the text carries the end of the logs.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for name in needs:
                if not self.running(name):
                    raise ClusterError(f"{name} has ended while waiting for {what}\n{self.log_tail(name)}")
            if time.monotonic() > deadline:
                logs = "\n".join(self.log_tail(name) for name in needs)
                raise ClusterError(f"gave up waiting for {what} after {seconds:.0f} s\n{logs}")
            time.sleep(POLL_SECONDS)

    def log_tail(self, name: str) -> str:
        """Return the end of a daemon's output, with the path to all of it."""
        log = self._logs / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([f"--- end of {log}", *lines[-LOG_LINES:]])

    def _start(self, program: Program) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{program.name}.log"
        if path.exists():
            path.replace(path.with_suffix(".previous.log"))
        with path.open("wb") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", WAIT_FOR_RECORD, *program.argv],
                env=environment(),
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Kept only so that it is reaped should it end while this command still runs.
        self._children.append(child)
        record = Record(child.pid, start_time(child.pid) or 0, boot_id(), list(program.argv), _digest(program.files))
        write(self._records / f"{program.name}.json", json.dumps(asdict(record)))
        assert child.stdin is not None  # a pipe, as asked for above
        with contextlib.suppress(BrokenPipeError), child.stdin as gate:
            gate.write(b"recorded\n")

    def _is_alive(self, record: Record) -> bool:
        self._reap()
        return record.boot_id == boot_id() and start_time(record.pid) == record.start_time

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    def _end(self, record: Record, grace_seconds: float) -> None:
        try:
            handle = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return
        try:
            # The handle names whatever runs now under the id; checked after it was opened, it names ours.
            if not self._is_alive(record):
                return
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], grace_seconds)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                if not select.select([handle], [], [], KILL_SECONDS)[0]:
                    raise ClusterError(f"process {record.pid} does not end, even when killed: {record.argv}")
        except ProcessLookupError:
            return  # it ended by itself in between
        finally:
            os.close(handle)
