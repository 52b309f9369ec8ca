"""Breaks the bus in every way there is, and tells what became of its promises.

python -m chaos                          all nemeses, each alone, then combinations of them
python -m chaos --only restart,cut+restart
python -m chaos --list
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chaos import report
from chaos.nemeses.catalog import NEMESES, combination, find
from chaos.nemeses.nemesis import Nemesis
from chaos.recovery import GOAL
from chaos.run import Outcome, run
from chaos.seeds import seeds

#: Those which the reference client takes part in when they strike alone; it costs seconds to start.
_WITH_PIPECAT = ("server-killed", "restart", "sessions-terminated", "disk-full", "cut", "delayed", "clock-forward")

#: Of combinations that it can take part in, a third.
_ODDS_OF_PIPECAT = 1 / 3

_VERSION = 18
_VERSIONS = (15, 16, 17, 18)

#: npm's servers come without pg_basebackup.
_VERSIONS_WITH_STANDBY = (15, 18)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", metavar="A,B+C", help="only these, and combinations of them")
    add("--rounds", type=int, default=30, metavar="N", help="combinations at most; default: 30")
    add("--minutes", type=float, default=15.0, metavar="N", help="begin no run after so long; default: 15")
    add("--seed", type=int, help="repeats what is left to chance: combinations and moments; default: another each time")
    add("--version", type=int, choices=_VERSIONS, help=f"of PostgreSQL; default: {_VERSION}, and any for combinations")
    add("--output", type=Path, metavar="FILE", help="results as JSON")
    add("--page", type=Path, metavar="FILE", help="page to write the table of results into")
    add("--histories", type=Path, metavar="DIR", help="keep the histories of all runs there")
    add("--list", action="store_true", help="say what nemeses there are")
    return parser.parse_args(arguments)


def plan(only: str | None, rounds: int, rng: random.Random) -> Iterator[tuple[type[Nemesis], ...]]:
    """What strikes in each run."""
    if only is not None:
        yield from [find(names) for names in only.split(",")]
        return
    yield from ((nemesis,) for nemesis in NEMESES.values())
    for _ in range(rounds):
        yield combination(rng)


async def strike(wanted: argparse.Namespace, seed: int, histories: Path) -> list[Outcome]:
    """All runs, one after the other.

    Raises:
        CancelledError: SIGINT, SIGTERM or SIGHUP ended it; everything that was started is gone.
    """
    me = asyncio.current_task()
    assert me is not None
    for which in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(which, me.cancel)
    deadline = time.monotonic() + wanted.minutes * 60
    outcomes: list[Outcome] = []
    with seeds() as servers:
        for number, nemeses in enumerate(plan(wanted.only, wanted.rounds, random.Random(seed)), 1):
            if time.monotonic() > deadline:
                print(f"the time is up: {len(outcomes)} runs", flush=True)
                break
            names = "+".join(nemesis.name for nemesis in nemeses)
            print(f"{number:3} {names:60} ", end="", flush=True)
            # Of its own, so that a run can be repeated alone.
            rng = random.Random(f"{seed} {names}")
            directory = histories / f"{number:02}-{names}"
            outcome: Outcome | None = None
            try:
                outcome = await run(nemeses, servers, directory, rng, **choose(nemeses, wanted.version, rng))
            finally:
                if wanted.histories is None and (outcome or outcome is None):
                    shutil.rmtree(directory, ignore_errors=True)
            print(f"{outcome} ({outcome.seconds:.0f} s)", flush=True)
            outcomes.append(outcome)
    return outcomes


def choose(nemeses: Sequence[type[Nemesis]], version: int | None, rng: random.Random) -> dict[str, Any]:
    """What the layout of a run has besides what its nemeses need."""
    alone = len(nemeses) == 1
    standby = any(each.layout.standby for each in nemeses)
    any_version = rng.choice(_VERSIONS_WITH_STANDBY if standby else _VERSIONS)
    lucky = rng.random() < _ODDS_OF_PIPECAT
    pipecat = nemeses[0].name in _WITH_PIPECAT if alone else lucky and all(each.with_pipecat for each in nemeses)
    return {"version": version or (_VERSION if alone else any_version), "pipecat": pipecat}


def main() -> int:
    """Exit status 1: a promise was broken, a recovery took too long, or a run was worth nothing; 2: usage."""
    wanted = parse()
    if wanted.list:
        for name, nemesis in NEMESES.items():
            print(f"{name:30} {nemesis.title}")
        return 0
    seed = secrets.randbelow(1_000_000) if wanted.seed is None else wanted.seed
    try:
        list(plan(wanted.only, 0, random.Random(seed)))
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 2
    histories = wanted.histories or Path(tempfile.mkdtemp(prefix="pgmq-bus-chaos-"))
    print(f"seed {seed}", flush=True)
    try:
        outcomes = asyncio.run(strike(wanted, seed, histories))
    except (KeyboardInterrupt, asyncio.CancelledError) as exc:
        print("\ninterrupted; nothing that was started is left")
        return 128 + (signal.SIGINT if isinstance(exc, KeyboardInterrupt) else signal.SIGTERM)
    finally:
        if wanted.histories is None and not any(histories.iterdir()):
            histories.rmdir()
    if wanted.output is not None:
        wanted.output.write_bytes(report.to_json(outcomes, seed))
    if wanted.page is not None:
        report.write_table(wanted.page, outcomes, seed)
    failed = [outcome for outcome in outcomes if not outcome]
    if failed:
        print(
            f"\nBroken, or not delivering within {GOAL:.0f} s, in {len(failed)} of {len(outcomes)} runs; "
            f"histories: {histories}"
        )
        print(*(f"  {outcome.name}" for outcome in failed), sep="\n")
        return 1
    print(f"\nAll promises kept in {len(outcomes)} runs, and delivering again within {GOAL:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
