"""What a run of `busctl dev` started, and how it is ended when busctl itself was killed.

Whatever is started is written down first thing in `.busctl/run.json`. Run as a program with the folder as its argument,
this waits until its standard input ends, which is when busctl is gone, and ends what is written there; so it needs
nothing but the standard library. If it is killed as well, the next start does the same.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["worker", "server"]

HOW_TO_END: dict[Kind, tuple[tuple[signal.Signals, float], ...]] = {
    "worker": ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)),
    # SIGQUIT: at once, and its own processes with it; within five seconds by force, see PostgreSQL's "Shutting Down".
    "server": ((signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)),
}
"""Signals, and the seconds that each is given. Workers are ended before the server."""

EPHEMERAL = "run"
"""The entry of the folder with the data of a run that keeps none; a link where the server runs as another user."""

DATA_PREFIX = "busctl-"
"""How the directory that such a link leads to begins, so that no other is ever removed."""

_TICK = 0.05


def started(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None when there is none."""
    try:
        # The 22nd field; the second is a name that may contain anything but is in parentheses: proc(5).
        since = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{since}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    with contextlib.suppress(OSError):
        told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return told.stdout.strip() or None
    return None


def group_exists(pid: int) -> bool:
    """Whether any process is left of the group that this process leads or led."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[bool]:
    """Holds the folder's lock, which ends with the process however that ends. False: it was not to be had in time."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(_TICK)
            else:
                yield True
                return
    finally:
        os.close(handle)


def recover(folder: Path) -> bool:
    """Ends what is still there of a run that was killed; whether there was one. Whoever calls it has the lock."""
    path = folder / "run.json"
    try:
        noted: list[dict[str, Any]] = json.loads(path.read_text())["processes"]
    except (FileNotFoundError, ValueError, KeyError):
        noted = []
    for kind in HOW_TO_END:
        for item in noted:
            if item["kind"] == kind and _is_the_same(item["pid"], item["started"]):
                _end(item["pid"], kind)
    found = path.exists() or os.path.lexists(folder / EPHEMERAL)
    remove_data(folder)
    path.unlink(missing_ok=True)
    return found


def remove_data(folder: Path) -> None:
    """Removes the data of a run that keeps none."""
    entry = folder / EPHEMERAL
    if entry.is_symlink():
        target = entry.readlink()
        if target.name.startswith(DATA_PREFIX):
            shutil.rmtree(target, ignore_errors=True)
        entry.unlink()
    else:
        shutil.rmtree(entry, ignore_errors=True)


def _is_the_same(pid: int, since: str) -> bool:
    """Whether the process is there, or only others of its group: no new process gets the number of a group."""
    now = started(pid)
    return now == since or (now is None and group_exists(pid))


def _end(pid: int, kind: Kind) -> None:
    for signum, seconds in HOW_TO_END[kind]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)
        deadline = time.monotonic() + seconds
        while group_exists(pid):
            if time.monotonic() > deadline:
                break
            time.sleep(_TICK)
        else:
            return


def main() -> None:
    """Waits for the end of busctl, and cleans up if that was not done."""
    folder = Path(sys.argv[1])
    sys.stdin.buffer.read()
    if not (folder / "run.json").exists():
        return
    # If somebody else is faster, he does it.
    with locked(folder, 5.0) as ours:
        if ours:
            recover(folder)


if __name__ == "__main__":
    main()
