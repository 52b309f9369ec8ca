"""From a source to what only databases know, as far as they can be looked into from here."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import click

from bus_operator import channel_reader, cluster_channels, cluster_databases
from bus_operator.channel_reader import Holding
from bus_operator.channel_view import ChannelView
from bus_operator.cli.source import ClusterSource, Source
from bus_operator.errors import BusError, ConnectionFailedError, SpecError
from bus_operator.texts import printable

_T = TypeVar("_T")


@dataclass(frozen=True)
class Reach:
    """The databases that hold what was asked for."""

    source: Source
    holdings: list[Holding]
    failures: list[BusError] = field(default_factory=list)
    """Why others cannot be looked into."""

    def read(self, read: Callable[[Holding], Awaitable[Iterable[_T]]]) -> list[_T]:
        """What is found in all of them."""
        found, failures = asyncio.run(channel_reader.in_holdings(self.holdings, read))
        self.failures.extend(failures)
        return found

    def explain(self, left_out: str) -> None:
        """Says on standard error what could not be read, and what would help."""
        for failure in self.failures:
            click.echo(printable(f"{left_out}: {failure.reason}: {failure}{self._hint(failure)}"), err=True)

    def _hint(self, failure: BusError) -> str:
        if not isinstance(self.source, ClusterSource) or not isinstance(failure, ConnectionFailedError):
            return ""
        if self.source.client.access.is_pod:
            return ""
        stop = "" if str(failure).endswith(("?", ".")) else "."
        return f"{stop} If it cannot be reached from here: {cluster_databases.in_operator(self.source.client)}"


def of_channel(source: Source, view: ChannelView) -> Reach:
    """The database of a channel. Raises SpecError when it is in none yet."""
    if view.place is None or view.channel is None:
        raise SpecError(f"{view.label} is in no database yet: {view.message}", reason=view.reason)
    if isinstance(source, ClusterSource):
        return Reach(source, *cluster_databases.holdings(source.client, [view]))
    return Reach(source, [Holding(source.admin, (view.channel,), view.place.shard)])


def of_source(source: Source, channel: str | None = None) -> Reach:
    """The databases of all channels of the source, in a cluster of the namespaces that are meant; or of one channel."""
    if channel is not None:
        return of_channel(source, find_channel(source, channel))
    if isinstance(source, ClusterSource):
        views = cluster_channels.list_channels(source.client, source.namespace)
        return Reach(source, *cluster_databases.holdings(source.client, views))
    return Reach(source, [Holding(source.admin)])


def find_channel(source: Source, channel: str) -> ChannelView:
    """The channel that the user calls so. Raises NotFoundError."""
    if isinstance(source, ClusterSource):
        return cluster_channels.get_channel(source.client, *source.key_of(channel))
    return asyncio.run(channel_reader.read_channel(source.admin, channel))
