"""Results as files and tables: results.json for programs, results.md for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.goals import Verdict
from benchmarks.results import Case, Results
from benchmarks.statistics import Spread, number
from benchmarks.systems import SYSTEMS


def spread(value: Spread | None, unit: str = "") -> str:
    """The median and, with several rounds, the extremes."""
    if value is None:
        return ""
    if value.rounds == 1:
        return f"{number(value.median)}{unit}"
    return f"{number(value.median)}{unit} ({number(value.low)} .. {number(value.high)})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it reads well as text, too."""
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """Every goal, what was measured, and by how much it is missed."""
    rows = []
    for verdict in verdicts:
        goal = verdict.goal
        bound = f"{goal.direction} {number(goal.bound)}{goal.unit}"
        rows.append([goal.what, goal.figure, bound, spread(verdict.measured, goal.unit), verdict.text])
    return table(["situation", "figure", "goal", "measured", ""], rows)


def figures_table(results: Results, scenario: str) -> str:
    """All figures of a scenario, a row for each case."""
    figures = results.figures(scenario)
    cases = list(results.cases(scenario))
    # Cases that differ in which things they vary get a column for each of those things.
    keys = list(dict.fromkeys(key for case in cases for key in case))
    rows = [
        [_value(key, case) for key in keys] + [spread(results.spread(scenario, figure, case)) for figure in figures]
        for case in cases
    ]
    return table([*keys, *figures], rows)


def _value(key: str, case: Case) -> str:
    value = str(case.get(key, ""))
    return SYSTEMS.get(value, value) if key == "system" else value


def markdown(results: Results, verdicts: Sequence[Verdict]) -> str:
    """The whole report."""
    machine, settings = results.machine, results.settings
    flush = machine["flush_ms"]
    parts = [
        "# Benchmark results\n\nWritten by `make bench`; docs/benchmarks.md says how to read them. "
        "Medians over rounds, the extremes in parentheses.",
        f"{machine['date']}, commit {machine['commit']}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}, "
        f"PostgreSQL {settings.get('postgresql', 'not started')}; data on {machine['file_system']}, where a flush of "
        f"8 KiB takes {flush['p50']} ms (p99 {flush['p99']} ms).",
    ]
    if settings.get("quick"):
        parts.append("**A quick run**: too short and too few rounds to judge by.")
    parts += ["## Goals", goals_table(verdicts)]
    if results.failures:
        parts += ["## Not measured", *(f"- {what}: {why.splitlines()[-1]}" for what, why in results.failures.items())]
    for scenario in results.scenarios():
        parts += [f"## {scenario}", figures_table(results, scenario)]
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> list[dict[str, Any]]:
    """Every figure of every case over its rounds."""
    return [
        {"scenario": scenario, "case": dict(case), "figure": figure} | asdict(found)
        for scenario in results.scenarios()
        for case in results.cases(scenario)
        for figure in results.figures(scenario)
        if (found := results.spread(scenario, figure, case)) is not None
    ]


def document(results: Results, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The whole of results.json."""
    goals = [
        {
            "situation": verdict.goal.what,
            "figure": verdict.goal.figure,
            "goal": f"{verdict.goal.direction} {verdict.goal.bound:g}{verdict.goal.unit}",
            "bound": verdict.goal.bound,
            "rounds": verdict.goal.values(results),
            "measured": None if verdict.measured is None else asdict(verdict.measured),
            "met": verdict.met,
            "verdict": verdict.text,
        }
        for verdict in verdicts
    ]
    return {
        "machine": results.machine,
        "settings": results.settings,
        "goals": goals,
        "summary": summary(results),
        "measurements": [asdict(m) for m in results.measurements],
        "series": results.series,
        "failures": results.failures,
    }


def write(results: Results, verdicts: Sequence[Verdict], directory: Path) -> None:
    """Writes results.json and results.md."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(document(results, verdicts), indent=1) + "\n")
    (directory / "results.md").write_text(markdown(results, verdicts))
