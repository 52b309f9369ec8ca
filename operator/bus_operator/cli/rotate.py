"""`busctl rotate`: other credentials for a channel, without a lost message."""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bus_operator.cli import completion
from bus_operator.cli import output as out
from bus_operator.cli.source import ClusterSource, DatabaseSource, Source, source_options
from bus_operator.errors import SpecError
from bus_operator.naming import GROUP
from bus_operator.status import find

if TYPE_CHECKING:
    from bus_operator.database import AdminConnection

ANNOTATION = f"{GROUP}/rotate"

_POLL = 0.5
"""Seconds between two looks at the BusChannel."""

Output = Literal["json", "yaml"] | None


@dataclass(frozen=True)
class Rotation:
    """What came of it, for programs."""

    namespace: str | None
    name: str | None
    """Namespace and name of the BusChannel."""
    channel: str | None
    """The wire name."""
    before: int | None
    """The generation of the credentials until then."""
    generation: int | None
    """That of those in the binding now."""
    request: str | None = None
    """In a cluster, what was written to the annotation."""
    binding: Path | None = None
    """In a database, the directory that was written."""

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape; null for what is not known."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "channel": self.channel,
            "request": self.request,
            "replaced": self.generation != self.before,
            "previousGeneration": self.before,
            "credentialGeneration": self.generation,
            "binding": str(self.binding) if self.binding is not None else None,
        }


@click.command()
@click.argument("channel", shell_complete=completion.channels)
@source_options(all_namespaces=False)
@click.option("--wait", is_flag=True, help="Return when the new credentials are in the Secret.")
@click.option("--timeout", type=click.FloatRange(min=0), default=300.0, show_default=True, help="Seconds for --wait.")
@click.option(
    "--bindings",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --database: where busctl apply has written the channel's binding.",
)
@out.output_option("json", "yaml")
def rotate(channel: str, *, source: Source, wait: bool, timeout: float, root: Path | None, output: Output) -> None:
    """Give a channel other credentials. Those of before go on working while somebody uses them.

    In a cluster this changes the BusChannel's annotation pgmqbus.dev/rotate, which the operator answers: it makes a
    second login, tries it, and writes it to the Secret; pods follow by themselves. In a database it does the same at
    once, for a channel that busctl apply has made, and writes the binding directory.

    Exit status 0: asked for, or with --wait and in a database: replaced; 1: they were not, or not within --timeout, or
    a rotation is under way; 130: interrupted.

    \b
    Examples:
      busctl rotate orders -n shop --wait
      busctl rotate orders -n shop --wait -o json | jq .credentialGeneration
      busctl rotate shop/orders --database postgresql://postgres@localhost/app --bindings ./bindings
    """
    if isinstance(source, DatabaseSource):
        if root is None:
            raise click.UsageError("--database needs --bindings: the new credentials must be written somewhere")
        asyncio.run(_rotate_in_database(source.admin, channel, root, output))
        return
    if root is not None:
        raise click.UsageError("--bindings is for --database: in a cluster the operator writes the Secret")
    _rotate_in_cluster(source, channel, wait=wait, timeout=timeout, output=output)


def _rotate_in_cluster(source: ClusterSource, channel: str, *, wait: bool, timeout: float, output: Output) -> None:
    from bus_operator import cluster_channels

    key = source.key_of(channel)
    name = f"BusChannel {'/'.join(key)}"
    cluster_channels.get_channel(source.client, *key)
    request = datetime.now(UTC).isoformat(timespec="milliseconds")
    path = cluster_channels.path("buschannels", *key)
    changed = source.client.patch(path, {"metadata": {"annotations": {ANNOTATION: request}}})
    before: Mapping[str, Any] = changed.get("status") or {}
    answered = _await_answer(source, path, request, timeout) if wait else None
    if output is not None:
        then, now = before.get("credentialGeneration"), (answered or before).get("credentialGeneration")
        rotation = Rotation(*key, (answered or before).get("channel"), then, now, request=request)
        out.print_data(output, rotation.as_json)
    if not wait:
        if output is None:
            generation = before.get("credentialGeneration")
            asked = f"asked for other credentials than generation {generation}"
            click.echo(f"{name}: {asked}: busctl status {channel} shows them")
        return
    if answered is None:
        click.echo(f"error: {name}: not answered within {timeout:g} seconds; it will be, once it can", err=True)
        sys.exit(1)
    if output is None:
        current = find(answered.get("conditions", ()), "CredentialsCurrent") or {}
        click.echo(f"{name}: {current.get('message') or 'credentials were replaced'}")


def _await_answer(source: ClusterSource, path: str, request: str, timeout: float) -> Mapping[str, Any] | None:
    """The status in which the request was answered; None when that takes too long. Says what is in the way."""
    deadline = time.monotonic() + timeout
    said = None
    while True:
        status: Mapping[str, Any] = source.client.get(path).get("status") or {}
        if status.get("rotationRequest") == request:
            return status
        current = find(status.get("conditions", ()), "CredentialsCurrent") or {}
        told = f"{current.get('reason')}: {current.get('message')}"
        if current and current.get("reason") != "Current" and told != said:
            click.echo(f"waiting: {told}", err=True)
            said = told
        if time.monotonic() > deadline:
            return None
        time.sleep(_POLL)


async def _rotate_in_database(admin: "AdminConnection", channel: str, root: Path, output: Output) -> None:
    """As `busctl apply` would where it is time for it: the same plan, the same statements."""
    import secrets

    from bus_operator import catalog, channel_reader, provision, verification
    from bus_operator.actions import DesiredChannel
    from bus_operator.binding import held_credential
    from bus_operator.cli import bindings
    from bus_operator.database import connect
    from bus_operator.model import Uid
    from bus_operator.naming import shard_database
    from bus_operator.plan_credentials import RotationRules
    from bus_operator.roles import IssuedCredential

    view = await channel_reader.read_channel(admin, channel)
    index = view.place.shard if view.place is not None else 0
    shard = admin.for_database(shard_database(admin.endpoint.database, index or 0))
    async with connect(shard) as connection:
        observed = await catalog.observe_channel(connection, view.channel or "")
        owner = Uid((observed.owner_uid if observed is not None else None) or "")
        directory = _directory(owner, root)
        present = bindings.read(directory)
        if observed is None or present is None:
            raise SpecError(f"there is no binding in {directory}: busctl apply --bindings {root} writes one")

        held = held_credential(present)

        async def deliver(issued: IssuedCredential) -> None:
            await verification.verify(issued, shard.endpoint, shard.endpoint)
            uri = shard.endpoint.uri(issued.username, issued.password)
            changed = {"username": issued.username, "password": issued.password, "uri": uri}
            bindings.write(directory, present | changed | {"generation": str(issued.generation)})

        done = await provision.provision(
            connection,
            DesiredChannel.from_observed(observed, owner),
            held,
            rotation=RotationRules(request=secrets.token_hex(16)),
            deliver=deliver,
        )
    if output is None:
        click.echo(f"{view.channel}: {', '.join(map(str, done.actions)) or 'unchanged'}")
    else:
        used = held.username if held is not None else None
        then = next((login.generation for login in observed.logins if login.role == used), None)
        wrote = directory if done.issued is not None else None
        rotation = Rotation(view.namespace, view.name, view.channel, then, done.generation, binding=wrote)
        out.print_data(output, rotation.as_json)
    if done.issued is None:
        raise SpecError(
            "a rotation is under way: the next can begin when nobody uses the credentials of before any more;"
            f" busctl peers {view.channel} shows who does",
            reason="Rotating",
        )
    if output is None:
        click.echo(f"wrote {directory}")


def _directory(uid: str, root: Path) -> Path:
    """The binding directory of a channel that `busctl apply` made. Raises SpecError for another's."""
    if not uid.startswith("busctl:"):
        raise SpecError(
            "busctl apply has not made this channel: its credentials are in a Secret, rotate it in the cluster"
        )
    return root / uid.partition("/")[2]
