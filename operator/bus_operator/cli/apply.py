"""`busctl apply`: does without a cluster what the operator does with one."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import click

from bus_operator.cli import applying
from bus_operator.cli import output as out
from bus_operator.cli.files import files_option
from bus_operator.cli.manifests import read_manifests
from bus_operator.cli.source import DatabaseSource
from bus_operator.database import AdminConnection
from bus_operator.errors import SpecError
from bus_operator.texts import printable


@click.command()
@files_option("BusChannel manifests")
@click.option(
    "--database",
    "uri",
    required=True,
    envvar="BUSCTL_DATABASE",
    show_envvar=True,
    help="An administrator's URI: postgresql://user:password@host:5432/dbname. Prefer the environment variable where "
    "others can list processes.",
)
@click.option(
    "--bindings",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a binding directory for each channel below this one.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of manifests that name none.")
@out.output_option("json", "yaml")
def apply(
    files: Sequence[IO[str]],
    *,
    uri: str,
    root: Path | None,
    namespace: str,
    output: Literal["json", "yaml"] | None,
) -> None:
    """Install the bus into a database and make its channels as the manifests say.

    Running it again changes nothing that is right already. Exit status 0: all is as the manifests say; 1: something
    could not be done, and the rest was; 130: interrupted.

    \b
    Examples:
      busctl apply -f channels.yaml --database postgresql://postgres:secret@localhost/app --bindings ./bindings
      busctl apply -f channels.yaml -o json | jq -r '.items[] | select(.error).subject'
      SERVICE_BINDING_ROOT=./bindings python worker.py
    """
    source = DatabaseSource(AdminConnection.from_uri(uri), namespace)
    click.echo(f"on {source}", err=True)
    manifests = read_manifests(files, namespace)
    for note in manifests.notes:
        click.echo(printable(note), err=True)
    if not manifests.channels:
        raise SpecError("there is no BusChannel in what was given")
    if root is not None:
        applying.refuse_shared_directories(manifests.channels)
    applied: list[applying.Applied] = []
    failed = asyncio.run(applying.apply(source.admin, manifests, root, say=_say if output is None else applied.append))
    if output is not None:
        changed = any(item.done or item.wrote for item in applied)
        out.print_data(output, {"changed": changed, "items": [item.as_json for item in applied]})
    if failed:
        sys.exit(1)
    if root is not None and output is None:
        click.echo(f"next: SERVICE_BINDING_ROOT={root} python worker.py")


def _say(applied: applying.Applied) -> None:
    click.echo(printable(applied.line), err=applied.failure is not None)
