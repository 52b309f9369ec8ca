"""An hour at half of the measured maximum, with faults at random: does anything break, grow or stay behind?

A real API server and operator own the channels; real workers exchange messages on them, and every one is checked.
Ctrl-C ends it early; what was measured until then is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import control_plane
from chaos.report import replace
from chaos.soak import report
from chaos.soak.outcome import Outcome
from chaos.soak.plan import Plan
from chaos.soak.run import soak

#: Seconds in which several signals are one: a terminal, a shell and `make` each send theirs.
_ONE_SIGNAL = 2.0

#: Longer, and the token of the operator's account ends, which kubelets would renew.
_MOST_MINUTES = 100.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=60.0, metavar="N", help="how long the load lasts; default: 60")
    add("--seed", type=int, help="repeats what is left to chance; default: another each time")
    add("--version", type=int, default=18, choices=(15, 16, 17, 18), help="of PostgreSQL; default: 18")
    add("--output", type=Path, metavar="FILE", help="results as JSON")
    add("--page", type=Path, metavar="FILE", help="page to write the table of results into")
    add("--picture", type=Path, metavar="FILE", help="picture of memory over time")
    add("--keep", type=Path, metavar="DIR", help="keep logs, and histories that are not as promised, there")
    wanted = parser.parse_args(arguments)
    if not 0 < wanted.minutes <= _MOST_MINUTES:
        parser.error(f"--minutes: more than 0, at most {_MOST_MINUTES:.0f}")
    return wanted


async def run(plan: Plan, directory: Path) -> Outcome:
    """The soak. The first Ctrl-C ends the load, another one everything."""
    ending = asyncio.Event()
    first = 0.0
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        nonlocal first
        if not ending.is_set():
            print("\nending; once more ends at once", flush=True)
            first = time.monotonic()
            ending.set()
        elif time.monotonic() > first + _ONE_SIGNAL:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    processes = control_plane.running()
    started = await asyncio.to_thread(processes.__enter__)
    try:
        return await soak(plan, started, directory, ending)
    finally:
        await asyncio.to_thread(processes.__exit__, None, None, None)


def main() -> int:
    """Exit status 1: something is not as promised; 2: usage; 130: interrupted, and nothing was wrong until then."""
    wanted = parse()
    seed = secrets.randbelow(1_000_000) if wanted.seed is None else wanted.seed
    plan = Plan(seconds=wanted.minutes * 60, seed=seed, version=wanted.version)
    if wanted.keep is not None:
        wanted.keep.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="pgmq-bus-soak-", dir=wanted.keep))
    print(f"seed {seed}", flush=True)
    outcome = None
    try:
        outcome = asyncio.run(run(plan, directory))
    except asyncio.CancelledError:
        return 130
    finally:
        if outcome is not None and not outcome.problems() and wanted.keep is None:
            shutil.rmtree(directory)
        else:
            print(f"logs and histories: {directory}")
    if wanted.output is not None:
        wanted.output.write_bytes(report.to_json(outcome))
    if wanted.page is not None:
        replace(wanted.page, report.NAME, report.table(outcome))
    if wanted.picture is not None and not report.draw(outcome, wanted.picture):
        print("no picture: matplotlib is missing (make bench-setup)")
    print(f"\n{report.table(outcome)}\n")
    problems = outcome.problems()
    if problems:
        print("NOT AS PROMISED:", *(f"  {problem}" for problem in problems), sep="\n")
        return 1
    return 130 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
