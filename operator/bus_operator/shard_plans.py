"""What applying manifests would do to the databases of one server: the bus in each shard, and channels in them."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from bus_operator import catalog, dry_run, naming, render, sql
from bus_operator.database import AdminConnection, connect_to_read
from bus_operator.dry_run import DryRun, Statement
from bus_operator.errors import BusError
from bus_operator.shards import not_ours

Failable = DryRun | BusError


@dataclass(frozen=True)
class ShardPlan:
    """One database."""

    index: int
    admin: AdminConnection
    run: Failable
    connection: asyncpg.Connection | None
    """A session in it that cannot write; None where it would have to be created first, or cannot be used."""
    channels: int = 0
    takes_channels: bool = True


class ShardPlans:
    """All databases of one BusDatabase, or of one URI.

    Args:
        shards: They, the first one first.
        session: A session in the first.
    """

    def __init__(self, shards: Sequence[ShardPlan], session: asyncpg.Connection) -> None:
        self.shards = shards
        self._session = session
        self._coming: Counter[int] = Counter()
        """How many channels were placed in each already."""

    async def place(self, channel: str) -> tuple[ShardPlan, asyncpg.Connection]:
        """The shard that holds a channel, or that it would be made in; and a session to plan it with.

        Raises:
            BusError: When it may be in a shard that cannot be used.
        """
        for shard in self.shards:
            if shard.connection is not None and shard.channels and await catalog.has_channel(shard.connection, channel):
                return shard, shard.connection
        for shard in self.shards:
            if isinstance(shard.run, BusError):
                raise shard.run
        candidates = [shard for shard in self.shards if shard.takes_channels]
        emptiest = min(candidates, key=lambda shard: (shard.channels + self._coming[shard.index], shard.index))
        self._coming[emptiest.index] += 1
        # What is to be done in a database that is yet to be created is the same as in any that has not the channel.
        return emptiest, emptiest.connection or self._session


@asynccontextmanager
async def of_server(admin: AdminConnection, count: int) -> AsyncIterator[ShardPlans]:
    """Plans the databases among which `count` shards are spread, as `shards.install` would make them.

    Raises:
        BusError: When the first one cannot be used.
    """
    async with AsyncExitStack() as stack:

        async def of_shard(index: int) -> ShardPlan:
            name = naming.shard_database(admin.endpoint.database, index)
            shard = admin.for_database(name)
            takes_channels = index < count
            try:
                connection = await stack.enter_async_context(connect_to_read(shard))
                run = await dry_run.installation_of(connection)
                channels = await _count(connection)
            except BusError as exc:
                return ShardPlan(index, shard, exc, None, takes_channels=takes_channels)
            return ShardPlan(index, shard, run, connection, channels, takes_channels)

        first = await stack.enter_async_context(connect_to_read(admin))
        present = await catalog.shards(first, admin.endpoint.database)
        plans = [ShardPlan(0, admin, await dry_run.installation_of(first), first, await _count(first))]
        for index in sorted({*range(1, count), *(index for index, own in present.items() if own)}):
            shard = admin.for_database(naming.shard_database(admin.endpoint.database, index))
            if present.get(index):
                plans.append(await of_shard(index))
            elif index in present:
                plans.append(ShardPlan(index, shard, not_ours(index, shard), None))
            else:
                plans.append(ShardPlan(index, shard, await _creation(first, shard), None))
        yield ShardPlans(plans, first)


async def _creation(connection: asyncpg.Connection, shard: AdminConnection) -> DryRun:
    name = shard.endpoint.database
    text = await connection.fetchrow(sql.query("observe_encoding"))
    return DryRun(
        (f"create database {name}", f"install schema version {sql.schema_version()} in it"),
        (Statement(render.create_database(name, **dict(text))),),
        ("the statements that install the bus in it are those of any empty database",),
    )


async def _count(connection: asyncpg.Connection) -> int:
    observed = await catalog.observe_database(connection, registry=False)
    if not observed.schema_installed or not observed.owns_as_owner_role:
        return 0
    return await catalog.count_channels(connection)
