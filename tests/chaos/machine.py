"""What only the machine's administrator may do: file systems of their own, packets that are dropped."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

#: ioctl_fs(2), FIFREEZE and FITHAW: whoever writes waits.
_FREEZE, _THAW = 0xC0045877, 0xC0045878


class NeedsRootError(Exception):
    """This fault can only be made as root."""


def _run(*command: str | Path, what: str) -> None:
    if os.geteuid() != 0:
        raise NeedsRootError(f"{what} needs root: {' '.join(map(str, command))}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr.strip()}")


@contextmanager
def file_system(mebibytes: int) -> Iterator[Path]:
    """An ext4 of that size, for its own: it can be full, and it can hang.

    Raises:
        NeedsRootError: Only root may mount.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="pgmq-bus-disk-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        # The server's user gets through.
        directory.chmod(0o755)
        image, mounted = directory / "image", directory / "mounted"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        mounted.mkdir()
        # Nothing set aside for root, so that full is full for everybody.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", image, what="a file system of its own")
        _run("mount", "-o", "loop", image, mounted, what="a file system of its own")
        # Detached at once, gone with its last file.
        stack.callback(_run, "umount", "-l", mounted, what="unmounting")
        yield mounted


@contextmanager
def frozen(mounted: Path) -> Iterator[None]:
    """A file system on which nothing is written: who tries waits."""
    descriptor = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, _THAW, 0)
    finally:
        os.close(descriptor)


def fill(mounted: Path, spare: int) -> Path:
    """Leave about so many bytes of room; the file that takes the rest."""
    ballast = mounted / "ballast"
    with ballast.open("wb") as file:
        while True:
            room = os.statvfs(mounted)
            try:
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - spare)
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                # What the file system needs to note where the file is.
                spare += 64 << 10
            else:
                return ballast


class Wall:
    """Drops packets of loopback without a word, as a firewall does, or a network that is gone.

    Args:
        port: Packets of TCP from and to this port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._chain = f"pgmq-bus-{port}"
        self._stack = ExitStack()

    def put_up(self) -> None:
        """Drop all of them.

        Raises:
            NeedsRootError: Only root may.
        """
        self._iptables("-N", self._chain)
        self._stack.callback(self._iptables, "-X", self._chain)
        self._stack.callback(self._iptables, "-F", self._chain)
        self._iptables("-A", self._chain, "-j", "DROP")
        for side in ("--dport", "--sport"):
            rule = ("INPUT", "-i", "lo", "-p", "tcp", side, str(self._port), "-j", self._chain)
            self._iptables("-I", *rule)
            self._stack.callback(self._iptables, "-D", *rule)

    def open_but_for(self, ports: Iterable[int]) -> None:
        """Go on dropping the packets of connections whose other end is one of these ports."""
        for port in ports:
            for side in ("--dport", "--sport"):
                self._iptables("-I", self._chain, "-p", "tcp", side, str(port), "-j", "DROP")
        self._iptables("-A", self._chain, "-j", "RETURN")
        self._iptables("-D", self._chain, "-j", "DROP")

    def remove(self) -> None:
        """Drop nothing any more."""
        self._stack.close()

    def _iptables(self, *arguments: str) -> None:
        _run("iptables", "-w", *arguments, what="dropping packets")
