"""`busctl doctor`: what is wrong, and what to do."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bus_operator.cli import output as out
from bus_operator.cli.source import ClusterSource, Source, source_options

if TYPE_CHECKING:
    from bus_operator.doctor.findings import Examined

Output = Literal["json", "yaml"] | None

MARKS: dict[str, str] = {"ok": "✓", "advice": "!", "failed": "✗", "skipped": "–"}  # noqa: RUF001
STYLES: dict[str, out.Style] = {"ok": "green", "advice": "yellow", "failed": "red", "skipped": "dim"}

SHOWN_WHOLE = 5
"""Objects of a kind that are shown with all that was looked at; of more only those with findings."""


def _or_binding(command: Callable[..., None]) -> Any:
    """With --binding nothing else is looked at: there need be neither a cluster nor a database."""

    @wraps(command)
    def run(*args: Any, binding: Path | None, output: Output, **options: Any) -> None:
        if binding is not None:
            _tell(_of_binding(binding), output)
        else:
            command(*args, output=output, **options)

    return run


@click.command()
@click.argument("target", required=False, metavar="[CHANNEL | pod/NAME]")
@_or_binding
@source_options()
@click.option(
    "--binding",
    type=click.Path(file_okay=False, path_type=Path),
    help="Do what a pod does with the binding in this directory, and nothing else.",
)
@out.output_option("json", "yaml")
def doctor(target: str | None, source: Source, output: Output) -> None:
    """Find out what is wrong, and say what to do about it.

    Looks at the operator and its webhook, at databases, channels and the pods that ask for them; with CHANNEL or
    pod/NAME at that one and what it depends on. What needs something that is broken is not looked at. Nothing is
    changed: that the webhook works is tried with a pod that is not really made. Each finding has a code, of
    which `busctl explain` says more. Exit status 1 when something is wrong; advice (!) alone is none.

    \b
    Examples:
      busctl doctor
      busctl doctor orders -n shop
      busctl doctor pod/worker-7d9f -n shop
      busctl doctor -A -o json | jq -r '.items[].checks[].findings[].code'
      busctl doctor --database postgresql://postgres@localhost/app
      busctl doctor --binding ./bindings/orders
    """
    examined = _of_source(source, target)
    _tell(examined, output, _elsewhere(source, examined) if output is None else None)


def _tell(examined: "Sequence[Examined]", output: Output, elsewhere: str | None = None) -> None:
    if output is not None:
        healthy = not any(item.state == "failed" for item in examined)
        out.print_data(output, {"healthy": healthy, "items": [item.as_json for item in examined]})
    else:
        show(examined, elsewhere)
    if any(item.state == "failed" for item in examined):
        sys.exit(1)


def _of_source(source: Source, target: str | None) -> "list[Examined]":
    # The runtime says it as well, and takes longer to import than a look at a database.
    release = version("pgmq-bus")
    if not isinstance(source, ClusterSource):
        from bus_operator.doctor import rounds

        if target is not None and target.startswith("pod/"):
            raise click.UsageError("a database knows no pods: leave --database out")
        return asyncio.run(rounds.of_database(source.admin, target, release))
    from bus_operator.doctor import cluster_rounds

    meant = None
    if target is not None:
        kind = "pod" if target.startswith("pod/") else "channel"
        meant = cluster_rounds.Target(kind, *source.key_of(target.removeprefix("pod/")))
    return asyncio.run(cluster_rounds.of_cluster(source.client, source.namespace, meant, release))


def _elsewhere(source: Source, examined: "Sequence[Examined]") -> str | None:
    """The command that makes the checks which could not be made here, if there is one."""
    if not isinstance(source, ClusterSource) or source.client.access.is_pod:
        return None
    # The operator's pod reaches the databases, and may see no more of the operator than others.
    if not any(item.out_of_reach for item in examined if item.kind != "Injection"):
        return None
    from bus_operator import cluster_databases

    return cluster_databases.in_operator(source.client)


def _of_binding(directory: Path) -> "list[Examined]":
    from bus_operator.doctor.findings import Examined, Finding, Outcome
    from bus_runtime.doctor import examine

    whole = directory.resolve()
    name, root = (whole.name, whole.parent) if (whole / "type").exists() else (None, whole)
    outcomes = []
    for step in asyncio.run(examine(name, root=root)):
        found = Finding(step.code, step.message, advice=step.state == "advice") if step.code else None
        outcomes.append(
            Outcome(
                step.title,
                (found,) if found is not None else (),
                step.message if step.state == "skipped" else None,
            )
        )
    return [Examined("Binding", name or str(directory), outcomes)]


def show(examined: "Sequence[Examined]", elsewhere: str | None = None) -> None:
    """Prints it for people, with the command that makes the checks which could not be made here."""
    kinds: dict[str, list[Examined]] = {}
    for item in examined:
        kinds.setdefault(item.kind, []).append(item)
    for kind, items in kinds.items():
        whole = items
        if len(items) > SHOWN_WHOLE:
            whole = [item for item in items if item.state in ("failed", "advice")]
            lost = sum(item.out_of_reach > 0 for item in items if item not in whole)
            if well := len(items) - len(whole) - lost:
                out.print_pieces(("✓", "green"), f" {well} {kind}s are well")
            if lost:
                out.print_pieces((MARKS["skipped"], STYLES["skipped"]), f" {lost} {kind}s were not wholly looked at")
        for item in whole:
            _show_one(item)
    wrong = sum(item.state == "failed" for item in examined)
    click.echo(_verdict(wrong, len(examined), sum(item.out_of_reach for item in examined), elsewhere), err=True)


def _verdict(wrong: int, objects: int, unmade: int, elsewhere: str | None) -> str:
    needs = f"{wrong} of {objects} {'needs' if wrong == 1 else 'need'} attention"
    if not unmade:
        return needs if wrong else "nothing is wrong"
    checks = "1 check" if unmade == 1 else f"{unmade} checks"
    where = f": {elsewhere}" if elsewhere else " from here"
    return f"{f'{needs}, and' if wrong else 'found nothing wrong, but'} {checks} could not be made{where}"


def _show_one(item: "Examined") -> None:
    state = item.state
    if state == "skipped" and not item.out_of_reach and any(outcome.state == "ok" for outcome in item.outcomes):
        state = "ok"
    out.print_pieces((MARKS[state], STYLES[state]), " ", (f"{item.kind} {item.name}", "bold"))
    width = max(len(outcome.title) for outcome in item.outcomes)
    for outcome in item.outcomes:
        title = f" {outcome.title:{width}}  "
        if not outcome.findings:
            note = f"not looked at: {outcome.unseen}" if outcome.unseen else ""
            out.print_pieces("  ", (MARKS[outcome.state], STYLES[outcome.state]), title, (note, "dim"), indent=6)
        for finding in outcome.findings:
            state = "advice" if finding.advice else "failed"
            code = (finding.code, STYLES[state])
            said, more = f": {finding.message} ", f"({finding.explain})"
            out.print_pieces("  ", (MARKS[state], STYLES[state]), title, code, said, (more, "dim"), indent=6)
