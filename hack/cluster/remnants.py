"""What a cluster's daemons leave behind, removed whether or not the daemons ended in good order."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from pathlib import Path

from .commands import run
from .console import ClusterError
from .layout import Layout

SHIM = "containerd-shim"
END_SECONDS = 10.0


def end_shims(socket: Path, sockets: list[Path]) -> None:
    """End the processes that containerd keeps beside each pod; they outlive it.

    Args:
        socket: containerd's, which their command lines carry.
        sockets: their own, which they leave behind.
    """
    deadline = time.monotonic() + END_SECONDS
    while shims := _shims(socket):
        if time.monotonic() > deadline:
            raise ClusterError(f"containerd's shims do not end: {shims}")
        for pid in shims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for path in sockets:
        path.unlink(missing_ok=True)


def _shims(socket: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(arguments[0]).name.startswith(SHIM) and str(socket) in arguments:
                found.append(int(process.name))
    return found


def mounts_below(mountinfo: str, directories: list[Path]) -> list[Path]:
    """Return the mount points within directories, the last mounted first.

    Args:
        mountinfo: the content of /proc/self/mountinfo, see proc(5).
        directories: absolute paths.
    """
    points = [Path(_unescape(line.split()[4])) for line in mountinfo.splitlines()]
    return [p for p in reversed(points) if any(p.is_relative_to(d) for d in directories)]


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def unmount_below(directories: list[Path]) -> None:
    """Unmount everything within directories."""
    resolved = [d.resolve() for d in directories]
    for point in mounts_below(Path("/proc/self/mountinfo").read_text(), resolved):
        run(["umount", "--lazy", str(point)])


def delete(directories: list[Path]) -> None:
    """Delete directories, never through a mount.

    Raises:
        ClusterError: something is still mounted within.
    """
    resolved = [d.resolve() for d in directories]
    if mounted := mounts_below(Path("/proc/self/mountinfo").read_text(), resolved):
        raise ClusterError(f"still mounted, so nothing was deleted: {', '.join(map(str, mounted))}")
    for directory in resolved:
        if directory.exists():
            shutil.rmtree(directory)


def unlink_container_logs(layout: Layout) -> None:
    """Remove the links that the kubelet makes to containers' logs; their place cannot be configured."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(layout.state):
            link.unlink()
