"""`busctl apply`: does without a cluster what the operator does with one."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

from bus_operator import provision, shards, verification
from bus_operator.actions import DesiredChannel
from bus_operator.binding import binding_data, held_credential, is_current
from bus_operator.cli import bindings
from bus_operator.cli.manifests import Manifest, Manifests, read_manifests
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import BusError, SpecError
from bus_operator.model import Uid
from bus_operator.plan_credentials import RotationRules
from bus_operator.roles import IssuedCredential
from bus_operator.shards import Shards


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.File(encoding="utf-8"),
    multiple=True,
    required=True,
    help="File with BusChannel manifests; - reads standard input. May be given several times.",
)
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
        click.echo(note, err=True)
    if not manifests.channels:
        raise SpecError("there is no BusChannel in what was given")
    if root is not None:
        _refuse_shared_directories(manifests.channels)
    failed = asyncio.run(_apply(AdminConnection.from_uri(uri), manifests, root))
    if failed:
        sys.exit(1)
    if root is not None:
        click.echo(f"next: SERVICE_BINDING_ROOT={root} python worker.py")


def _refuse_shared_directories(channels: Sequence[Manifest]) -> None:
    names = [channel.name for channel in channels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            f"BusChannel {twice[0]} is in several namespaces: a binding directory holds one, apply them apart"
        )


async def _apply(admin: AdminConnection, manifests: Manifests, root: Path | None) -> int:
    """Applies all; returns how much failed, each with a line that says why."""
    failed = 0
    async with connect(admin) as connection:
        report = await shards.install(connection, admin, manifests.shards)
    for shard in report.shards.usable:
        done = ", ".join(map(str, report.done.get(shard, ()))) or "unchanged"
        click.echo(f"database {shard}: {done} (PostgreSQL {report.observed.server_version})")
    if report.failure is not None:
        failed += 1
        click.echo(f"{report.failure.reason}: {report.failure}", err=True)
    for channel in manifests.channels:
        try:
            click.echo(f"{channel}: {await _apply_channel(report.shards, channel, root)}")
        except BusError as exc:
            failed += 1
            click.echo(f"{channel}: {exc.reason}: {exc}", err=True)
    return failed


async def _apply_channel(where: Shards, channel: Manifest, root: Path | None) -> str:
    directory = root / channel.name if root is not None else None
    present = bindings.read(directory) if directory is not None else None
    held = held_credential(present)
    desired = DesiredChannel.from_spec(
        channel.spec,
        namespace=channel.namespace,
        name=channel.name,
        uid=Uid(f"busctl:{channel.namespace}/{channel.name}"),
    )
    last = where.index_of((present or {}).get("database"))
    rules = RotationRules.from_spec(channel.spec.credentials)
    async with shards.placed(where, desired.name, last) as (shard, connection):

        def data(credential: IssuedCredential) -> dict[str, str]:
            return binding_data(shard.admin.endpoint, desired.name, channel.spec, credential)

        async def deliver(issued: IssuedCredential) -> None:
            if directory is not None:
                await verification.verify(issued, shard.admin.endpoint, shard.admin.endpoint)
                bindings.write(directory, data(issued))

        provisioned = await provision.provision(
            connection, desired, held, rotation=rules, binding_wanted=directory is not None, deliver=deliver
        )
    if provisioned.refusal is not None:
        raise provisioned.refusal
    done = ", ".join(map(str, provisioned.actions)) or "unchanged"
    if directory is None or provisioned.generation is None:
        return done
    if provisioned.issued is not None:
        return f"{done}; wrote {directory}"
    if held is None:
        raise SpecError(f"binding directory {directory} vanished meanwhile: run the same command again")
    wanted = data(IssuedCredential(held.username, held.password, provisioned.generation))
    if not is_current(present, wanted):
        bindings.write(directory, wanted)
        done += f"; wrote {directory}"
    return done
