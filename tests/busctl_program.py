"""busctl as a user runs it: the installed program, with an environment of its own."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

BUSCTL = Path(sys.executable).parent / "busctl"

Result = subprocess.CompletedProcess[str]


def run(*arguments: str, directory: Path | None = None, **environment: str) -> Result:
    """Runs it; `environment` is added to this process's, without what would lead it elsewhere."""
    return subprocess.run(
        [BUSCTL, *arguments],
        cwd=directory, env=_environment(environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def complete(line: str, **environment: str) -> list[str]:
    """What a shell offers at the end of a command line."""
    words = {"_BUSCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return [offer.removeprefix("plain,") for offer in run(**words, **environment).stdout.split()]


def watch(*arguments: str, until: str, **environment: str) -> tuple[int, str]:
    """Runs it in a terminal until it has shown `until`, then presses Ctrl-C; its exit status and what it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 100, 0, 0))
    # xdist gives its processes a size of a terminal, which counts for more than the terminal's own.
    sized = {name: value for name, value in _environment(environment).items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([BUSCTL, *arguments], env=sized, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    try:
        while until not in shown.decode(errors="replace"):
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=60), shown.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _environment(changed: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "BUSCTL_DATABASE")}
    return inherited | {"HOME": "/nonexistent", "TERM": "xterm-256color"} | changed
