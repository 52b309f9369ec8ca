"""`python -m benchmarks.operator_scale`: starts a cluster, measures, and leaves nothing running."""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import arguments as arguments_of
from benchmarks import machine
from benchmarks.operator_scale.figures import Figure, table
from benchmarks.operator_scale.rows import ROWS
from benchmarks.operator_scale.scale import Scale
from benchmarks.operator_scale.world import ScaleWorld, running, say

#: Longer than any run takes; what hangs is ended.
_LIMIT_SECONDS = 60 * 60

_TITLE = "# The operator at full size"

_PACKAGES = ("aiohttp", "asyncpg", "kopf", "kubernetes", "pydantic")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:18s} {row.what}" for name, row in ROWS.items())
    parser = arguments_of.parser(
        "benchmarks.operator_scale",
        "Measures the operator with thousands of BusChannels, on an API server of its own.",
        f"rows:\n{listed}\n\nExit status: 0 all was measured (goals may be missed), 1 something could not be"
        " measured, 130 interrupted.",
    )
    parser.add_argument("--only", metavar="A,B", help="only these rows")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="a smaller cluster, such as 0.1")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the figures there, as JSON, and beside it as a table"
    )
    arguments = parser.parse_args(argv)
    arguments.only = arguments_of.chosen(parser, arguments.only, ROWS, "row")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0, and at most 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    arguments = _arguments(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    signal.alarm(_LIMIT_SECONDS)
    begun = time.monotonic()
    scale = Scale().times(arguments.scale)
    figures: list[tuple[str, Figure]] = []
    failures: dict[str, str] = {}
    try:
        with running(scale) as world:
            for name in arguments.only:
                _measure(world, name, figures, failures)
    except KeyboardInterrupt:
        say("interrupted; nothing is left running, nothing was written")
        return 130
    if arguments.output is not None:
        _write(arguments.output, scale, figures, failures, time.monotonic() - begun)
    print(table(figures))
    return 1 if failures else 0


def _measure(world: ScaleWorld, name: str, figures: list[tuple[str, Figure]], failures: dict[str, str]) -> None:
    """Let the others be measured when one cannot be, whatever the reason: a run takes long."""
    say(f"==> {name}: {ROWS[name].what}")
    begun = time.monotonic()
    try:
        found = ROWS[name].measure(world)
    except Exception:
        failures[name] = traceback.format_exc()
        say(
            f"    could not be measured: {failures[name]}\n"
            f"    the operator's log ends with:\n{world.operator.log[-3000:]}"
        )
        return
    figures.extend((name, figure) for figure in found)
    for figure in found:
        say(f"    {figure.what}: {figure.measured:.3g} {figure.unit}")
    say(f"    {name}: done in {time.monotonic() - begun:.0f} s")


def _write(
    path: Path, scale: Scale, figures: list[tuple[str, Figure]], failures: dict[str, str], seconds: float
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine.describe(path.parent, _PACKAGES),
        "scale": vars(scale),
        "seconds": round(seconds),
        "figures": [figure.as_json(row) for row, figure in figures],
        "failures": failures,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    path.with_suffix(".md").write_text(f"{_TITLE}\n\n{table(figures)}\n")


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
