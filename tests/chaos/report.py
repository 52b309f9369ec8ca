"""Results: as JSON, and as a table in docs/reliability.md."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from chaos.nemeses.catalog import FAMILIES, NEMESES
from chaos.recovery import GOAL
from chaos.run import Outcome
from chaos.verdict import Verdict
from chaos.world import DURABILITIES

NAME = "chaos"
"""Of the table's place in a page."""


def to_json(outcomes: Sequence[Outcome], seed: int) -> bytes:
    """All that is known of the runs."""
    document = {
        "seed": seed,
        "goal_seconds": GOAL,
        "machine": {"processors": os.cpu_count(), "kernel": platform.release()},
        "runs": [_run(outcome) for outcome in outcomes],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _run(outcome: Outcome) -> dict[str, Any]:
    return {
        "nemeses": outcome.nemeses,
        "layout": dataclasses.asdict(outcome.layout),
        "evidence": outcome.evidence,
        "seconds": round(outcome.seconds, 1),
        "error": outcome.error,
        "recovery_seconds": {
            name: None if delay is None else round(delay, 2) for name, delay in outcome.recovery.items()
        },
        "verdicts": {durability: verdict_document(verdict) for durability, verdict in outcome.verdicts.items()},
    }


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict, to be written as JSON."""
    return {
        "kept": bool(verdict),
        "tally": dataclasses.asdict(verdict.tally),
        "broken": {str(broken): count for broken, count in verdict.counts.items()},
        "violations": [violation.text for violation in verdict.violations],
    }


def write_table(page: Path, outcomes: Sequence[Outcome], seed: int) -> None:
    """Replace the one in a page; see `replace`."""
    replace(page, NAME, table(outcomes, seed))


def replace(page: Path, name: str, text: str) -> None:
    """Replace what is between the markers of that name in a page.

    Raises:
        ValueError: It has no such markers.
    """
    first, last = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, begin, rest = page.read_text().partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{page} has no place for results: {first} and {last}")
    page.write_text(f"{head}{first}\n{text}\n{last}{tail}")


def rows(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return ["| " + " | ".join(row) + " |" for row in cells]


def table(outcomes: Sequence[Outcome], seed: int) -> str:
    """The results in Markdown."""
    heading = ["what breaks", *(f"`{durability}`" for durability in DURABILITIES), "delivering again"]
    found = [heading, ["---"] * (len(heading) - 1) + ["---:"]]
    alone = {outcome.nemeses[0]: outcome for outcome in outcomes if len(outcome.nemeses) == 1}
    for family, nemeses in FAMILIES.items():
        if not any(nemesis.name in alone for nemesis in nemeses):
            continue
        found.append([f"**{family}**"] + [""] * (len(heading) - 1))
        found += [
            [NEMESES[nemesis.name].title, *_cells(alone[nemesis.name])] for nemesis in nemeses if nemesis.name in alone
        ]
    together = [outcome for outcome in outcomes if len(outcome.nemeses) > 1]
    if together:
        found.append(["**Two or three of them at once**"] + [""] * (len(heading) - 1))
        found += [[_together(outcome), *_cells(outcome)] for outcome in together]
    published = sum(verdict.tally.published for outcome in outcomes for verdict in outcome.verdicts.values())
    received = sum(verdict.tally.received for outcome in outcomes for verdict in outcome.verdicts.values())
    summary = (
        f"{len(outcomes)} runs with seed {seed}: {published:,} messages published, {received:,} deliveries. A cell "
        "tells how many messages were published, and how many deliveries a fault took, within what it may take. What "
        "shows that each fault struck is in [chaos.json](../bench/chaos.json)."
    )
    return "\n".join([summary, "", *rows(found)])


def _together(outcome: Outcome) -> str:
    with_pipecat = ", with pipecat" if outcome.layout.pipecat else ""
    return f"{' + '.join(outcome.nemeses)} (PostgreSQL {outcome.layout.version}{with_pipecat})"


def _cells(outcome: Outcome) -> list[str]:
    if outcome.error:
        return ["could not be run"] + [""] * len(DURABILITIES)
    verdicts = [_cell(outcome.verdicts[durability]) for durability in DURABILITIES]
    slowest = "never" if outcome.slowest is None else f"{outcome.slowest:.1f} s"
    return [*verdicts, slowest if outcome.in_time else f"**{slowest}**"]


def _cell(verdict: Verdict) -> str:
    tally = verdict.tally
    if not verdict:
        return f"**broken**, {tally.published:,}"
    taken = f"{tally.forgiven:,} missed" if tally.forgiven else "none missed"
    return f"{tally.published:,}, {taken}"
