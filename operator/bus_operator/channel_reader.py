"""Reads channels for busctl from databases' registries, in sessions that cannot write.

However many channels there are, by the same few statements in each database.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeVar

import asyncpg

from bus_operator import catalog, channel_view, naming, render, sql
from bus_operator.channel_view import ChannelView, Place
from bus_operator.database import AdminConnection, connect_to_read, translate
from bus_operator.errors import BusError, InsufficientPrivilegeError, NotFoundError, SpecError, TransientError
from bus_operator.peer_view import PeerView

OTHER_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
"""What the queries of this release meet in another release's registry."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Holding:
    """A database, and which of its channels are meant."""

    admin: AdminConnection
    """Of its first shard."""
    names: Sequence[str] | None = None
    """Wire names; None: all channels."""
    shard: int | None = None
    """The only one that holds them; None: look into all."""


async def read_channels(admin: AdminConnection) -> list[ChannelView]:
    """All channels of a database and its shards, by wire name."""

    async def read(connection: asyncpg.Connection, place: Place) -> list[ChannelView]:
        used = {usage.id: usage.counts for usage in await catalog.survey(connection)}
        observed = await catalog.observe_channels(connection)
        return [channel_view.from_database(channel, used.get(channel.id), place) for channel in observed]

    views = [view for found in await in_shards(Holding(admin), read) for view in found]
    return sorted(views, key=lambda view: view.channel or "")


async def read_channel(admin: AdminConnection, name: str) -> ChannelView:
    """The channel of that wire name, or of that `namespace/name`. Raises NotFoundError."""

    async def read(connection: asyncpg.Connection, place: Place) -> list[ChannelView]:
        views = []
        for wire_name in await catalog.channels_named(connection, name):
            observed = await catalog.observe_channel(connection, wire_name)
            if observed is not None:
                counts = await catalog.count_channel(connection, observed.id) if observed.log_exists else None
                views.append(channel_view.from_database(observed, counts, place))
        return views

    views = [view for found in await in_shards(Holding(admin), read) for view in found]
    if not views:
        raise NotFoundError(f"{admin.endpoint} holds no channel {name!r}: busctl status --database URI shows all")
    if len(views) > 1:
        names = ", ".join(str(view.channel) for view in views)
        raise NotFoundError(f"{name!r} is the BusChannel of several clusters: give the wire name, one of {names}")
    return views[0]


async def peers_in(connection: asyncpg.Connection, names: Sequence[str] | None) -> list[PeerView]:
    """The peers of these channels in one database, by channel; None: of all."""
    return [PeerView.from_row(row) for row in await connection.fetch(sql.query("peers"), names)]


async def read_peers(holding: Holding) -> list[PeerView]:
    """The peers of these channels, by channel."""

    async def read(connection: asyncpg.Connection, _: Place) -> list[PeerView]:
        return await peers_in(connection, holding.names)

    return [view for found in await in_shards(holding, read) for view in found]


class Details(NamedTuple):
    """What only the database knows of one channel."""

    peers: list[PeerView]
    issued: datetime | None
    """When its current credential was published."""


async def read_details(holding: Holding) -> list[Details]:
    """Of the one channel that is meant; nothing where it is gone meanwhile."""

    async def read(connection: asyncpg.Connection, place: Place) -> list[Details]:
        (name,) = holding.names or ()
        observed = await catalog.observe_channel(connection, name)
        if observed is None:
            return []
        issued = channel_view.from_database(observed, None, place).issued
        return [Details(await peers_in(connection, holding.names), issued)]

    return [details for found in await in_shards(holding, read) for details in found]


async def in_holdings(
    holdings: Iterable[Holding], read: Callable[[Holding], Awaitable[Iterable[_T]]]
) -> tuple[list[_T], list[BusError]]:
    """What is found in several databases, which are asked at the same time; and why some did not answer."""
    answers = await asyncio.gather(*map(read, holdings), return_exceptions=True)
    found: list[_T] = []
    failures = []
    for answer in answers:
        if isinstance(answer, BusError):
            failures.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += answer
    return found, failures


class Shard(NamedTuple):
    """A session in a database that holds a part of the channels."""

    connection: asyncpg.Connection
    admin: AdminConnection
    place: Place
    version: int
    """Of the schema."""

    async def read(self, read: "Read[_T]") -> _T:
        """What is found in it. Raises SpecError where its schema is another one."""
        try:
            with translate(str(self.admin.endpoint)):
                return await read(self.connection, self.place)
        except TransientError as exc:
            if isinstance(exc.__cause__, OTHER_SCHEMA):
                raise _skew(self.admin, self.version) from exc
            raise


Read = Callable[[asyncpg.Connection, Place], Awaitable[_T]]


async def in_shards(holding: Holding, read: Read[_T]) -> Sequence[_T]:
    """What is found in each of a database's shards, asked at the same time. Raises what `open_shards` does."""
    async with open_shards(holding) as shards:
        return await asyncio.gather(*(shard.read(read) for shard in shards))


@asynccontextmanager
async def open_shards(holding: Holding) -> AsyncIterator[list[Shard]]:
    """Sessions in a database and its shards, in which the server refuses to write.

    Raises:
        SpecError: When there is no bus in the database, or this administrator may not read it.
    """
    admin = holding.admin
    async with AsyncExitStack() as stack:

        async def open_shard(index: int) -> Shard | None:
            """None: nothing was installed yet, or it is somebody else's of that name."""
            database = naming.shard_database(admin.endpoint.database, index)
            shard = admin.for_database(database)
            connection = await stack.enter_async_context(connect_to_read(shard))
            version = await _installed_version(connection, shard)
            return Shard(connection, shard, Place(None, database, index), version) if version is not None else None

        first = await open_shard(holding.shard or 0)
        if first is None:
            raise SpecError(
                f"there is no message bus in {admin.endpoint}: busctl apply installs one; or is it elsewhere?",
                reason="NotInstalled",
            )
        others = []
        if holding.shard is None:
            present = await catalog.shards(first.connection, admin.endpoint.database)
            others = await asyncio.gather(*(open_shard(index) for index, own in present.items() if own))
        yield [first, *(shard for shard in others if shard is not None)]


async def _installed_version(connection: asyncpg.Connection, admin: AdminConnection) -> int | None:
    """The version of the schema; None where there is none."""
    observed = await catalog.observe_database(connection, registry=False)
    if not observed.schema_installed:
        return None
    if not observed.owns_as_owner_role:
        raise InsufficientPrivilegeError(
            f"{admin.username} may not read the bus in {admin.endpoint}: as its administrator run"
            f" GRANT {naming.OWNER_ROLE} TO {render.identifier(admin.username)}"
        )
    return await catalog.schema_version(connection)


def _skew(admin: AdminConnection, version: int) -> SpecError:
    known = sql.schema_version()
    if version > known:
        return SpecError(
            f"{admin.endpoint} has schema version {version}, this busctl knows {known}: use a newer busctl",
            reason="SchemaTooNew",
        )
    return SpecError(
        f"{admin.endpoint} has schema version {version}, this busctl needs {known}: upgrade the operator, or run busctl"
        " apply",
        reason="SchemaTooOld",
    )
