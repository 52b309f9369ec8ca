"""Operators that start at once: forks of a process that has imported everything, which takes longer than all the rest.

As a program it reads a line of JSON from standard input for each operator, and answers with its process id.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


class ForkedProcess:
    """A process that is nobody's child here, with what is used of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Names this process for ever. The id does until the next start, when the fork server reaps what has ended.
        self._handle = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self._handle)

    def poll(self) -> int | None:
        """Something if it has ended; how is not known."""
        return 1 if select.select([self._handle], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        if not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked operator", timeout or 0)
        return 1

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts them.

    Args:
        kubeconfig: How all of them reach the API server: the client looks for it when it is imported.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"KUBECONFIG": str(kubeconfig), "TMPDIR": str(kubeconfig.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, environment: Mapping[str, str], log: Path) -> ForkedProcess:
        """An operator that writes to the end of `log`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"environment": dict(environment), "log": str(log)}), file=self._process.stdin, flush=True)
        return ForkedProcess(int(self._process.stdout.readline()))

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@contextmanager
def fork_server(kubeconfig: Path) -> Iterator[ForkServer]:
    server = ForkServer(kubeconfig)
    try:
        yield server
    finally:
        server.stop()


def _serve() -> None:
    from bus_operator.main import main

    for line in sys.stdin:
        request = json.loads(line)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if pid == 0:
            _become(main, **request)
        print(pid, flush=True)


def _become(program: Callable[[], None], environment: Mapping[str, str], log: str) -> None:
    """In the fork: never returns."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    # Found anew, from the environment.
    tempfile.tempdir = None
    sys.argv = ["bus-operator"]
    status = 1
    try:
        program()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
