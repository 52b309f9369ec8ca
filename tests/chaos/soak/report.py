"""What came of a soak: as JSON, as a table in docs/reliability.md, as a picture."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from chaos.soak.flatness import MEBIBYTE, Trend
from chaos.soak.outcome import Outcome
from chaos.soak.samples import Series

NAME = "soak"
"""Of the table's place in a page."""

_KINDS = {"runtime": "a process with `bus_runtime`", "operator": "the operator", "server": "the server's sessions"}


def to_json(outcome: Outcome) -> bytes:
    """All that is known of it."""
    account, activity = outcome.account, outcome.activity
    document = {
        "seed": outcome.plan.seed,
        "machine": {"processors": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "postgresql": outcome.plan.version,
        "interrupted": outcome.interrupted,
        "problems": outcome.problems(),
        "maximum": {
            "messages_per_second": round(outcome.maximum, 1),
            "steps": [
                {
                    "wanted": round(step.wanted),
                    "published": round(step.published),
                    "delivered": round(step.delivered, 3),
                }
                for step in outcome.steps
            ],
        },
        "load": {
            "seconds": round(outcome.seconds, 1),
            "wanted_per_second": round(outcome.wanted, 1),
            "published": outcome.published,
            "pages": account.pages,
            "quiet_after": [{"seconds": round(quiet.seconds, 2), "last": quiet.last} for quiet in outcome.quiets],
            "cpu_seconds": {whom: round(seconds, 1) for whom, seconds in outcome.cpu.items()},
            "cpu_seconds_of_checking": round(account.seconds, 1),
        },
        "verdicts": account.tally,
        "broken": account.broken,
        "violations": account.violations,
        "faults": [
            {
                "name": strike.name,
                "at": round(strike.at, 1),
                "recovery_seconds": {
                    name: None if delay is None else round(delay, 2) for name, delay in strike.recovery.items()
                },
                "error": strike.error,
            }
            for strike in outcome.strikes
        ],
        "evidence": outcome.evidence,
        "control_plane": {
            "channels_made": activity.made,
            "channels_deleted": activity.deleted,
            "rotations": len(activity.rotations),
            "slowest_rotation_seconds": _most(activity.rotations),
            "retries": activity.retries,
        },
        "at_the_end": outcome.checked,
        "left_over": outcome.leaks,
        "trends": [
            {
                "of": name,
                "what": what,
                "seconds": round(trend.seconds),
                "median": round(trend.level),
                "growth": round(trend.growth),
                "between": [round(trend.low), round(trend.high)],
                "allowed": round(trend.allowed),
                "flat": trend.flat,
            }
            for (name, what), trend in outcome.trends().items()
        ],
        "series": {
            series.name: {"kind": series.kind, **{what: _one_line(values) for what, values in series.values.items()}}
            for series in outcome.series
        },
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _one_line(values: Sequence[float]) -> orjson.Fragment:
    """A line for each of what would be a thousand lines."""
    return orjson.Fragment(orjson.dumps([round(value, 1) for value in values]))


def _most(values: Sequence[float]) -> float | None:
    return round(max(values), 2) if values else None


def table(outcome: Outcome) -> str:
    """The results in Markdown."""
    account, activity = outcome.account, outcome.activity
    recoveries = [strike.slowest for strike in outcome.strikes if strike.slowest is not None]
    delivered = account.total("received")
    rows = [
        ("measured maximum", f"{outcome.maximum:,.0f} messages/s"),
        ("load", f"{_rate(outcome):,.0f} messages/s, {_share(outcome):.0%} of that, all outages included"),
        ("how long", f"{outcome.seconds / 60:.0f} min, with {len(outcome.strikes)} faults"),
        ("messages, deliveries", f"{outcome.published:,}; {delivered:,} with the search for the maximum"),
        ("promises broken", f"{sum(account.broken.values())}"),
        ("missed, as a fault may take it", _by_durability(account.tally, "forgiven")),
        ("slowest delivery again", f"{max(recoveries):.1f} s" if recoveries else "no fault"),
        ("channels made and deleted meanwhile", f"{activity.made:,} and {activity.deleted:,}"),
        ("rotations of the workers' credentials", f"{len(activity.rotations)}"),
        *_memory(outcome),
        ("left over at the end", "nothing" if not outcome.leaks else "; ".join(outcome.leaks)),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    problems = outcome.problems()
    if problems:
        lines += ["", "**Not as promised:**", "", *(f"- {problem.splitlines()[0]}" for problem in problems)]
    return "\n".join([f"One run with seed {outcome.plan.seed}, on {os.cpu_count()} cores:", "", *lines])


def _rate(outcome: Outcome) -> float:
    return outcome.published / outcome.seconds if outcome.seconds else 0.0


def _share(outcome: Outcome) -> float:
    return _rate(outcome) / outcome.maximum if outcome.maximum else 0.0


def _by_durability(tally: Mapping[str, Mapping[str, int]], what: str) -> str:
    return ", ".join(f"`{durability}` {counts.get(what, 0):,}" for durability, counts in tally.items())


def _memory(outcome: Outcome) -> list[tuple[str, str]]:
    """For each kind the process that grew most."""
    kinds = {series.name: series.kind for series in outcome.series}
    worst: dict[str, Trend] = {}
    for (name, what), trend in outcome.trends().items():
        kind = kinds[name]
        if what == "private" and (kind not in worst or trend.high > worst[kind].high):
            worst[kind] = trend
    return [
        (
            f"memory of {_KINDS[kind]}",
            f"{trend.level / MEBIBYTE:.1f} MiB, {trend.growth / MEBIBYTE:+.2f} MiB in the last "
            f"{trend.seconds / 60:.0f} min",
        )
        for kind, trend in worst.items()
    ]


def draw(outcome: Outcome, path: Path) -> bool:
    """A picture of memory over time; False: matplotlib is not there (`make bench-setup` brings it)."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130})
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for kind, colour, label in (
        ("runtime", "#0b6e4f", "each bus_runtime process"),
        ("operator", "#3a6ea5", "operator"),
        ("server", "#c1121f", "all server processes together"),
    ):
        for number, series in enumerate(_of_kind(outcome.series, kind)):
            _plot(axes, series, colour, label if number == 0 else None)
    for strike in outcome.strikes:
        axes.axvline(strike.at / 60, color="#bbbbbb", linewidth=0.5, zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes; a line for each fault")
    axes.set_ylabel("private memory, MiB")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"Half of the maximum with faults: {_rate(outcome):,.0f} messages/s")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return True


def _of_kind(series: Sequence[Series], kind: str) -> list[Series]:
    return [each for each in series if each.kind == kind and "private" in each.values]


def _plot(axes: Any, series: Series, colour: str, label: str | None) -> None:
    minutes = [seconds / 60 for seconds in series.values["seconds"]]
    axes.plot(minutes, [size / MEBIBYTE for size in series.values["private"]], color=colour, linewidth=1, label=label)
