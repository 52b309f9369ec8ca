"""What only the machine's administrator may do: file systems of their own, packets that are dropped."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

#: ioctl_fs(2), FIFREEZE and FITHAW: whoever writes waits.
_FREEZE, _THAW = 0xC0045877, 0xC0045878

#: EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH, fs/ext4/ext4.h: what xfstests has power fail with.
_SHUTDOWN, _WITHOUT_FLUSHING = 0x8004587D, 2

#: Seconds that a process which was killed may take to be gone.
_PATIENCE = 20.0


class NeedsRootError(Exception):
    """This fault can only be made as root."""


def _run(*command: str | Path, what: str) -> None:
    if os.geteuid() != 0:
        raise NeedsRootError(f"{what} needs root: {' '.join(map(str, command))}")
    # In a session of its own, so that Ctrl-C does not reach it: it may be what cleans up.
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
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


def lose_power(mounted: Path) -> None:
    """Forget what the file system holds in memory and was not told to write down; nothing can be read or written."""
    descriptor = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
    finally:
        os.close(descriptor)


def mount_again(mounted: Path) -> None:
    """After `lose_power`: with what is on the disk.

    Raises:
        RuntimeError: Somebody has files open there and does not end, or has a copy of the mount in a namespace.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _run("umount", mounted, what="unmounting")
        except RuntimeError:
            # Processes that were killed close their files in their own time.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            break
    image = mounted.with_name("image")
    # Whoever made a mount namespace meanwhile keeps it alive, and mounting would give the same dead one again.
    while _is_attached(image):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{image} is mounted in another namespace, which does not end")
        time.sleep(0.05)
    _run("mount", "-o", "loop", image, mounted, what="a file system of its own")


def _is_attached(image: Path) -> bool:
    """Whether a loop device has it, which it does for as long as it is mounted anywhere."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return any(_text_of(file) == str(image) for file in backing)


def _text_of(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        # Detached between being found and being read.
        return ""


class Wall:
    """Drops packets of loopback without a word, as a firewall does, or a network that is gone.

    Args:
        *ports: Packets of TCP from and to these ports.
    """

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self._chain = f"pgmq-bus-{ports[0]}"
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
        for port in self._ports:
            for side in ("--dport", "--sport"):
                rule = ("INPUT", "-i", "lo", "-p", "tcp", side, str(port), "-j", self._chain)
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
