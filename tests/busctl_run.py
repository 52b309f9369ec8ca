"""Commands of busctl that go on until they are ended: the program, in a folder, with what it prints as it comes."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BUSCTL = Path(sys.executable).parent / "busctl"

MANIFEST = """\
apiVersion: pgmqbus.dev/v1alpha1
kind: BusChannel
metadata: {{name: {name}}}
spec: {spec}
"""


def manifest(name: str = "orders", **spec: Any) -> str:
    return MANIFEST.format(name=name, spec=json.dumps(spec))


class BusctlRun:
    """One run. What it prints is kept in `lines`."""

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [BUSCTL, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A worker finds this Python's packages, as in an environment that is activated.
            env=os.environ | {"PATH": f"{BUSCTL.parent}:{os.environ['PATH']}"} | dict(environment or {}),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def close(self) -> None:
        """Ends it, if it has not ended."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        self.process.wait(60)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def until(self, text: str, seconds: float = 60) -> str:
        """The next line with that text, which is to come."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._coming.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise AssertionError(f"{text!r} did not come within {seconds} s:\n{self.output}") from None
            assert line is not None, f"it ended before {text!r} came:\n{self.output}"
            self.lines.append(line)
            if text in line:
                return line

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, when all that it printed is in `lines`."""
        status = self.process.wait(seconds)
        with suppress(queue.Empty):
            while (line := self._coming.get(timeout=10)) is not None:
                self.lines.append(line)
        return status

    def signal(self, signum: signal.Signals) -> None:
        """To busctl alone, as a terminal would: workers are in sessions of their own."""
        self.process.send_signal(signum)

    @property
    def noted(self) -> dict[str, list[int]]:
        """The processes that `busctl dev` has noted, by kind."""
        noted: dict[str, list[int]] = {}
        for item in json.loads((self.folder / ".busctl" / "run.json").read_text())["processes"]:
            noted.setdefault(item["kind"], []).append(item["pid"])
        return noted


@contextmanager
def busctl_run(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[BusctlRun]:
    """A run that is ended at the end, if it has not ended."""
    run = BusctlRun(folder, *arguments, environment=environment)
    try:
        yield run
    finally:
        run.close()


def is_running(pid: int) -> bool:
    """Whether the process is there, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*pids: int, seconds: float = 60) -> bool:
    """Waits until none of them is there."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
