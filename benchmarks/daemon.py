"""A server that the benchmark starts for itself: ended with the benchmark, however that ends."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


def unprivileged_user() -> str | None:
    """Whom to run a server as: PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def own(path: Path) -> None:
    """Let the servers' user write to `path`."""
    user = unprivileged_user()
    if user is not None:
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name: str, package: str) -> Path:
    """Where a program of a Debian package is; /usr/sbin is not on everybody's PATH.

    Raises:
        BenchmarkError: It is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/bin")))
    if found is None:
        raise BenchmarkError(f"{name} is missing: on Debian, apt-get install {package}")
    return Path(found)


def _end_with_parent() -> None:
    """In the new process: be told by the kernel when the benchmark is gone, even killed (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class Daemon:
    """A running server process.

    Args:
        name: For messages.
        argv: How to start it.
        log: Where its output goes.
        ready: Whether it answers.
    """

    def __init__(self, name: str, argv: Sequence[str | Path], log: Path, ready: Callable[[], bool]) -> None:
        self._name = name
        self._log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for the benchmark, which then ends its servers in order.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=unprivileged_user(),
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # no threads run when servers are started
            )
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchmarkError(f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the process that was started; its children belong to it."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
