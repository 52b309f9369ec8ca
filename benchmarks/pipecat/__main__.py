"""`python -m benchmarks.pipecat`: starts the servers, measures in rounds over all systems, leaves nothing running."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from chaos.report import replace

from benchmarks import arguments as arguments_of
from benchmarks import machine
from benchmarks.bench import Bench, Clock, say
from benchmarks.errors import BenchmarkError
from benchmarks.pipecat import report, steady
from benchmarks.results import Results
from benchmarks.running import running
from benchmarks.scenarios import latency, throughput
from benchmarks.systems import PIPECAT

#: Longer than any run takes: for each round.
_LIMIT_SECONDS = 15 * 60
_PACKAGES = ("asyncpg", "orjson", "pgmq", "pipecat-ai")
#: How many subscribers, and how many bytes of payload.
_CASES = ((8, 200), (32, 200), (1, 65536))
_QUICK_CASES = ((8, 200), (1, 65536))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:14s} {what.replace('`', '')}" for name, what in PIPECAT.items())
    parser = arguments_of.parser(
        "benchmarks.pipecat",
        "Measures what pipecat's workers gain with our backend, beside what they have.",
        f"systems:\n{listed}\n\nExit status: 0 all was measured, 1 something could not be measured, and the "
        "page is as it was, 130 interrupted.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not who is faster")
    parser.add_argument("--only", metavar="A,B", help="only these systems")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 3, quickly 1")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=Path(".cache/bench/pipecat.json"),
        help="write the figures there, as JSON (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into this page")
    arguments_of.add_data(parser)
    arguments = parser.parse_args(argv)
    arguments.only = arguments_of.chosen(parser, arguments.only, PIPECAT, "system")
    if arguments.rounds is None:
        arguments.rounds = 1 if arguments.quick else 3
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    arguments = _arguments(argv)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    clock, results = Clock(), Results()
    try:
        with running(arguments.data, arguments.rounds * _LIMIT_SECONDS) as world:
            kind = machine.file_system(world.directory)
            # Quickly, it does not matter who is faster.
            if kind == "tmpfs" and not arguments.quick:
                raise BenchmarkError(f"{world.directory} is in memory: say --data DIR with a directory on a disk")
            packages = (*_PACKAGES, "redis") if "redis" in arguments.only else _PACKAGES
            results.machine = machine.describe(world.directory, packages)
            (version,) = world.postgres.query("show server_version")[0]
            results.settings = {"quick": arguments.quick, "rounds": arguments.rounds, "postgresql": version}
            log = (arguments.output.parent / "processes.log").resolve()
            log.unlink(missing_ok=True)
            _measure(Bench(world, results, arguments.quick, log), arguments.only, arguments.rounds)
    except KeyboardInterrupt:
        say("interrupted; nothing is left running, nothing was written")
        return 130
    except BenchmarkError as exc:
        say(f"error: {exc}")
        return 1
    results.settings["seconds"] = round(clock.seconds)
    arguments.output.write_text(json.dumps(report.document(results), indent=1) + "\n")
    table = report.table(results)
    print(table)
    if results.failures:
        for what, why in results.failures.items():
            say(f"not measured: {what}: {why.splitlines()[-1]}")
        return 1
    if arguments.page is not None:
        replace(arguments.page, report.NAME, table)
    return 0


def _measure(bench: Bench, systems: list[str], rounds: int) -> None:
    """Each measurement over all systems, in each round: what the machine does meanwhile strikes all alike."""
    cases = bench.pick(_CASES, _QUICK_CASES)
    measurements: list[tuple[str, Callable[[Bench, str], None]]] = [
        ("latency", latency.measure),
        ("steady", steady.measure),
        *(("throughput", partial(throughput.measure, subscribers=n, size=size)) for n, size in cases),
    ]
    for bench.round in range(1, rounds + 1):
        for bench.scenario, measure in measurements:
            say(f"  round {bench.round} of {rounds}: {bench.scenario}")
            for system in bench.rotated(systems):
                with bench.attempt(system):
                    measure(bench, system)


if __name__ == "__main__":
    sys.exit(main())
