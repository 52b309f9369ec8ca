"""A directory and servers for one run, and how it ends whatever happens."""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.bench import say
from benchmarks.daemon import own
from benchmarks.world import World


@contextmanager
def running(data: Path, limit_seconds: int) -> Iterator[World]:
    """Servers that are started when they are first needed, and a directory of theirs; nothing is left of either.

    Args:
        data: An existing directory on the disk to be measured.
        limit_seconds: Longer than any run takes: what hangs is ended.

    Raises:
        KeyboardInterrupt: It was told to end, or took too long.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    signal.alarm(limit_seconds)
    directory = Path(tempfile.mkdtemp(prefix="pgmq-bus-bench-", dir=data))
    try:
        # The servers' user passes through it.
        directory.chmod(0o755)
        own(directory)
        with World(directory) as world:
            yield world
    finally:
        signal.alarm(0)
        shutil.rmtree(directory, ignore_errors=True)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGALRM:
        say(f"ended after {time.process_time():.0f} s of work: something hangs")
    raise KeyboardInterrupt
