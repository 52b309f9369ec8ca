"""A database: whether it can be reached and used, and whether what is in it is as it should be."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import asyncpg

from bus_operator import catalog, channel_reader, channel_view, drift_look, naming, sql
from bus_operator.catalog import ObservedDatabase
from bus_operator.channel_view import ChannelView, Place
from bus_operator.database import AdminConnection, connect_to_read
from bus_operator.doctor.findings import Checks, Finding, UnseenError
from bus_operator.drift import Difference, Repair, summary
from bus_operator.errors import BusError, ConnectionFailedError, InsufficientPrivilegeError, TransientError
from bus_operator.obstacles import obstacles
from bus_operator.peer_view import PeerView

READER = "busctl doctor"

PROGRESS_SECONDS = 1.0
"""How long peers that seem to be stalled are watched: one that acknowledges meanwhile is only slow."""

PeerKey = tuple[str, str | None, str | None, object]


@dataclass(frozen=True)
class DatabaseLook:
    """What was seen in a database and its shards."""

    observed: ObservedDatabase
    in_recovery: bool
    owns_database: bool
    owner: str
    inherits: bool
    pooled: bool
    """Whether a pooler that hands sessions around stands before it."""
    schema_version: int | None
    drift: Sequence[Difference] = ()
    peers: Sequence[PeerView] = ()
    progressing: frozenset[PeerKey] = frozenset()
    """Those among them that seemed stalled, and acknowledged while they were watched."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Messages in channels that nobody has joined, by wire name."""
    channels: Sequence[ChannelView] = ()
    """All of them, where they were asked for."""

    @cached_property
    def peers_by_channel(self) -> Mapping[str, Sequence[PeerView]]:
        """The peers by the wire name of their channel."""
        found: dict[str, list[PeerView]] = {}
        for peer in self.peers:
            found.setdefault(peer.channel, []).append(peer)
        return found


@dataclass(frozen=True)
class DatabaseFacts:
    """What the checks of a database judge."""

    title: str
    """What users call it."""
    admin: AdminConnection | BusError
    """How to log in; or why that is not known here."""
    look: DatabaseLook | BusError | None
    """None where nobody could look."""
    conditions: Sequence[Mapping[str, str]] = ()
    """Of the BusDatabase, where there is one."""
    hint: str = ""
    """What to do where it cannot be reached from here."""
    pooled_for_clients: bool | BusError | None = None
    """Whether a pooler that hands sessions around is where spec.clientEndpoint leads; None: there is none."""


async def look(admin: AdminConnection, names: Sequence[str] | None, *, list_channels: bool = False) -> DatabaseLook:
    """Looks into a database, and into its shards at the same time.

    Args:
        admin: How to log in.
        names: The wire names of the channels that are meant; None: all.
        list_channels: Whether to say what the registry has of every channel.

    Raises:
        BusError: When it cannot be used at all.
    """
    async with connect_to_read(admin, READER) as connection:
        observed = await catalog.observe_database(connection, registry=False)
        row = await connection.fetchrow(sql.query("examine_database"))
        readable = observed.schema_installed and observed.owns_as_owner_role
        version = await catalog.schema_version(connection) if readable else None
        seen = DatabaseLook(
            observed=observed,
            in_recovery=row["in_recovery"],
            owns_database=row["owns_database"],
            owner=row["owner"],
            inherits=row["inherits"],
            pooled=await _is_handed_around(connection, admin),
            schema_version=version,
        )
        if version != sql.schema_version() or not observed.pgmq_installed or seen.in_recovery:
            # There is nothing to read, or not as this release knows it; a standby has no unlogged tables.
            return seen
        others = await catalog.shards(connection, admin.endpoint.database)
        wanted = _Wanted(names, list_channels)
        parts = await asyncio.gather(
            _look_at_channels(connection, admin, 0, wanted),
            *(_look_at_shard(admin, index, wanted) for index, own in others.items() if own),
        )
    return replace(
        seen,
        drift=[item for part in parts for item in part.drift],
        peers=[peer for part in parts for peer in part.peers],
        progressing=frozenset().union(*(part.progressing for part in parts)),
        unread={name: messages for part in parts for name, messages in part.unread.items()},
        channels=sorted((view for part in parts for view in part.channels), key=lambda view: view.channel or ""),
    )


class _Wanted(NamedTuple):
    """As the arguments of `look`."""

    names: Sequence[str] | None
    list_channels: bool


@dataclass(frozen=True)
class _Part:
    """What there is to see in one shard."""

    drift: Sequence[Difference] = ()
    peers: Sequence[PeerView] = ()
    progressing: frozenset[PeerKey] = frozenset()
    unread: Mapping[str, int] = field(default_factory=dict)
    channels: Sequence[ChannelView] = ()


async def _look_at_shard(admin: AdminConnection, index: int, wanted: _Wanted) -> _Part:
    shard = admin.for_database(naming.shard_database(admin.endpoint.database, index))
    async with connect_to_read(shard, READER) as connection:
        observed = await catalog.observe_database(connection, registry=False)
        if not (observed.schema_installed and observed.owns_as_owner_role):
            return _Part()
        if await catalog.schema_version(connection) != sql.schema_version():
            return _Part()
        return await _look_at_channels(connection, shard, index, wanted)


async def _look_at_channels(
    connection: asyncpg.Connection, admin: AdminConnection, shard: int, wanted: _Wanted
) -> _Part:
    """By two sessions at the same time: the look for drift takes as long as all else."""
    place = Place(None, admin.endpoint.database, shard)
    drift, used = await asyncio.gather(_drift_in(admin), _use_in(connection, place, wanted))
    return replace(used, drift=drift)


async def _drift_in(admin: AdminConnection) -> list[Difference]:
    async with connect_to_read(admin, READER) as connection:
        return await drift_look.look(connection)


async def _use_in(connection: asyncpg.Connection, place: Place, wanted: _Wanted) -> _Part:
    try:
        return await _read_use(connection, place, wanted)
    except channel_reader.OTHER_SCHEMA:
        # The look for drift says what is missing.
        return _Part()


async def _read_use(connection: asyncpg.Connection, place: Place, wanted: _Wanted) -> _Part:
    observed = await catalog.observe_channels(connection) if wanted.list_channels else []
    peers = await channel_reader.peers_in(connection, wanted.names)
    progressing: frozenset[PeerKey] = frozenset()
    if stalled := {key_of(peer): peer for peer in peers if peer.state == "Stalled"}:
        await asyncio.sleep(PROGRESS_SECONDS)
        channels = sorted({peer.channel for peer in stalled.values()})
        progressing = frozenset(
            key_of(peer)
            for peer in await channel_reader.peers_in(connection, channels)
            if key_of(peer) in stalled and _has_moved(stalled[key_of(peer)], peer)
        )
    return _Part(
        peers=peers,
        progressing=progressing,
        unread=dict(await connection.fetch(sql.query("unread"), wanted.names)),
        channels=[channel_view.from_database(channel, None, place) for channel in observed],
    )


def key_of(peer: PeerView) -> PeerKey:
    """Tells it from others, from one look to the next."""
    return peer.channel, peer.durable, peer.host, peer.joined_at


def _has_moved(before: PeerView, after: PeerView) -> bool:
    """Whether it has acknowledged something: what waits longest has grown less old than the time that passed."""
    grown = (after.behind_seconds or 0) - (before.behind_seconds or 0)
    return grown < PROGRESS_SECONDS / 2


async def is_pooled(admin: AdminConnection) -> bool | BusError:
    """Whether a pooler that hands sessions around stands before the server there, or why that is not known."""
    try:
        async with connect_to_read(admin, READER) as connection:
            return await _is_handed_around(connection, admin)
    except BusError as exc:
        return exc


async def _is_handed_around(connection: asyncpg.Connection, admin: AdminConnection) -> bool:
    """Whether sessions are lent to others between transactions: an idle one's is given to the next that asks."""
    if await connection.fetchval("SELECT pg_backend_pid()") == connection.get_server_pid():
        return False
    async with connect_to_read(admin, READER) as second:
        for _ in range(5):
            own = await connection.fetchval("SELECT pg_backend_pid()")
            if await second.fetchval("SELECT pg_backend_pid()") == own:
                return True
    return False


CHECKS: Checks[DatabaseFacts] = Checks()


def _obstacles(facts: DatabaseFacts, which: str) -> Iterator[Finding]:
    """What would keep the operator from using the server, in its own words."""
    for obstacle in obstacles(_look_of(facts).observed, sql.schema_version()):
        if obstacle.reason == which:
            yield Finding(obstacle.reason, f"{facts.title}: {obstacle}")


def _look_of(facts: DatabaseFacts) -> DatabaseLook:
    if not isinstance(facts.look, DatabaseLook):
        raise UnseenError("nobody could look")
    return facts.look


@CHECKS.check("connection")
def _connection(facts: DatabaseFacts) -> Iterator[Finding]:
    """Down, refusing, a wrong password, no connection left."""
    if isinstance(facts.admin, BusError):
        may_elsewhere = facts.admin.reason == "Forbidden" or isinstance(facts.admin, TransientError)
        raise UnseenError(str(facts.admin), out_of_reach=may_elsewhere)
    if not isinstance(facts.look, BusError):
        return
    if isinstance(facts.look, ConnectionFailedError) and _is_reached_by_operator(facts):
        # Databases need not be reachable from where people sit.
        hint = f": {facts.hint}" if facts.hint else ""
        raise UnseenError(f"{facts.look} The operator reaches it{hint}", out_of_reach=True)
    yield Finding(facts.look.reason, str(facts.look))


@CHECKS.check("server", "connection")
def _server(facts: DatabaseFacts) -> Iterator[Finding]:
    """Too old, or a standby."""
    seen = _look_of(facts)
    yield from _obstacles(facts, "UnsupportedServer")
    if seen.in_recovery:
        yield Finding(
            "DatabaseReadOnly",
            f"{facts.title} is a standby, or in the middle of a failover: its address must be the primary's",
        )


@CHECKS.check("pooler", "connection")
def _pooler(facts: DatabaseFacts) -> Iterator[Finding]:
    """In transaction mode before the administrator."""
    if _look_of(facts).pooled:
        yield Finding(
            "PoolerInTransactionMode",
            f"{facts.title} is reached through a pooler in transaction mode: the operator's settings of a session get"
            " lost there, or reach others. Name the server itself in the administrator's Secret; pods may use the"
            " pooler, by spec.clientEndpoint",
        )


@CHECKS.check("client endpoint", "connection")
def _client_endpoint(facts: DatabaseFacts) -> Iterator[Finding]:
    """What pods connect to, if that is something else: in transaction mode it serves them, and less well."""
    if isinstance(facts.pooled_for_clients, BusError):
        raise UnseenError(
            f"from here and as the administrator: {facts.pooled_for_clients}",
            out_of_reach=isinstance(facts.pooled_for_clients, ConnectionFailedError),
        )
    if facts.pooled_for_clients:
        yield Finding(
            "PoolerInTransactionMode",
            f"spec.clientEndpoint of {facts.title} is a pooler in transaction mode: pods' statements take more round"
            " trips, and nothing can be listened to. Its session mode, or the server itself, is quicker",
            advice=True,
        )


@CHECKS.check("rights", "connection")
def _rights(facts: DatabaseFacts) -> Iterator[Finding]:
    """CREATEROLE, INHERIT, and the database its own; and what is installed."""
    seen, user = _look_of(facts), _user(facts)
    lacks = []
    if not seen.observed.is_superuser:
        if not seen.observed.can_create_roles:
            lacks.append(f"ALTER ROLE {user} CREATEROLE")
        if not seen.inherits:
            lacks.append(f"ALTER ROLE {user} INHERIT")
        if not seen.owns_database:
            lacks.append(f"ALTER DATABASE ... OWNER TO {user} (it is {seen.owner}'s)")
    if seen.observed.schema_installed and not seen.observed.owns_as_owner_role:
        lacks.append(f"GRANT {naming.OWNER_ROLE} TO {user}")
    if lacks:
        yield Finding(
            InsufficientPrivilegeError.reason,
            f"the administrator {user} lacks rights in {facts.title}: as a superuser run {'; '.join(lacks)}",
        )


@CHECKS.check("PGMQ", "connection")
def _pgmq(facts: DatabaseFacts) -> Iterator[Finding]:
    """Missing where the bus is installed, or too old."""
    observed = _look_of(facts).observed
    if observed.schema_installed and not observed.pgmq_installed:
        yield Finding(
            "PgmqMissing",
            f"the bus is installed in {facts.title}, and PGMQ is not there any more: restore the schema pgmq, with the"
            " messages in it, from a backup",
        )
    yield from _obstacles(facts, "PgmqTooOld")


@CHECKS.check("schema", "server", "rights", "PGMQ")
def _schema(facts: DatabaseFacts) -> Iterator[Finding]:
    """Not there, or of another version than this release's."""
    seen, known = _look_of(facts), sql.schema_version()
    yield from _obstacles(facts, "PublicSchemaWritable")
    if seen.schema_version is None:
        yield Finding("NotInstalled", f"there is no bus in {facts.title}: the operator, or busctl apply, installs it")
    elif seen.schema_version > known:
        yield Finding(
            "SchemaTooNew",
            f"{facts.title} has schema version {seen.schema_version}, this busctl knows {known}: use a newer busctl; if"
            " the operator says the same, upgrade it",
        )
    elif seen.schema_version < known:
        yield Finding(
            "SchemaTooOld",
            f"{facts.title} has schema version {seen.schema_version}, this busctl needs {known}: upgrade the operator,"
            " or run busctl apply",
        )


@CHECKS.check("drift", "schema")
def _drift(facts: DatabaseFacts) -> Iterator[Finding]:
    """What was changed by hand."""
    found = _look_of(facts).drift
    if left := [item for item in found if item.repair is Repair.REPORT]:
        yield Finding(
            "DriftRemains",
            f"changed by hand in {facts.title}, and not for the operator to put right: {summary(left, remedies=True)}",
        )
    if ours := [item for item in found if item.repair is not Repair.REPORT]:
        yield Finding(
            "DriftFound",
            f"changed by hand in {facts.title}; the operator puts it right within a minute, or busctl apply:"
            f" {summary(ours)}",
        )


@CHECKS.check("operator's view")
def _conditions(facts: DatabaseFacts) -> Iterator[Finding]:
    """What the operator says of the BusDatabase."""
    yield from of_conditions(facts.conditions, facts.title)


def _is_reached_by_operator(facts: DatabaseFacts) -> bool:
    return any(item["type"] == "Reachable" and item["status"] == "True" for item in facts.conditions)


def of_conditions(conditions: Sequence[Mapping[str, str]], title: str) -> Iterator[Finding]:
    """What conditions say that do not hold, each reason once."""
    told = set()
    for item in conditions:
        if item["status"] == "False" and item["reason"] not in told:
            told.add(item["reason"])
            yield Finding(item["reason"], f"{title}: {item.get('message', '')}")


def _user(facts: DatabaseFacts) -> str:
    return facts.admin.username if isinstance(facts.admin, AdminConnection) else "?"
