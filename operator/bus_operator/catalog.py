"""Reads what is there: the server, the installation, a channel. Changes nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from bus_operator import naming, render, sql
from bus_operator.errors import TransientError


@dataclass(frozen=True)
class ObservedDatabase:
    """What `plan_installation` needs to know about a database."""

    server_version: str
    server_version_num: int
    is_superuser: bool
    can_create_roles: bool
    pgmq_extension_version: str | None
    pgmq_available_version: str | None
    pgmq_installed: bool
    owner_role_exists: bool
    client_role_exists: bool
    owns_as_owner_role: bool
    client_may_connect: bool
    public_is_writable: bool
    schema_installed: bool
    schema_version: int | None = None
    installed_fingerprint: str | None = None
    actual_fingerprint: str | None = None
    bundled_pgmq_version: str | None = None
    pgmq_belongs_to: str | None = None
    """The role that the schema pgmq, or something in it, belongs to, if it is no administrator's."""

    @property
    def pgmq_version(self) -> str | None:
        """The version of PGMQ in use, as far as it is known."""
        return self.pgmq_extension_version or self.bundled_pgmq_version


@dataclass(frozen=True)
class LoginUser:
    """Somebody who uses a login: a session, or a peer that was heard of not long ago."""

    host: str | None
    """What a peer calls its host: the pod's name."""
    application: str | None
    address: str | None
    """Where a session comes from; None for a local one."""


@dataclass(frozen=True)
class ObservedLogin:
    """One credential generation of a channel."""

    role: str
    generation: int
    verifier: str = field(repr=False)
    role_exists: bool
    attributes_right: bool
    connection_limit: int | None
    is_member: bool
    password_replaced: bool
    """Whether the server holds another verifier than was set; False where this administrator may not see it."""
    published_at: datetime | None
    """When the binding held it first; None: it never did."""
    request: str | None
    """What had asked for a rotation last when it was issued."""
    unused_since: datetime | None
    """Since when no look found anybody using it; None while somebody is, and as long as nobody looked."""
    warned_at: datetime | None
    """When it was told who uses it."""
    users: tuple[LoginUser, ...] = ()
    """Who uses it, where that was looked for; see `usage`."""

    @property
    def is_retired(self) -> bool:
        """Whether nothing but the name is left, because it could not be dropped."""
        return not self.verifier

    @property
    def is_published(self) -> bool:
        """Whether pods may hold it."""
        return self.published_at is not None and not self.is_retired

    @property
    def is_sound(self) -> bool:
        """Whether nobody changed it by hand."""
        return self.role_exists and self.attributes_right and self.is_member and not self.password_replaced


@dataclass(frozen=True)
class ObservedChannel:
    """A channel's row in the registry and the objects that belong to it."""

    id: int
    name: str
    queue: str
    role: str
    owner_uid: str | None
    owner_reference: str | None
    durability: str
    self_delivery: bool
    max_peers: int
    max_message_bytes: int
    max_connections: int
    peer_timeout: timedelta
    max_age: timedelta | None
    max_messages: int | None
    max_bytes: int | None
    log_exists: bool
    log_unlogged: bool | None
    """None also where its sequence is."""
    role_exists: bool
    role_is_client: bool
    installed_fingerprint: str | None
    actual_fingerprint: str
    observed_at: datetime = field(compare=False)
    """By the server's clock."""
    logins: tuple[ObservedLogin, ...]

    @property
    def current_login(self) -> ObservedLogin | None:
        """The login that was published last."""
        published = [login for login in self.logins if login.is_published]
        return max(published, key=lambda login: login.generation, default=None)


@dataclass(frozen=True)
class ChannelCounts:
    """How a channel is used."""

    peers: int
    """Live ones; each is woken in one of three ways."""
    doorbell: int
    listen: int
    poll: int
    backlog: int
    """Messages that the slowest live peer has not acknowledged."""
    oldest: timedelta | None
    """The age of the oldest of them; None when there is none."""
    stored: int
    """Messages in the log."""


class ChannelUsage(NamedTuple):
    """How a channel is used, as a survey of all channels of a database finds it. Small: there are thousands."""

    id: int
    """Its number in the registry."""
    owner_uid: str | None
    """The UID of its BusChannel; None when that was deleted and the channel retained."""
    doorbell: int
    listen: int
    poll: int
    """Live peers, by how they are woken."""
    backlog: int
    """Messages that the slowest live peer has not acknowledged."""
    oldest: float | None
    """The age of the first of them in seconds."""
    published: int
    redelivered: int
    lost: int
    """Messages since the channel was made: published, given again to a peer, trimmed before a peer had read them."""
    messages: int
    """Messages in the log."""
    bytes: int
    """The log's size on disk, indexes included."""

    @property
    def counts(self) -> ChannelCounts:
        """The part that a status shows."""
        return ChannelCounts(
            peers=self.doorbell + self.listen + self.poll,
            doorbell=self.doorbell,
            listen=self.listen,
            poll=self.poll,
            backlog=self.backlog,
            oldest=timedelta(seconds=self.oldest) if self.oldest is not None else None,
            stored=self.messages,
        )


async def observe_database(connection: asyncpg.Connection, *, registry: bool = True) -> ObservedDatabase:
    """Reads the server and, where there is one, the installation, unless `registry` is False."""
    row = await connection.fetchrow(sql.query("observe_database"))
    observed = dict(row)
    if registry and observed["schema_installed"] and observed["owns_as_owner_role"]:
        installation = await connection.fetchrow(sql.query("observe_installation"))
        if installation is not None:
            observed |= {
                "schema_version": installation["schema_version"],
                "installed_fingerprint": installation["functions_fingerprint"],
                "bundled_pgmq_version": installation["pgmq_version"],
                "actual_fingerprint": await functions_fingerprint(connection),
            }
    return ObservedDatabase(**observed)


async def schema_version(connection: asyncpg.Connection) -> int | None:
    """The version of the installed schema; None while it is being installed for the first time."""
    row = await connection.fetchrow(sql.query("observe_installation"))
    return row["schema_version"] if row is not None else None


async def functions_fingerprint(connection: asyncpg.Connection) -> str:
    """A digest of the installed functions with their owners and privileges."""
    return str(await connection.fetchval(sql.query("functions_fingerprint")))


async def channel_functions_fingerprint(connection: asyncpg.Connection, channel_id: int, queue: str) -> str:
    """A digest of a channel's own functions with their owners and privileges."""
    return (await _channel_functions_fingerprints(connection, {channel_id: queue}))[channel_id]


async def _channel_functions_fingerprints(connection: asyncpg.Connection, queues: Mapping[int, str]) -> dict[int, str]:
    named = [(number, name) for number, queue in queues.items() for name in naming.channel_functions(queue)]
    rows = await connection.fetch(
        sql.query("channel_functions_fingerprint"), [number for number, _ in named], [name for _, name in named]
    )
    return {row["channel_id"]: row["fingerprint"] for row in rows}


async def observe_channel(connection: asyncpg.Connection, name: str) -> ObservedChannel | None:
    """Reads the channel with that wire name, or None."""
    return next(iter(await _observe_channels(connection, name)), None)


async def observe_channels(connection: asyncpg.Connection) -> list[ObservedChannel]:
    """Reads all channels of the database: as many statements as for one."""
    return await _observe_channels(connection, None)


async def _observe_channels(connection: asyncpg.Connection, name: str | None) -> list[ObservedChannel]:
    rows = await connection.fetch(sql.query("observe_channel"), name)
    if not rows:
        return []
    only = rows[0]["id"] if name is not None else None
    held: dict[str, str] = {}
    if await connection.fetchval(sql.query("may_read_verifiers")):
        held = dict(await connection.fetch(sql.query("observe_verifiers"), only))
    logins: dict[int, list[ObservedLogin]] = {}
    for login in await connection.fetch(sql.query("observe_logins"), only):
        values = dict(login)
        of_channel = logins.setdefault(values.pop("channel_id"), [])
        replaced = held.get(values["role"], values["verifier"]) != values["verifier"]
        of_channel.append(ObservedLogin(**values, password_replaced=replaced))
    fingerprints = await _channel_functions_fingerprints(connection, {row["id"]: row["queue"] for row in rows})
    return [
        ObservedChannel(**row, actual_fingerprint=fingerprints[row["id"]], logins=tuple(logins.get(row["id"], ())))
        for row in rows
    ]


async def has_channel(connection: asyncpg.Connection, name: str) -> bool:
    """Whether the database holds the channel with that wire name, retained ones included."""
    return bool(await connection.fetchval(sql.query("has_channel"), name))


async def channel_owner(connection: asyncpg.Connection, name: str) -> str | None:
    """The UID of the owner of the channel with that wire name; None where it has none or is not there."""
    owner: str | None = await connection.fetchval(sql.query("channel_owner"), name)
    return owner


async def shards(connection: asyncpg.Connection, database: str) -> dict[int, bool]:
    """The indexes of a database's shards that exist, but the first, and whether this administrator owns them."""
    prefix = naming.shard_prefix(database)
    found = await connection.fetch(sql.query("databases"), prefix)
    named = {row["name"].removeprefix(prefix): row["own"] for row in found}
    return {int(suffix): own for suffix, own in named.items() if re.fullmatch("[1-9][0-9]{0,2}", suffix)}


async def channels_named(connection: asyncpg.Connection, name: str) -> list[str]:
    """The wire names of the channels that are called so: the wire name itself, or its BusChannel's `namespace/name`."""
    return [row["name"] for row in await connection.fetch(sql.query("channels_named"), name)]


async def count_channels(connection: asyncpg.Connection) -> int:
    """How many channels the database holds, retained ones included."""
    return int(await connection.fetchval(sql.query("database_counts")))


async def survey(connection: asyncpg.Connection) -> list[ChannelUsage]:
    """How all channels of the database are used, retained ones included."""
    return [ChannelUsage(*row) for row in await connection.fetch(sql.query("survey"))]


async def count_channel(connection: asyncpg.Connection, channel_id: int) -> ChannelCounts:
    """How a channel whose log exists is used. Raises TransientError when the channel was dropped meanwhile."""
    row = await connection.fetchrow(sql.query("channel_counts"), channel_id)
    if row is None:
        raise TransientError(f"channel {channel_id} was dropped meanwhile", reason="Conflict")
    counts = dict(row)
    queue, acknowledged = counts.pop("queue"), counts.pop("acknowledged_by_all")
    oldest = None
    if counts["backlog"]:
        oldest = await connection.fetchval(render.with_log(sql.query("oldest_message"), queue), acknowledged)
    return ChannelCounts(**counts, oldest=oldest)
