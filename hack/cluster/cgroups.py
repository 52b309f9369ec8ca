"""The control groups of pods: one tree for each cluster, by which its processes are found and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from .console import ClusterError
from .layout import Layout

END_SECONDS = 20.0
POLL_SECONDS = 0.05
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


def name_of(layout: Layout) -> str:
    """Return the name of a cluster's tree below each root."""
    return f"pgmq-bus-{layout.name}"


def roots(mountinfo: str) -> list[Path]:
    """Return where the hierarchies are mounted: one for version 2, one for each controller for version 1.

    Args:
        mountinfo: the content of /proc/self/mountinfo, see proc(5).
    """
    found = []
    for line in mountinfo.splitlines():
        place, _, what = line.partition(" - ")
        if what.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(place.split()[4]))
    return found


def _trees(name: str) -> list[Path]:
    return [root / name for root in roots(Path("/proc/self/mountinfo").read_text())]


def create(name: str) -> None:
    """Have a tree of this name in each hierarchy: the kubelet wants its root to be there."""
    for tree in _trees(name):
        controllers = tree.parent / "cgroup.subtree_control"
        for controller in V2_CONTROLLERS if controllers.exists() else ():
            # Some may be bound to version 1 still; the kubelet names what it misses.
            with contextlib.suppress(OSError):
                controllers.write_text(f"+{controller}")
        tree.mkdir(exist_ok=True)


def end_processes(name: str) -> None:
    """End every process in the trees of this name.

    Raises:
        ClusterError: processes do not end.
    """
    deadline = time.monotonic() + END_SECONDS
    while pids := {pid for tree in _trees(name) for pid in _processes(tree)}:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of pods do not end: {sorted(pids)}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def remove(name: str) -> None:
    """Remove the trees of this name, in which no process runs any more.

    Raises:
        ClusterError: the kernel keeps holding one.
    """
    deadline = time.monotonic() + END_SECONDS
    while remaining := [directory for tree in _trees(name) for directory in _groups(tree)]:
        for directory in remaining:
            # Busy for a moment after its last process: tried again.
            with contextlib.suppress(OSError):
                directory.rmdir()
        if time.monotonic() > deadline:
            raise ClusterError(f"control groups cannot be removed: {', '.join(map(str, remaining))}")


def _groups(tree: Path) -> list[Path]:
    """Return a tree's groups, leaves first; os.walk does not mind those that go meanwhile."""
    return [Path(directory) for directory, _, _ in os.walk(tree, topdown=False)]


def _processes(tree: Path) -> set[int]:
    pids: set[int] = set()
    for group in _groups(tree):
        with contextlib.suppress(OSError):  # it went meanwhile
            # 0 stands for a process of another PID namespace, which no signal of ours reaches.
            pids |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()} - {0}
    return pids
