"""Level-triggered reconciliation of BusDatabases: reached, installed, reported; their channels are told."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bus_operator import catalog, shards, tallies, tls
from bus_operator.binding_watch import BindingWatch
from bus_operator.breaker import SuspectError
from bus_operator.catalog import ChannelCounts, ChannelUsage
from bus_operator.database import AdminConnection, connect, end_silent_sessions
from bus_operator.database_access import Access, DatabaseState, KnownDatabase, UsableDatabase
from bus_operator.drift_telling import DriftTeller, require_repaired
from bus_operator.errors import (
    AuthenticationFailedError,
    BusError,
    ConnectionFailedError,
    SecretError,
    SpecError,
    TransientError,
)
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import Kube
from bus_operator.ledger import Ledger, Surveyed
from bus_operator.model import CaSecretRef, DatabaseSpec
from bus_operator.reporting import PENDING_DELETIONS, Reporter, Wake, usage
from bus_operator.selection import Selection
from bus_operator.status import Condition

logger = logging.getLogger(__name__)

SURVEY_SHARE = 0.9
"""How much of the resync must be over until the next survey: what wakes a database meanwhile does not survey it."""

REMEMBERED = 60.0
"""Seconds for which a BusDatabase that is gone is remembered: a namespace's objects go in no order."""

SECOND_PROBE = 1.0
"""Seconds until a database that was well and refuses connections is asked once more, before it counts as down."""

RecordSurvey = Callable[[Key, Mapping[int, Sequence[ChannelUsage]], float], None]
"""Takes what was read in the shards of a database, and when that began by the monotonic clock."""


class DatabaseReconciler:
    """Makes the databases agree with the BusDatabases.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        selection: Which channels a database concerns.
        drift: Tells what was changed by hand.
        reporter: Where the outcome goes.
        ledger: Which channels were found right.
        bindings: Whose Secrets are watched.
        wake: Asks for a resource to be reconciled soon, whatever is known of it.
        nudge: The same for a channel that may be settled.
        record_survey: Takes how the channels are used.
        resync: Seconds between two surveys.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        selection: Selection,
        drift: DriftTeller,
        reporter: Reporter,
        ledger: Ledger,
        bindings: BindingWatch,
        wake: Wake,
        nudge: Wake,
        record_survey: RecordSurvey,
        resync: float,
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._selection = selection
        self._reporter = reporter
        self._ledger = ledger
        self._bindings = bindings
        self._wake = wake
        self._nudge = nudge
        self._record_survey = record_survey
        self._resync = resync
        self._drift = drift
        self._access: dict[Key, Access] = {}
        self._parted: dict[Key, UsableDatabase] = {}

    def close(self) -> None:
        """Ends all sessions."""
        for access in self._access.values():
            access.sessions.drop()

    async def reconcile(self, key: Key) -> None:
        """Looks at one BusDatabase. Raises TransientError when it should be tried again soon."""
        resource = self._inventory.databases.get(key)
        if resource is None or resource.deleting:
            gone = self._access.pop(key, None)
            if gone is not None:
                gone.sessions.drop()
                self._part(key, gone.last)
            self._drift.forget(key)
            self._wake_channels_of(key)
            return
        access = self._access.setdefault(key, Access(resource))
        known = KnownDatabase(resource.generation)
        fields: dict[str, Any] = {}
        try:
            conditions = await self._probe(resource, access, known, fields)
        except BusError as exc:
            known.failure = failure = _with_place(exc, resource)
            conditions = _failed(failure, known.admin)
        before, access.known = access.known, known
        waiting = access.breaker.decide(known.failure if known.shards is None else None)
        if known.shards is not None:
            access.last = UsableDatabase(access.slots, known.shards, known.clients, connect, last_resort=True)
            if resource.status.get("pendingDeletions"):
                self._wake(PENDING_DELETIONS, key)
        fresh, access.fresh = access.fresh, False
        # First: reporting may fail, and then this change would not be seen as one again.
        if known.changed_since(before):
            self._wake_channels_of(key)
        else:
            for channel in waiting:
                self._wake("BusChannel", channel)
            if fresh:
                self._nudge_unsettled(resource, access)
        await self._reporter.report(resource, conditions, fields | {"lastProbeTime": self._reporter.now()})
        if isinstance(known.failure, TransientError):
            raise known.failure
        if known.failure is not None:
            tallies.failed(resource.kind, known.failure.reason)

    def usable(self, database: Resource, channel: Resource | None) -> UsableDatabase:
        """How a channel, or what is left of deleted ones, may use a database.

        Raises:
            VerdictPendingError: It has not been probed yet, or not since a session failed.
            SpecError: It is not ready. It has its own retries, and wakes its channels when it is back.
        """
        access = self._access.setdefault(database.key, Access(database))
        access.breaker.check(channel.key if channel is not None else None)
        if access.known is None or access.known.shards is None:
            raise ValueError(f"{database}: the breaker is closed, and nothing is known")
        return UsableDatabase(access.slots, access.known.shards, access.known.clients, access.sessions.session)

    def usable_now(self) -> Iterator[tuple[Key, UsableDatabase]]:
        """The databases that are in order."""
        for key, access in self._access.items():
            known = access.known
            if access.breaker.state == "closed" and known is not None and known.shards is not None:
                yield key, UsableDatabase(access.slots, known.shards, known.clients, access.sessions.session)

    def states(self) -> Iterator[DatabaseState]:
        """The databases that were looked at."""
        for key, access in self._access.items():
            if access.known is not None:
                unreachable = isinstance(access.known.failure, ConnectionFailedError | AuthenticationFailedError)
                yield DatabaseState(key, access.known.admin is not None and not unreachable, access.breaker.state)

    def take_surveyed(self, channel: Resource) -> Surveyed | None:
        """What the last survey found of a channel that it woke: once, for what is found later is better."""
        database = self._selection.last_database_of(channel)
        access = self._access.get(database) if database is not None else None
        return access.surveyed.pop(channel.status.get("channel", ""), None) if access is not None else None

    def suspect(self, database: Resource, failure: BusError) -> SuspectError:
        """Has the database probed, since a session in it failed; until then its channels leave it alone.

        Returns:
            What the channel that noticed raises: its own status waits for the verdict.
        """
        access = self._access.get(database.key)
        if access is not None and access.breaker.suspect():
            access.sessions.drop()
            self._wake(database.kind, database.key)
        return SuspectError(f"{database} is probed: {failure}")

    @contextmanager
    def suspecting(self, database: Resource) -> Iterator[None]:
        """For what a channel does in the database. Raises what `suspect` returns when a session there fails."""
        try:
            yield
        except (ConnectionFailedError, AuthenticationFailedError) as exc:
            raise self.suspect(database, exc) from exc

    def last_usable(self, key: Key) -> UsableDatabase | None:
        """How a database was used last, also if its Secret is gone by now, or the BusDatabase since a short time."""
        access = self._access.get(key)
        return access.last if access is not None else self._parted.get(key)

    def forget_last(self, key: Key) -> None:
        """It was no use."""
        self._parted.pop(key, None)
        if (access := self._access.get(key)) is not None:
            access.last = None

    def _part(self, key: Key, last: UsableDatabase | None) -> None:
        if last is not None:
            self._parted[key] = last
            asyncio.get_running_loop().call_later(REMEMBERED, self._parted.pop, key, None)

    def secrets_of(self, key: Key) -> frozenset[str]:
        """The names of the Secrets that a BusDatabase refers to."""
        resource = self._inventory.databases.get(key)
        try:
            spec = resource.database_spec() if resource else None
        except SpecError:
            spec = None
        references = (spec.connection_secret_ref, spec.ca_secret_ref) if spec else ()
        return frozenset(reference.name for reference in references if reference is not None)

    async def _probe(
        self, resource: Resource, access: Access, known: KnownDatabase, fields: dict[str, Any]
    ) -> list[Condition]:
        """Observes; once more where it was well and now refuses: what restarts in a moment is not down."""
        try:
            return await self._observe(resource, access, known, fields)
        except ConnectionFailedError as exc:
            was_well = access.known is not None and access.known.shards is not None
            if not was_well or isinstance(exc.__cause__, TimeoutError):
                raise
        await asyncio.sleep(SECOND_PROBE)
        known.admin = None
        return await self._observe(resource, access, known, fields)

    async def _observe(
        self, resource: Resource, access: Access, known: KnownDatabase, fields: dict[str, Any]
    ) -> list[Condition]:
        spec = resource.database_spec()
        admin = await self._admin_connection(resource, spec)
        session = access.sessions.session
        async with session(admin) as connection:
            known.admin = admin
            # A former leader's, whose node is lost, say: before anything here waits for its locks.
            if ended := await end_silent_sessions(connection):
                logger.warning("%s: ended %d sessions of an operator that is frozen or lost", resource, ended)
            report = await shards.install(connection, admin, spec.shards, session)
        await access.sessions.keep_only([admin, *(shard.admin for shard in report.shards.usable)])
        for shard, actions in report.done.items():
            logger.info("%s: %s: %s", resource, shard, ", ".join(map(str, actions)))
        await self._drift.tell(resource, report.drift)
        known.shards, known.clients, known.repaired = report.shards, spec.client_endpoint, bool(report.done)
        await self._survey(resource.key, access, known)
        fields |= {
            # Without what distributions append, "15.18 (Debian 15.18-0+deb12u1)".
            "serverVersion": report.observed.server_version.split()[0],
            "pgmqVersion": report.observed.pgmq_version,
            "schemaVersion": report.observed.schema_version,
            "channels": report.channels,
        }
        if report.failure is not None:
            # The shards that are there go on being used.
            raise report.failure
        require_repaired(report.drift)
        return [
            _reached(admin),
            Condition.true("Installed", "Installed", f"schema version {report.observed.schema_version}"),
        ]

    async def _survey(self, key: Key, access: Access, known: KnownDatabase) -> None:
        """Reads all channels, if that is due."""
        now = time.monotonic()
        if known.shards is None or (now < access.next_survey and not known.changed_since(access.known)):
            return
        surveyed: dict[str, Surveyed] = {}
        by_shard: dict[int, Sequence[ChannelUsage]] = {}
        for shard in known.shards.usable:
            try:
                async with access.sessions.session(shard.admin) as connection:
                    usages = by_shard[shard.index] = await catalog.survey(connection)
                    observed = await catalog.observe_channels(connection)
            except ConnectionFailedError:
                known.shards = None
                raise
            counts = {item.id: item.counts for item in usages}
            surveyed |= {
                channel.name: Surveyed(shard.index, channel, counts[channel.id])
                for channel in observed
                if channel.id in counts
            }
        self._record_survey(key, by_shard, now)
        access.surveyed, access.fresh = surveyed, True
        access.next_survey = now + SURVEY_SHARE * self._resync

    def _nudge_unsettled(self, database: Resource, access: Access) -> None:
        """Has those settled channels looked at that are not as they were; of the others, nothing is kept."""
        surveyed, access.surveyed = access.surveyed, {}
        for channel in self._selection.residents_of(database.key):
            if not self._ledger.is_settled(channel.key):
                continue
            name = str(channel.status.get("channel"))
            found = surveyed.get(name)
            if found is None or not self._bindings.covers(channel.namespace):
                self._ledger.forget(channel.key)
            elif self._ledger.agrees(channel, found.observed) and not _differs(channel, found.counts):
                continue
            if found is not None:
                access.surveyed[name] = found
            self._nudge(channel.kind, channel.key)

    async def _admin_connection(self, resource: Resource, spec: DatabaseSpec) -> AdminConnection:
        reference = spec.connection_secret_ref
        name = f"Secret {resource.namespace}/{reference.name}"
        secret = await self._kube.read_secret(resource.namespace, reference.name)
        if secret is None:
            raise SecretError(
                f"{name} does not exist: create it with the key {reference.key!r} holding an administrator's URI"
                " (postgresql://user:password@host:5432/dbname)",
                reason="SecretNotFound",
            )
        authority = await self._authority(resource, spec.ca_secret_ref)
        try:
            return AdminConnection.from_secret(secret.data, reference.key, authority)
        except SecretError as exc:
            raise SecretError(f"{name}: {exc}") from exc

    async def _authority(self, resource: Resource, reference: CaSecretRef | None) -> str | None:
        if reference is None:
            return None
        name = f"Secret {resource.namespace}/{reference.name}"
        # Of what else is in it nothing is kept: CloudNativePG has the authority's private key there.
        secret = await self._kube.read_secret(resource.namespace, reference.name, only=reference.key)
        if secret is None:
            raise SecretError(
                f"{name} does not exist: create it with the key {reference.key!r} holding the certificates of the"
                " authority that issues the server's, or correct spec.caSecretRef",
                reason="SecretNotFound",
            )
        try:
            return tls.authority(secret.data, reference.key)
        except SecretError as exc:
            raise SecretError(f"{name}: {exc}") from exc

    def _wake_channels_of(self, key: Key) -> None:
        for channel in self._selection.channels_of(key):
            self._wake(channel.kind, channel.key)


def _differs(channel: Resource, counts: ChannelCounts) -> bool:
    return any(channel.status.get(name) != value for name, value in usage(counts).items())


def _reached(admin: AdminConnection) -> Condition:
    return Condition.true("Reachable", "Connected", f"connected to {admin.endpoint} as {admin.username}")


def _with_place(failure: BusError, resource: Resource) -> BusError:
    """Says of a credential that is refused where it is from, as only who was told by a BusDatabase knows."""
    if not isinstance(failure, AuthenticationFailedError):
        return failure
    reference = resource.database_spec().connection_secret_ref
    return AuthenticationFailedError(
        f"{failure} They are in Secret {resource.namespace}/{reference.name}, key {reference.key!r} or username and"
        " password: a correction is noticed at once."
    )


def _failed(failure: BusError, admin: AdminConnection | None) -> list[Condition]:
    if admin is not None:
        return [_reached(admin), Condition.false("Installed", failure.reason, str(failure))]
    return [
        Condition.false("Reachable", failure.reason, str(failure)),
        Condition.unknown("Installed", "Waiting", "the database cannot be reached"),
    ]
