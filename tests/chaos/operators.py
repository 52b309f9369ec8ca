"""Kills the operator between its steps, and breaks it and Kubernetes under it; tells what came of it.

python -m chaos.operators                 at some points of each scenario: twelve minutes
python -m chaos.operators --seconds inf   before every single step: an hour
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson
from chaos import report, results
from chaos.results import Broken, Killed

ROOT = Path(__file__).parents[2]

SUITES = (
    # At the same time: a process takes a directory of its own.
    ("--numprocesses=2", "tests/database/test_killed.py", "tests/operator/test_killed.py"),
    ("tests/operator/test_faults.py",),
)
"""Arguments of pytest, for one run after the other."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.operators", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=8.0, metavar="N", help="for each scenario; default: 8")
    add("--seed", type=int, help="decides at which points an operator is killed first; default: another each time")
    add("--output", type=Path, metavar="FILE", help="results as JSON")
    add("--page", type=Path, metavar="FILE", help="page to write the tables of results into")
    return parser.parse_args(arguments)


def table_of_killed(found: Sequence[Killed], seed: int) -> str:
    """Before how many of its steps the operator was killed in each scenario, by suite."""
    suites = sorted({result.suite for result in found})
    by_scenario = {
        scenario: {result.suite: result for result in found if result.scenario == scenario}
        for scenario in sorted({result.scenario for result in found})
    }
    cells = [["what the operator does", *suites], ["---"] + ["---:"] * len(suites)]
    for scenario, by_suite in by_scenario.items():
        cells.append([scenario, *(_killed(by_suite[suite]) if suite in by_suite else "" for suite in suites)])
    killed, same, steps = (sum(getattr(item, name) for item in found) for name in ("killed", "same", "steps"))
    summary = f"Seed {seed}: killed before {killed:,} of {steps:,} steps, and {same:,} times the end was the same."
    return "\n".join([summary, "", *report.rows(cells)])


def _killed(result: Killed) -> str:
    told = f"{result.killed} of {result.steps}"
    return told if result else f"**{told}, {result.killed - result.same} otherwise**"


def table_of_broken(found: Sequence[Broken]) -> str:
    """How long pods waited for messages, and how long the operator took afterwards."""
    cells = [
        ["what breaks", "longest time without a message", "the operator has done its work"],
        ["---", "---:", "---:"],
    ]
    for result in found:
        recovery = "never" if result.recovery is None else f"after {result.recovery:.1f} s"
        cells.append([result.title, f"{result.pause:.2f} s", recovery if result else f"**{recovery}**"])
    return "\n".join(report.rows(cells))


def write_tables(page: Path, found: Sequence[results.Result], seed: int) -> None:
    """Replace those in a page."""
    killed = results.of_kind(found, Killed)
    for name, processes in (("statements", False), ("processes", True)):
        chosen = [result for result in killed if (result.suite == results.PROCESS) == processes]
        report.replace(page, name, table_of_killed(chosen, seed))
    report.replace(page, "kubernetes", table_of_broken(results.of_kind(found, Broken)))


def to_json(found: Sequence[results.Result], seed: int) -> bytes:
    """All that is known."""
    kinds = {"killed": results.of_kind(found, Killed), "broken": results.of_kind(found, Broken)}
    return orjson.dumps({"seed": seed, **kinds}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def run(seconds: float, seed: int) -> tuple[list[results.Result], bool]:
    """What came of it, and whether all is as it should be."""
    with tempfile.TemporaryDirectory(prefix="pgmq-bus-chaos-") as directory:
        file = Path(directory) / "results"
        environment = results.environment(file, seconds, seed)
        passed = [
            subprocess.run(
                [sys.executable, "-m", "pytest", "-v", *arguments], cwd=ROOT, env=os.environ | environment, check=False
            ).returncode
            == 0
            for arguments in SUITES
        ]
        found = results.read(file) if file.exists() else []
    return found, all(passed) and all(found)


def main() -> int:
    """Exit status 1: the end was another, or something did not recover."""
    wanted = parse()
    seed = secrets.randbelow(1_000_000) if wanted.seed is None else wanted.seed
    print(f"seed {seed}", flush=True)
    found, good = run(wanted.seconds, seed)
    if wanted.output is not None:
        wanted.output.write_bytes(to_json(found, seed))
    if wanted.page is not None:
        write_tables(wanted.page, found, seed)
    killed = results.of_kind(found, Killed)
    print(
        f"\nKilled {sum(item.killed for item in killed)} times: {sum(item.same for item in killed)} times the same end."
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
