"""`busctl plan`: what manifests would change, without changing it."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from bus_operator.cli import output as out
from bus_operator.cli.files import files_option
from bus_operator.cli.source import ClusterSource, Source, source_options
from bus_operator.errors import BusError, SpecError
from bus_operator.texts import printable

if TYPE_CHECKING:
    from bus_operator.cli.manifests import DatabaseManifest, Manifest, Manifests
    from bus_operator.cluster_plan import Change, Surroundings
    from bus_operator.database import AdminConnection
    from bus_operator.dry_run import DryRun, Statement
    from bus_operator.inventory import Key
    from bus_operator.shard_plans import ShardPlans

CHANGES = 3
"""The exit status when something would change. Not 1, which is that of failures."""

SHOWN_LINES = 8
"""Of a statement, without --sql."""


@dataclass(frozen=True)
class Planned:
    """What would happen to one thing."""

    subject: str
    """`BusChannel shop/orders`, `database db:5432/app`."""
    where: str | None = None
    """The database of a channel."""
    objects: Sequence[str] = ()
    """What the manifest itself changes in the API server."""
    run: "DryRun | None" = None
    written: Sequence[str] = ()
    """What follows besides: a Secret, files."""
    failure: BusError | None = None

    @property
    def actions(self) -> tuple[str, ...]:
        """All that would be done, in words."""
        return (*self.objects, *(self.run.actions if self.run is not None else ()), *self.written)

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        run, failure = self.run, self.failure
        return {
            "subject": self.subject,
            "database": self.where,
            "actions": list(self.actions),
            "statements": [statement.as_json for statement in run.statements] if run is not None else [],
            "notes": list(run.notes) if run is not None else [],
            "error": {"reason": failure.reason, "message": str(failure)} if failure is not None else None,
        }


@click.command()
@files_option("manifests")
@source_options(all_namespaces=False, reads=False)
@click.option(
    "--bindings",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --database: as busctl apply would be given it.",
)
@click.option("--sql", "full", is_flag=True, help="Print long statements as a whole.")
@out.output_option("json", "yaml")
def plan(
    files: Sequence[IO[str]], *, source: Source, root: Path | None, full: bool, output: Literal["json", "yaml"] | None
) -> None:
    """Print what applying manifests would change: the statements in databases, and what is written elsewhere.

    Nothing is changed: sessions are read-only, requests are dry runs. It is the operator's own plan and its own
    statements; passwords and verifiers are left out, and NEW stands for names that are chosen at random. Statements are
    run in one transaction for each channel.

    Exit status 0: nothing would change; 3: something would; 1: something could not be planned.

    \b
    Examples:
      busctl plan -f channels.yaml
      busctl plan -f channels.yaml --database postgresql://postgres@localhost/app --sql
      kustomize build prod | busctl plan -f - -o json | jq -r '.items[].actions[]'
    """
    from bus_operator.cli.manifests import read_manifests

    namespace = source.namespace or "default"
    manifests = read_manifests(files, namespace)
    if isinstance(source, ClusterSource):
        if root is not None:
            raise click.UsageError("--bindings is for --database: in a cluster the operator writes Secrets")
        _require(manifests.channels or manifests.databases)
        _tell([f"skipped {what}: only BusChannels and BusDatabases are planned" for what in manifests.skipped])
        planned = asyncio.run(_plan_cluster(source, manifests, namespace))
    else:
        _require(manifests.channels)
        manifests.require_one_place()
        _tell(manifests.notes)
        planned = asyncio.run(_plan_database(source.admin, manifests, root))
    _show(planned, output, full=full)
    if any(item.failure is not None for item in planned):
        sys.exit(1)
    if any(item.actions for item in planned):
        sys.exit(CHANGES)


def _require(manifests: Sequence[object]) -> None:
    if not manifests:
        raise SpecError("there is no BusChannel in what was given")


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(printable(note), err=True)


async def _plan_database(admin: "AdminConnection", manifests: "Manifests", root: Path | None) -> list[Planned]:
    """What `busctl apply` would do."""
    from bus_operator import shard_plans

    async with shard_plans.of_server(admin, manifests.shards) as plans:
        planned = _databases(plans)
        for manifest in manifests.channels:
            try:
                planned.append(await _plan_channel(plans, manifest, root))
            except BusError as exc:
                planned.append(Planned(str(manifest), failure=exc))
    return planned


def _databases(plans: "ShardPlans") -> list[Planned]:
    return [
        Planned(f"database {shard.admin.endpoint}", failure=shard.run)
        if isinstance(shard.run, BusError)
        else Planned(f"database {shard.admin.endpoint}", run=shard.run)
        for shard in plans.shards
    ]


async def _plan_channel(plans: "ShardPlans", manifest: "Manifest", root: Path | None) -> Planned:
    from bus_operator import dry_run
    from bus_operator.binding import held_credential
    from bus_operator.cli import bindings
    from bus_operator.plan_credentials import RotationRules

    directory = root / manifest.name if root is not None else None
    held = held_credential(bindings.read(directory)) if directory is not None else None
    shard, connection = await plans.place(manifest.wire_name)
    run = await dry_run.channel_of(
        connection,
        manifest.desired(manifest.spec),
        held,
        rotation=RotationRules.from_spec(manifest.spec.credentials),
        binding_wanted=directory is not None,
    )
    written = [f"write {directory}"] if run.issues else []
    return Planned(str(manifest), str(shard.admin.endpoint), run=run, written=written)


async def _plan_cluster(source: ClusterSource, manifests: "Manifests", namespace: str) -> list[Planned]:
    """What the API server and the operator would do."""
    from bus_operator import cluster_plan

    surroundings = cluster_plan.Surroundings(source.client, namespace)
    planned: list[Planned] = []
    changed: dict[Key, Change] = {}
    in_manifests: list[tuple[str, Manifest | DatabaseManifest]] = [
        *(("BusDatabase", database) for database in manifests.databases),
        *(("BusChannel", channel) for channel in manifests.channels),
    ]
    channels: list[Change] = []
    for kind, manifest in in_manifests:
        try:
            change = cluster_plan.change_of(source.client, kind, manifest.namespace, manifest.name, manifest.body)
        except BusError as exc:
            planned.append(Planned(str(manifest), failure=exc))
            continue
        surroundings.inventory.put(change.resource)
        if kind == "BusDatabase":
            changed[change.resource.key] = change
        else:
            channels.append(change)
    by_database: dict[Key, list[Change]] = {key: [] for key in changed}
    for change in channels:
        try:
            by_database.setdefault((await surroundings.database_of(change.resource)).key, []).append(change)
        except BusError as exc:
            planned.append(Planned(str(change.resource), objects=change.objects, failure=exc))
    for key, residents in by_database.items():
        planned += await _plan_residents(surroundings, key, changed.get(key), residents)
    return planned


async def _plan_residents(
    surroundings: "Surroundings", key: "Key", change: "Change | None", residents: Sequence["Change"]
) -> list[Planned]:
    """A BusDatabase and the channels in it."""
    from bus_operator import shard_plans

    database = surroundings.inventory.databases[key]
    planned = [Planned(str(database), objects=change.objects)] if change is not None else []
    try:
        admin = surroundings.admin_of(database)
        async with shard_plans.of_server(admin, database.database_spec().shards) as plans:
            planned += _databases(plans)
            for resident in residents:
                try:
                    run, where, writes = await surroundings.plan_channel(plans, resident, database)
                    planned.append(Planned(str(resident.resource), where, resident.objects, run, writes))
                except BusError as exc:
                    planned.append(Planned(str(resident.resource), objects=resident.objects, failure=exc))
    except BusError as exc:
        planned += [Planned(str(resident.resource), objects=resident.objects) for resident in residents]
        planned.append(Planned(f"what is in {database}", failure=exc))
    return planned


def _show(planned: Sequence[Planned], output: Literal["json", "yaml"] | None, *, full: bool) -> None:
    changing = [item for item in planned if item.actions]
    if output is not None:
        out.print_data(output, {"changes": bool(changing), "items": [item.as_json for item in planned]})
        return
    for item in planned:
        where = f" in {item.where}" if item.where else ""
        out.print_line(f"{item.subject}{where}{'' if item.actions or item.failure else ': unchanged'}", "bold")
        for action in item.actions:
            out.print_line(f"  + {action}", "green")
        if item.failure is not None:
            out.print_line(f"  ! {item.failure.reason}: {item.failure}", "red")
        if item.run is None:
            continue
        for note in item.run.notes:
            out.print_line(f"  ! {note}", "yellow")
        for statement in item.run.statements:
            for line in _lines(statement, full=full):
                click.echo(printable(f"      {line}".rstrip()))
    click.echo(f"{len(changing)} of {len(planned)} would change; nothing was changed", err=True)


def _lines(statement: "Statement", *, full: bool) -> list[str]:
    lines = statement.text.strip().splitlines()
    hidden = len(lines) - SHOWN_LINES
    if hidden > 1 and not full:
        lines = [*lines[:SHOWN_LINES], f"-- {hidden} more lines: --sql shows them"]
    else:
        lines[-1] = f"{lines[-1].rstrip(';')};"
    if statement.arguments:
        given = ", ".join(f"${number} = {_literal(value)}" for number, value in enumerate(statement.arguments, 1))
        lines.append(f"-- {given}")
    return lines


def _literal(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
    return f"'{value}'"
