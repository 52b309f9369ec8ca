"""`python -m benchmarks.busctl`: starts servers, measures every command several times, leaves nothing running."""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from chaos.report import replace

from benchmarks import machine
from benchmarks.busctl.commands import ALL, Command, measure
from benchmarks.busctl.report import GOAL_SECONDS, Measured, table
from benchmarks.busctl.world import NAMESPACE, Size, World, running, say
from benchmarks.cpu import server_seconds
from benchmarks.operator_scale.processes import cpu_seconds

_PACKAGES = ("asyncpg", "click", "rich")
_MANIFEST = {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": {"name": "new"}}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busctl",
        description="Measures how quickly each command of busctl answers, in a database and in a cluster.",
        epilog="Exit status: 0 all was measured, goals may be missed.",
    )
    parser.add_argument("--channels", type=int, default=Size.channels, help="default: %(default)s")
    parser.add_argument("--peers", type=int, default=Size.peers, help="of each channel; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s, after one that is not counted")
    parser.add_argument("--only", metavar="A,B", help="only commands that begin with one of these")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into this page")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    arguments = _arguments(argv)
    size = Size(arguments.channels, arguments.peers)
    wanted = [
        command
        for command in ALL
        if arguments.only is None or command.name.startswith(tuple(arguments.only.split(",")))
    ]
    with running(size) as world:
        measured = _measure_all(world, wanted, arguments.rounds)
    lines = table(measured)
    if arguments.output is not None:
        document = {
            "machine": machine.describe(arguments.output.parent, _PACKAGES),
            "size": vars(size),
            "rounds": arguments.rounds,
            "commands": [item.as_json for item in measured],
        }
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    if arguments.page is not None:
        peers = size.channels * size.peers
        head = f"Medians of {arguments.rounds} rounds with {size.channels} channels and {peers} peers, in seconds:"
        replace(arguments.page, "speed", f"{head}\n\n{lines}")
    print(lines)
    late = [f"{item.command} of a {item.source}" for item in measured if item.wall.median > GOAL_SECONDS]
    say(f"slower than {GOAL_SECONDS} s: {', '.join(late) or 'none'}")
    return 0


def _measure_all(world: World, commands: Sequence[Command], rounds: int) -> list[Measured]:
    postmaster = world.server.process
    assert postmaster is not None

    def database() -> Mapping[str, float]:
        return {"PostgreSQL": server_seconds(postmaster.pid)}

    def cluster() -> Mapping[str, float]:
        return {**database(), "API server": sum(map(cpu_seconds, world.cluster_processes))}

    with tempfile.TemporaryDirectory() as directory:
        manifest = Path(directory, "bus.yaml")
        manifest.write_text(yaml.safe_dump(_MANIFEST))
        by_name = {"MANIFEST": str(manifest), "CHANNEL": world.channel}
        by_owner = by_name | {"CHANNEL": f"{NAMESPACE}/{world.channel}"}
        # Nothing of the user's is read.
        nowhere = {"HOME": directory, "COLUMNS": "120"}
        measured = []
        for command in commands:
            for source, places, environment, seconds in (
                ("database", by_owner, nowhere | {"BUSCTL_DATABASE": world.database}, database),
                ("cluster", by_name, nowhere | {"KUBECONFIG": str(world.kubeconfig)}, cluster),
            ):
                costs = [measure(command, places, environment, seconds) for _ in range(rounds + 1)]
                # The first one finds nothing in memory.
                found = Measured(command.name, source, costs[1:])
                measured.append(found)
                say(f"  {command.name} of a {source}: {found.wall.median:.2f} s, {found.client.median:.2f} s processor")
    return measured


if __name__ == "__main__":
    raise SystemExit(main())
