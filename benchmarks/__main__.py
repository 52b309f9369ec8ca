"""`python -m benchmarks`: starts all servers, measures, and ends them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import arguments as arguments_of
from benchmarks import goals, machine, plots, report
from benchmarks.bench import Bench, Clock, say
from benchmarks.errors import BenchmarkError
from benchmarks.results import Results
from benchmarks.running import running
from benchmarks.scenarios import SCENARIOS

#: Longer than any run takes.
_LIMIT_SECONDS = (90 * 60, 12 * 60)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:14s} {scenario.what}" for name, scenario in SCENARIOS.items())
    parser = arguments_of.parser(
        "benchmarks",
        "Measures the bus beside what one would pick instead, in one run on this machine.",
        f"scenarios:\n{listed}\n\nIt starts its own servers on loopback and leaves nothing running. "
        "Exit status:\n0 all was measured (goals may be missed), 1 something could not be measured, 130 interrupted.",
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: short measurements, one round")
    parser.add_argument("--only", metavar="A,B", help="only these scenarios")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each scenario, in place of its own number")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=Path(".cache/bench"),
        help="where results.json and results.md go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--plots", type=Path, metavar="DIR", help="where the pictures go (default: beside the results)")
    arguments_of.add_data(parser)
    arguments = parser.parse_args(argv)
    arguments.only = arguments_of.chosen(parser, arguments.only, SCENARIOS, "scenario")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    arguments = _arguments(argv)
    clock = Clock()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = Results()
    try:
        with running(arguments.data, _LIMIT_SECONDS[arguments.quick]) as world:
            kind = machine.file_system(world.directory)
            if kind == "tmpfs":
                raise BenchmarkError(f"{world.directory} is in memory: say --data DIR with a directory on a disk")
            results.machine = machine.describe(world.directory)
            say(f"{results.machine['cores']} cores; {kind}; a flush takes {results.machine['flush_ms']['p50']} ms")
            results.settings = {"quick": arguments.quick, "rounds": {}}
            _measure(arguments, Bench(world, results, arguments.quick, (arguments.output / "processes.log").resolve()))
    except KeyboardInterrupt:
        say("interrupted; nothing is left running, nothing was written")
        return 130
    except BenchmarkError as exc:
        say(f"error: {exc}")
        return 1
    results.settings["seconds"] = round(clock.seconds)
    return _report(results, arguments.output, arguments.plots or arguments.output)


def _measure(arguments: argparse.Namespace, bench: Bench) -> None:
    """Round by round, each over all systems and cases."""
    bench.log.unlink(missing_ok=True)
    for name in arguments.only:
        scenario = SCENARIOS[name]
        rounds = arguments.rounds or scenario.rounds[arguments.quick]
        bench.results.settings["rounds"][name] = rounds
        say(f"==> {name}: {scenario.what}")
        clock = Clock()
        for number in range(1, rounds + 1):
            say(f"  round {number} of {rounds}")
            bench.scenario, bench.round = name, number
            with bench.attempt("round"):
                scenario.run(bench)
        say(f"    {name}: done in {clock.seconds:.0f} s")
    (version,) = bench.world.postgres.query("show server_version")[0]
    bench.results.settings["postgresql"] = version


def _report(results: Results, output: Path, pictures: Path) -> int:
    verdicts = goals.evaluate(results)
    report.write(results, verdicts, output)
    for path in plots.draw(results, pictures):
        say(f"drew {path}")
    print(report.goals_table([verdict for verdict in verdicts if verdict.measured is not None]))
    missed = sum(verdict.met is False for verdict in verdicts)
    say(f"{sum(verdict.met is True for verdict in verdicts)} goals met, {missed} missed; see {output / 'results.md'}")
    for what, why in results.failures.items():
        say(f"not measured: {what}: {why.splitlines()[-1]}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
