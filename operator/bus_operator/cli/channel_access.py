"""Where commands that read and publish messages get a channel's credentials: a binding on the disk, or a `Source`.

In a cluster they come from the BusChannel's Secret, which an application developer may read, in a database from the
administrator's URI. They stay in memory; a Secret is looked at again now and then, so that a rotation is followed.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from bus_operator.cli import completion
from bus_operator.cli.source import ClusterSource, DatabaseSource, Source, source_options
from bus_operator.errors import SpecError
from bus_operator.secret_entries import entries
from bus_operator.texts import printable
from bus_runtime import AccessDeniedError, Binding, BusError, UnavailableError, find_binding
from bus_runtime.binding import ROOT_VARIABLE, read_binding

_FRESH = 60.0
"""Seconds until a Secret is looked at again."""


@dataclass(frozen=True)
class ChannelAccess:
    """A channel that the user means, and where its credentials are."""

    channel: str | None
    directory: Path | None
    source: Source | None

    def binding(self) -> Binding:
        """The credentials.

        Raises:
            SpecError: There are none, or they may not be read.
            BindingError: The directory is no binding.
        """
        if self.source is None:
            return _in_directory(self.directory, self.channel)
        if self.channel is None:
            raise click.UsageError("name a CHANNEL, or a --binding")
        if isinstance(self.source, DatabaseSource):
            return _of_administrator(self.source, self.channel)
        return _of_secret(self.source, *self.source.key_of(self.channel))


def channel_options(*, required: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Gives a command CHANNEL, --binding and the options of a source, and the result as `access`."""

    def decorate(command: Callable[..., Any]) -> Any:
        @wraps(command)
        def run(*, channel: str | None, binding: Path | None, source: Source | None, **options: Any) -> Any:
            with _runtime_errors(source):
                return command(access=ChannelAccess(channel, binding or _given_root(), source), **options)

        run = source_options(all_namespaces=False, unless=_is_bound)(run)
        run = click.option(
            "--binding",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Use the binding in this directory, or of those in it the one called CHANNEL; by default"
            f" {ROOT_VARIABLE} where that is set.",
        )(run)
        return click.argument("channel", required=required, shell_complete=completion.channels)(run)

    return decorate


def _is_bound(options: Mapping[str, Any], chosen: bool) -> bool:
    """Whether there is a binding to use, given or as in a pod and under `busctl dev`."""
    given = options["binding"]
    if given is not None and chosen:
        raise click.UsageError("--binding says where: leave the options of clusters and databases out")
    directory = given or (None if chosen else _given_root())
    if directory is not None:
        click.echo(f"on binding {directory}", err=True)
    return directory is not None


def _given_root() -> Path | None:
    root = os.environ.get(ROOT_VARIABLE)
    return Path(root) if root else None


@contextmanager
def _runtime_errors(source: Source | None) -> Iterator[None]:
    """What the runtime raises ends the command as what busctl raises itself does: its text ends with the code."""
    try:
        yield
    except BusError as exc:
        click.echo(printable(f"error: {exc}"), err=True)
        if isinstance(exc, AccessDeniedError) and isinstance(source, DatabaseSource):
            click.echo(
                "on PostgreSQL 15 an administrator who is no superuser may not use channels: give a --binding", err=True
            )
        if isinstance(exc, UnavailableError) and isinstance(source, ClusterSource) and not source.client.access.is_pod:
            from bus_operator import cluster_databases

            hint = cluster_databases.in_operator(source.client)
            click.echo(f"if the database cannot be reached from here: {hint}", err=True)
        sys.exit(1)


def _in_directory(directory: Path | None, channel: str | None) -> Binding:
    if directory is not None and (directory / "type").is_file():
        binding = read_binding(directory)
        if channel not in (None, binding.name, binding.channel):
            raise SpecError(
                f"binding {directory} is of channel {binding.channel!r}, not {channel!r}: leave CHANNEL out"
            )
        return binding
    return find_binding(channel, root=directory)


def _of_administrator(source: DatabaseSource, channel: str) -> Binding:
    """An administrator may use every channel: it is a member of their roles, or a superuser."""
    import asyncio

    from bus_operator import channel_reader

    view = asyncio.run(channel_reader.read_channel(source.admin, channel))
    admin = source.admin.for_database(view.place.name) if view.place is not None else source.admin
    return FetchedBinding(
        name=view.label,
        directory=Path(),
        channel=view.channel or channel,
        uri=admin.endpoint.uri(admin.username, admin.password or ""),
        fetch=None,
    )


def _of_secret(source: ClusterSource, namespace: str, name: str) -> Binding:
    from bus_operator import cluster_channels

    body = cluster_channels.get_resource(source.client, namespace, name)
    secret = ((body.get("status") or {}).get("secretRef") or {}).get("name")
    if not secret:
        raise SpecError(
            f"BusChannel {namespace}/{name} has no credentials yet: busctl status {name} -n {namespace} says why",
            reason="BindingNotReady",
        )
    return _read_secret(source, namespace, name, secret)


def _read_secret(source: ClusterSource, namespace: str, name: str, secret: str) -> Binding:
    data = entries(source.client.get(f"/api/v1/namespaces/{namespace}/secrets/{secret}"))
    if not data.get("uri") or not data.get("channel"):
        raise SpecError(
            f"Secret {namespace}/{secret} holds no binding: kubectl describe buschannel {name} -n {namespace} says why",
            reason="BindingInvalid",
        )
    return FetchedBinding(
        name=name,
        directory=Path(),
        channel=data["channel"],
        uri=data["uri"],
        generation=data.get("generation"),
        authority=data.get("ca.crt"),
        fetch=partial(_read_secret, source, namespace, name, secret),
    )


@dataclass(frozen=True, slots=True)
class FetchedBinding(Binding):
    """A binding that is no directory of this machine."""

    fetch: Callable[[], Binding] | None = field(default=None, repr=False, compare=False)
    """Reads it again; None where it never changes."""
    fetched_at: float = field(default_factory=time.monotonic, repr=False, compare=False)

    @property
    def is_current(self) -> bool:
        """Whether it need not be read again yet."""
        return self.fetch is None or time.monotonic() < self.fetched_at + _FRESH

    def reload(self) -> Binding:
        """The binding as it is now."""
        return self if self.fetch is None else self.fetch()
