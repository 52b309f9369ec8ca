"""The databases that one BusDatabase's channels are spread over: made, kept current, and which of them holds a channel.

Shard 0 is the database of the administrator's URI, shard n the database `<its name>_bus_<n>` of the same server. A
channel is in the shard whose registry holds it, and stays there; one that is new goes to the shard with the fewest. A
shard beyond the number that is wanted, left from before, gets no new channels and keeps those that it has.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from bus_operator import catalog, naming, provision, render, sql
from bus_operator.actions import InstallAction
from bus_operator.catalog import ObservedDatabase
from bus_operator.database import AdminConnection, Connect, connect, translate
from bus_operator.drift import DriftReport
from bus_operator.errors import BusError, InsufficientPrivilegeError, SpecError


@dataclass(frozen=True)
class Shard:
    """One of the databases."""

    index: int
    admin: AdminConnection
    takes_channels: bool = True

    def __str__(self) -> str:
        return str(self.admin.endpoint)


@dataclass(frozen=True)
class Shards:
    """The databases that can be used."""

    usable: tuple[Shard, ...]
    unseen: bool = False
    """Whether there is another that may hold channels and cannot be used now."""

    def at(self, index: int) -> Shard:
        """The shard with that index. Raises SpecError when it cannot be used."""
        for shard in self.usable:
            if shard.index == index:
                return shard
        raise SpecError(
            f"the channel is in shard {index}, which cannot be used now: see the conditions of the BusDatabase, and its"
            " spec.shards",
            reason="DatabaseUnavailable",
        )

    def index_of(self, database: str | None) -> int | None:
        """The index of the shard that is this database, if it can be used."""
        return next((shard.index for shard in self.usable if shard.admin.endpoint.database == database), None)


@dataclass(frozen=True)
class Report:
    """What `install` found and did."""

    shards: Shards
    observed: ObservedDatabase
    """The first shard."""
    channels: int
    """In all shards."""
    done: Mapping[Shard, list[InstallAction]]
    """What was installed or put right where; a shard that was as it should be is missing here."""
    drift: DriftReport
    """What was changed by hand, in all shards."""
    failure: BusError | None
    """Why not all shards can be used."""


async def install(
    connection: asyncpg.Connection, admin: AdminConnection, count: int, connect: Connect = connect
) -> Report:
    """Creates the databases that are missing among `count`, and brings the schema of each up to date.

    Args:
        connection: A session in the first.
        admin: How it was opened.
        count: How many are wanted.
        connect: How to open sessions in the others.

    Raises:
        BusError: When the first one cannot be used; without it the others are not touched.
    """
    usable, failure, unseen = [Shard(0, admin)], None, False
    observed, actions, drift = await provision.keep(connection)
    done = {usable[0]: actions}
    channels = await catalog.count_channels(connection)
    present = await catalog.shards(connection, admin.endpoint.database)
    for index in sorted({*range(1, count), *(index for index, own in present.items() if own)}):
        name = naming.shard_database(admin.endpoint.database, index)
        shard = Shard(index, admin.for_database(name), takes_channels=index < count)
        try:
            if index not in present:
                await _create_database(connection, shard)
                present = await catalog.shards(connection, admin.endpoint.database)
            if not present.get(index):
                raise not_ours(shard.index, shard.admin)
            installed = await _install(shard, connect)
        except BusError as exc:
            failure = failure or exc
            unseen = unseen or index in present
            continue
        if installed is not None:
            usable.append(shard)
            done[shard], more, found = installed
            channels += more
            drift += found
    done = {shard: actions for shard, actions in done.items() if actions}
    return Report(Shards(tuple(usable), unseen), observed, channels, done, drift, failure)


async def _install(shard: Shard, connect: Connect) -> tuple[list[InstallAction], int, DriftReport] | None:
    """What was done in the shard, how many channels it has, and what was changed there by hand.

    None where nobody asked for it and there is nothing.
    """
    async with connect(shard.admin) as connection:
        if not shard.takes_channels and not (await catalog.observe_database(connection)).schema_installed:
            return None
        _, actions, drift = await provision.keep(connection)
        return actions, await catalog.count_channels(connection), drift


async def _create_database(connection: asyncpg.Connection, shard: Shard) -> None:
    name = shard.admin.endpoint.database
    try:
        with translate(str(shard)):
            text = await connection.fetchrow(sql.query("observe_encoding"))
            try:
                await connection.execute(render.create_database(name, **dict(text)))
            except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                # Another reconciler was faster.
                return
    except ValueError as exc:
        raise SpecError(
            f"shard {shard.index} would be the database {name!r}, whose name is longer than PostgreSQL's 63 bytes:"
            " use a database with a shorter name",
            reason="ShardMissing",
        ) from exc
    except InsufficientPrivilegeError as exc:
        raise SpecError(
            f"shard {shard.index} needs the database {name}, and {shard.admin.username} may not create databases: as a"
            f" superuser run {render.allow_create_database(shard.admin.username)};"
            f" or {render.create_database_for(name, shard.admin.username)};",
            reason="ShardMissing",
        ) from exc


def not_ours(index: int, admin: AdminConnection) -> SpecError:
    """Why a database that has a shard's name is not used: its owner could drop it, with all that is in it."""
    name = admin.endpoint.database
    return SpecError(
        f"shard {index} would be the database {name}, which is there and not {admin.username}'s: if it is to be the"
        f" shard run {render.give_database(name, admin.username)}; else drop it or give it another name",
        reason="ShardMissing",
    )


async def find(shards: Shards, channel: str, last: int | None = None, connect: Connect = connect) -> Shard | None:
    """The shard that holds the channel with that wire name.

    Args:
        shards: Where to look.
        channel: The wire name.
        last: The index of the shard that it was in last.
        connect: How to open sessions.

    Raises:
        SpecError: When it may be in a shard that cannot be used.
    """
    first = shards.at(last) if last is not None else None
    for shard in sorted(shards.usable, key=lambda shard: shard != first):
        async with connect(shard.admin) as connection:
            if await catalog.has_channel(connection, channel):
                return shard
    if shards.unseen:
        raise SpecError(
            f"channel {channel!r} may be in a shard that cannot be used now: see the conditions of the BusDatabase",
            reason="DatabaseUnavailable",
        )
    return None


@asynccontextmanager
async def holding(
    shards: Shards, channel: str, last: int | None = None, connect: Connect = connect
) -> AsyncIterator[asyncpg.Connection | None]:
    """A session in the shard that holds the channel with that wire name; None where none does.

    Arguments and errors are those of `find`.
    """
    shard = await find(shards, channel, last, connect)
    if shard is None:
        yield None
        return
    async with connect(shard.admin) as connection:
        yield connection


class Place(NamedTuple):
    """Where a channel is, or is to be made."""

    shard: Shard
    session: asyncpg.Connection
    taken: Callable[[], Awaitable[None]]
    """Lets others place theirs: called when the channel is there, and before anything that may take long."""


async def _nobody_waits() -> None:
    """It was placed before."""


@asynccontextmanager
async def placed(
    shards: Shards, channel: str, last: int | None = None, connect: Connect = connect
) -> AsyncIterator[Place]:
    """The shard that holds the channel with that wire name, or that shall, and a session there to make it in.

    Until it is taken or the session is closed nobody else places a channel, so that no two shards get one of the same
    name. The server does not wait for that for longer than `database.IDLE_IN_TRANSACTION`.

    Args:
        shards: Where to look.
        channel: The wire name.
        last: The index of the shard that it was in last; if it is in none any more, it goes there again.
        connect: How to open sessions.

    Raises:
        SpecError: When it may be in a shard that cannot be used.
    """
    home = shards.at(last) if last is not None else None
    if len(shards.usable) == 1 and not shards.unseen:
        home = shards.usable[0]
        async with connect(home.admin) as connection:
            yield Place(home, connection, _nobody_waits)
        return
    if home is not None:
        async with connect(home.admin) as connection:
            if await catalog.has_channel(connection, channel):
                yield Place(home, connection, _nobody_waits)
                return
    async with connect(shards.usable[0].admin) as lock:
        placing = lock.transaction()
        await placing.start()
        await lock.execute(sql.query("lock_installation"))

        async def taken() -> None:
            if lock.is_in_transaction():
                await placing.commit()

        shard = await find(shards, channel, last, connect) or home or await _emptiest(shards.usable, connect)
        async with connect(shard.admin) as connection:
            yield Place(shard, connection, taken)
        await taken()


async def _emptiest(shards: Iterable[Shard], connect: Connect) -> Shard:
    counted = []
    for shard in shards:
        if shard.takes_channels:
            async with connect(shard.admin) as connection:
                counted.append((await catalog.count_channels(connection), shard.index, shard))
    return min(counted)[2]
