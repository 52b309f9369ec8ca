"""What the user sees: one line for each step with the time it took, and errors that say what to do."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

REPORT_EVERY_SECONDS = 15.0


class ClusterError(Exception):
    """A failure the user can act upon; its text names the object and the remedy."""


def say(text: str) -> None:
    """Write a line to standard error: standard output carries only what another program would read."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds as a reader wants them: `3.2s`, `2m05s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


@contextlib.contextmanager
def step(what: str, usually: str = "") -> Iterator[None]:
    """Announce a step, say at intervals that it still runs, and say how long it took.

    Args:
        what: the step, as a phrase (`starting etcd`).
        usually: how long it usually takes, for steps long enough to make one wonder.
    """
    say(f"==> {what}" + (f" (usually {usually})" if usually else ""))
    started = time.monotonic()
    over = threading.Event()

    def report() -> None:
        while not over.wait(REPORT_EVERY_SECONDS):
            say(f"    … {what}: {duration(time.monotonic() - started)}")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()
    say(f"    {what}: done in {duration(time.monotonic() - started)}")
