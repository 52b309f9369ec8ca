"""The figures of pipecat's users, as JSON and as the table of docs/how-to/pipecat.md."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import report
from benchmarks.pipecat import steady
from benchmarks.results import Case, Results
from benchmarks.statistics import Spread, number
from benchmarks.systems import PIPECAT

NAME = "gain"
"""Of the table's place in the page."""

#: What the two lines change, and to what.
BEFORE, AFTER = "isolated", "pipecat-sync"
_REDIS = "redis"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: Is compared, with its unit.
        scenario: In which it is measured.
        figure: Its name there.
        case: All of the case but the system.
        less: Whether less is better.
    """

    what: str
    scenario: str
    figure: str
    case: Case
    less: bool

    def by_round(self, results: Results, system: str) -> dict[int, float]:
        """Of one system."""
        return results.by_round(self.scenario, self.figure, system=system, **self.case)

    def spread(self, results: Results, system: str) -> Spread | None:
        """Of one system; None when it was not measured."""
        return results.spread(self.scenario, self.figure, {"system": system, **self.case})

    def gain(self, results: Results) -> Spread | None:
        """How many times better the system after the change is, within each round that has both."""
        before, after = self.by_round(results, BEFORE), self.by_round(results, AFTER)
        over, under = (before, after) if self.less else (after, before)
        values = [over[n] / under[n] for n in over if under.get(n)]
        return Spread.of(values) if values else None

    def redis_is_ahead(self, results: Results) -> bool:
        """Whether Redis' median is better than that of the system after the change."""
        redis, after = self.spread(results, _REDIS), self.spread(results, AFTER)
        if redis is None or after is None:
            return False
        return redis.median < after.median if self.less else redis.median > after.median


def _rows() -> list[Row]:
    load = f"{steady.RATE:.0f} messages a second to {steady.WORKERS} workers"
    idle = f"server CPU of {steady.WORKERS + 1} idle workers, % of a core"
    return [
        Row("one-way latency, idle, p50, ms", "latency", "p50_ms", {}, less=True),
        Row("one-way latency, idle, p99, ms", "latency", "p99_ms", {}, less=True),
        Row(f"latency of {load}, p50, ms", "steady", "p50_ms", {}, less=True),
        Row(f"latency of {load}, p99, ms", "steady", "p99_ms", {}, less=True),
        Row("server CPU for each of these messages, µs", "steady", "server_cpu_us_per_message", {}, less=True),
        Row(idle, "steady", "idle_cpu_percent", {}, less=True),
        _throughput("one worker publishes to 8, per second", "published_per_s", 8, 200),
        _throughput("each of 8 workers gets, per second", "delivered_per_s", 8, 200),
        _throughput("each of 32 workers gets, per second", "delivered_per_s", 32, 200),
        _throughput("messages of 64 KiB to one worker, per second", "delivered_per_s", 1, 65536),
    ]


def _throughput(what: str, figure: str, subscribers: int, size: int) -> Row:
    return Row(what, "throughput", figure, {"subscribers": subscribers, "bytes": size}, less=False)


ROWS = _rows()


def table(results: Results) -> str:
    """What the page says: the rows that were measured, and where Redis is ahead."""
    found = [row for row in ROWS if any(row.spread(results, system) for system in PIPECAT)]
    systems = [system for system in PIPECAT if any(row.spread(results, system) for row in found)]
    header = ["", *(PIPECAT[system] for system in systems), "own backend → ours, `Sync`"]
    lines = [header, ["---"] * len(header)]
    lines += [
        [row.what, *(_cell(row.spread(results, system)) for system in systems), _cell(row.gain(results), "x")]
        for row in found
    ]
    return "\n".join(
        [
            _heading(results),
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            *_redis(found, results),
        ]
    )


def _heading(results: Results) -> str:
    machine, settings = results.machine, results.settings
    rounds = settings["rounds"]
    medians = f"Medians of {rounds} rounds, the extremes in parentheses" if rounds > 1 else "One round"
    if settings.get("quick"):
        medians = f"**A quick run**, too short to judge by: {medians[0].lower()}{medians[1:]}"
    return (
        f"{medians}; {machine['date'][:10]}, commit "
        f"{machine['commit']}, {machine['cores']} cores ({machine['processor']}), PostgreSQL {settings['postgresql']}, "
        f"pipecat-ai {machine['packages']['pipecat-ai']}. The last column says how many times better, within the same "
        "round; below 1 is worse."
    )


def _redis(rows: Sequence[Row], results: Results) -> list[str]:
    if not any(row.spread(results, _REDIS) for row in rows):
        return []
    ahead = [row.what for row in rows if row.redis_is_ahead(results)]
    where = "everywhere" if len(ahead) == len(rows) else "; ".join(ahead) or "nowhere"
    return [f"Where `RedisBus` is ahead of pipecat's `PgmqBus` on a `Sync` channel of ours: {where}."]


def _cell(value: Spread | None, unit: str = "") -> str:
    if value is None:
        return ""
    median = f"{number(value.median)}{unit}"
    return median if value.rounds == 1 else f"{median} ({number(value.low)} .. {number(value.high)})"


def document(results: Results) -> dict[str, Any]:
    """The whole of pipecat.json."""
    gains = {row.what: row.gain(results) for row in ROWS}
    return {
        "machine": results.machine,
        "settings": results.settings,
        "gain": {what: None if gain is None else asdict(gain) for what, gain in gains.items()},
        "summary": report.summary(results),
        "measurements": [asdict(m) for m in results.measurements],
        "failures": results.failures,
    }
