"""The figures of busctl, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.busctl.commands import Cost
from benchmarks.statistics import Spread, number

GOAL_SECONDS = 1.0
"""Within which each command answers on 500 channels."""


@dataclass(frozen=True)
class Measured:
    """All rounds of a command.

    Attributes:
        command: As the table says it.
        source: `database` or `cluster`.
        costs: One for each round.
    """

    command: str
    source: str
    costs: Sequence[Cost]

    @property
    def wall(self) -> Spread:
        """Seconds by the clock."""
        return Spread.of([cost.wall for cost in self.costs])

    @property
    def client(self) -> Spread:
        """Seconds of processor time of busctl."""
        return Spread.of([cost.client for cost in self.costs])

    @property
    def servers(self) -> Mapping[str, Spread]:
        """Seconds of processor time, by server."""
        return {name: Spread.of([cost.servers[name] for cost in self.costs]) for name in self.costs[0].servers}

    @property
    def as_json(self) -> dict[str, Any]:
        """What goes into the file."""
        return {
            "command": self.command,
            "source": self.source,
            "wall_seconds": asdict(self.wall),
            "client_cpu_seconds": asdict(self.client),
            "server_cpu_seconds": {name: asdict(spread) for name, spread in self.servers.items()},
            "goal_seconds": GOAL_SECONDS,
            "met": self.wall.median <= GOAL_SECONDS,
        }


def table(measured: Sequence[Measured]) -> str:
    """Markdown: a line for each command and source."""
    lines = [
        "| `busctl` | of | seconds (from, to) | its processor time | the servers' |",
        "|---|---|---|---|---|",
    ]
    for item in measured:
        wall = f"{number(item.wall.median)} ({number(item.wall.low)}, {number(item.wall.high)})"
        servers = ", ".join(f"{name} {number(spread.median)}" for name, spread in item.servers.items())
        lines.append(f"| `{item.command}` | {item.source} | {wall} | {number(item.client.median)} | {servers} |")
    return "\n".join(lines)
