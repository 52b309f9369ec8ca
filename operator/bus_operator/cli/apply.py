"""`busctl apply`: does without a cluster what the operator does with one."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

from bus_operator.cli import applying
from bus_operator.cli.files import files_option
from bus_operator.cli.manifests import read_manifests
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
def apply(files: Sequence[IO[str]], uri: str, root: Path | None, namespace: str) -> None:
    """Install the bus into a database and make its channels as the manifests say.

    Running it again changes nothing that is right already.

    \b
    Examples:
      busctl apply -f channels.yaml --database postgresql://postgres:secret@localhost/app --bindings ./bindings
      SERVICE_BINDING_ROOT=./bindings python worker.py
    """
    manifests = read_manifests(files, namespace)
    for note in manifests.notes:
        click.echo(printable(note), err=True)
    if not manifests.channels:
        raise SpecError("there is no BusChannel in what was given")
    if root is not None:
        applying.refuse_shared_directories(manifests.channels)
    failed = asyncio.run(applying.apply(AdminConnection.from_uri(uri), manifests, root, say=_say))
    if failed:
        sys.exit(1)
    if root is not None:
        click.echo(f"next: SERVICE_BINDING_ROOT={root} python worker.py")


def _say(line: str, *, failed: bool = False) -> None:
    click.echo(printable(line), err=failed)
