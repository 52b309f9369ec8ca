"""Level-triggered reconciliation of BusDatabases and BusChannels: looks at what is, never at what happened.

`Reconciler` is the operator's composition root: it brings together the inventory (what the watches saw), the
Kubernetes API and `provision` (what `busctl` uses too). A failure becomes a condition first; one that may pass is then
raised, so that the work queue comes back to it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bus_operator import catalog, provision, status
from bus_operator.actions import CreateChannel, DesiredChannel, DropChannel
from bus_operator.apply import IssuedCredential
from bus_operator.binding import binding_data, held_credential
from bus_operator.database import AdminConnection, Endpoint, connect, translate
from bus_operator.errors import BusError, ChannelConflictError, SecretError, SpecError, TransientError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import FINALIZER, Kube
from bus_operator.model import ChannelSpec, DatabaseSpec, Uid
from bus_operator.plan import HeldCredential
from bus_operator.status import Condition

logger = logging.getLogger(__name__)

CONNECTIONS_PER_DATABASE = 4
"""How many channels of one database are reconciled at the same time."""

PROBE_TIME_INTERVAL = timedelta(minutes=10)
"""`lastProbeTime` alone is written no more often than this: a write to every database each minute helps nobody."""


@dataclass
class KnownDatabase:
    """What the last reconciliation of a BusDatabase found out; channels use it."""

    generation: int
    slots: asyncio.Semaphore = field(compare=False, repr=False)
    admin: AdminConnection | None = None
    clients: Endpoint | None = None
    failure: BusError | None = field(default=None, compare=False)

    def changed_since(self, before: "KnownDatabase | None") -> bool:
        """Whether channels that use the database should look at it again."""
        return before is None or before != self or (before.failure is None) != (self.failure is None)


class Reconciler:
    """Makes the databases and the API server agree with the manifests.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        wake: Asks for a resource (kind, key) to be reconciled soon.
        resync: Seconds after which everything is looked at again.
        clock: The current time; for tests.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        wake: Callable[[str, Key], None],
        resync: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._wake = wake
        self._resync = resync
        self._clock = clock
        self._known: dict[Key, KnownDatabase] = {}
        self._cluster: str | None = None

    # --- BusDatabase -------------------------------------------------------------------------------------------------

    async def reconcile_database(self, key: Key) -> float | None:
        """Looks at one BusDatabase. Returns the seconds until it wants to be looked at again."""
        resource = self._inventory.databases.get(key)
        if resource is None or resource.deleting:
            self._known.pop(key, None)
            self._wake_channels_of(key)
            return None
        before = self._known.get(key)
        slots = before.slots if before else asyncio.Semaphore(CONNECTIONS_PER_DATABASE)
        known = KnownDatabase(resource.generation, slots)
        fields: dict[str, Any] = {}
        try:
            conditions = await self._observe_database(resource, known, fields)
        except BusError as exc:
            known.failure = exc
            conditions = _database_failure(exc, reached=known.admin is not None)
        self._known[key] = known
        await self._report(resource, conditions, fields | {"lastProbeTime": status.timestamp(self._clock())})
        if known.changed_since(before):
            self._wake_channels_of(key)
        if isinstance(known.failure, TransientError):
            raise known.failure
        return self._resync

    async def _observe_database(
        self, resource: Resource, known: KnownDatabase, fields: dict[str, Any]
    ) -> list[Condition]:
        spec = resource.database_spec()
        admin = await self._admin_connection(resource, spec)
        async with connect(admin) as connection:
            known.admin = admin
            with translate(str(admin.endpoint)):
                observed, actions = await provision.install(connection)
                channels = await catalog.count_channels(connection)
        if actions:
            logger.info("%s: %s", resource, ", ".join(map(str, actions)))
        known.clients = admin.endpoint.for_clients(spec.client_endpoint)
        fields |= {
            # Without what distributions append, "15.18 (Debian 15.18-0+deb12u1)".
            "serverVersion": observed.server_version.split()[0],
            "pgmqVersion": observed.pgmq_version,
            "schemaVersion": observed.schema_version,
            "channels": channels,
        }
        return [
            Condition.true("Reachable", "Connected", f"connected to {admin.endpoint} as {admin.username}"),
            Condition.true("Installed", "Installed", f"schema version {observed.schema_version}"),
        ]

    async def _admin_connection(self, resource: Resource, spec: DatabaseSpec) -> AdminConnection:
        reference = spec.connection_secret_ref
        secret = await self._kube.read_secret(resource.namespace, reference.name)
        name = f"Secret {resource.namespace}/{reference.name}"
        if secret is None:
            raise SecretError(
                f"{name} does not exist: create it with the key {reference.key!r} holding an administrator's URI"
                " (postgresql://user:password@host:5432/dbname)",
                reason="SecretNotFound",
            )
        try:
            return AdminConnection.from_secret(secret.data, reference.key)
        except SecretError as exc:
            raise SecretError(f"{name}: {exc}") from exc

    def secret_of(self, key: Key) -> str | None:
        """The name of the Secret that a BusDatabase refers to."""
        resource = self._inventory.databases.get(key)
        try:
            return resource.database_spec().connection_secret_ref.name if resource else None
        except SpecError:
            return None

    # --- BusChannel --------------------------------------------------------------------------------------------------

    async def reconcile_channel(self, key: Key) -> float | None:
        """Looks at one BusChannel. Returns the seconds until it wants to be looked at again."""
        resource = self._inventory.channels.get(key)
        if resource is None:
            return None
        if resource.deleting:
            if FINALIZER in resource.finalizers:
                with suppress(_NotObservedYetError):
                    await self._delete_channel(resource)
                    self._wake_rivals_of(resource)
            return None
        if FINALIZER not in resource.finalizers:
            # Before anything is made in the database, so that nothing is left behind. Its event brings us back here.
            await self._kube.set_finalizer(resource, present=True)
            return None
        fields: dict[str, Any] = {}
        failure: BusError | None = None
        progress = _Progress()
        try:
            await self._provision_channel(resource, progress, fields)
        except _NotObservedYetError:
            return None
        except BusError as exc:
            if exc.reason == "Conflict":
                # Somebody else was faster; what is true now shows at the next look.
                raise
            failure = exc
        await self._report(resource, progress.conditions(failure), fields)
        if isinstance(failure, TransientError):
            raise failure
        return self._resync

    async def _provision_channel(self, resource: Resource, progress: "_Progress", fields: dict[str, Any]) -> None:
        spec = resource.channel_spec()
        wire_name = spec.wire_name(*resource.key)
        fields["channel"] = wire_name
        database = await self._database_for(resource, spec)
        fields["database"] = {"namespace": database.namespace, "name": database.name}
        yielding = self._younger_rivals(resource, wire_name, database)
        known, admin, clients = self._usable_database(database)

        secret_name = spec.secret_name(resource.name)
        secret = await self._kube.read_secret(resource.namespace, secret_name)
        if secret is not None:
            secret.require_owner(resource)
        present = secret.data if secret is not None else None
        held = held_credential(present)

        desired = DesiredChannel.from_spec(spec, namespace=resource.namespace, name=resource.name, uid=resource.uid)
        desired = replace(desired, owner_reference=f"{desired.owner_reference}@{await self._cluster_id()}")
        async with known.slots, connect(admin) as connection:
            with translate(str(admin.endpoint)):
                provisioned = await provision.provision(connection, desired, held, yielding)
        if provisioned.actions:
            logger.info("%s: %s", resource, ", ".join(map(str, provisioned.actions)))
        if any(isinstance(action, CreateChannel) for action in provisioned.actions):
            self._wake(database.kind, database.key)
        progress.provisioned = f"channel {wire_name!r} on {admin.endpoint}"

        credential = provisioned.issued or _as_issued(held, provisioned.generation)
        wanted = binding_data(clients, wire_name, spec, credential)
        if wanted != present:
            await self._kube.write_binding(resource, secret_name, wanted)
        progress.current = f"generation {provisioned.generation} in Secret {secret_name}"
        fields |= {
            "secretRef": {"name": secret_name},
            "peers": provisioned.counts.peers,
            "backlog": provisioned.counts.backlog,
            "credentialGeneration": provisioned.generation,
        }

    async def _database_for(self, resource: Resource, spec: ChannelSpec) -> Resource:
        """The BusDatabase that the channel names or that is its default, if the channel may use it."""
        if spec.database_ref is not None:
            key = (spec.database_ref.namespace or resource.namespace, spec.database_ref.name)
            found = self._inventory.databases.get(key)
            if found is None or found.deleting:
                raise SpecError(
                    f"there is no BusDatabase {key[0]}/{key[1]}: create it, or correct spec.databaseRef",
                    reason="DatabaseNotFound",
                )
            if not await self._allowed(found, resource.namespace):
                raise SpecError(
                    f"BusDatabase {key[0]}/{key[1]} does not allow namespace {resource.namespace}: its owner can"
                    " allow it in spec.allowedNamespaces",
                    reason="NamespaceNotAllowed",
                )
            return found
        defaults = list(self._inventory.defaults())
        own = [item for item in defaults if item.namespace == resource.namespace]
        others = [item for item in defaults if await self._allowed(item, resource.namespace)] if not own else []
        candidates = own or others
        if not candidates:
            raise SpecError(
                f"no BusDatabase is the default for namespace {resource.namespace}: set spec.databaseRef, or"
                " spec.default: true on a BusDatabase that allows this namespace",
                reason="NoDefaultDatabase",
            )
        if len(candidates) > 1:
            names = ", ".join(sorted(f"{item.namespace}/{item.name}" for item in candidates))
            raise SpecError(
                f"several BusDatabases are the default ({names}): set spec.databaseRef, or keep one default",
                reason="AmbiguousDefault",
            )
        return candidates[0]

    async def _allowed(self, database: Resource, namespace: str) -> bool:
        try:
            allowed = database.database_spec().allowed_namespaces
        except SpecError:
            return False
        labels = await self._kube.namespace_labels(namespace) if allowed.selector is not None else {}
        return allowed.allows(database.namespace, namespace, labels)

    def _younger_rivals(self, resource: Resource, wire_name: str, database: Resource) -> frozenset[Uid]:
        """BusChannels that want the same name in the same database: the oldest has it, and the others give way."""
        younger = set()
        for rival in self._rivals_of(resource, wire_name):
            if rival.status.get("database") != {"namespace": database.namespace, "name": database.name}:
                continue
            if (rival.created, rival.uid) < (resource.created, resource.uid):
                raise ChannelConflictError(
                    f"channel {wire_name!r} belongs to the older {rival}: choose another spec.channel,"
                    " or delete that one first"
                )
            younger.add(rival.uid)
        return frozenset(younger)

    def _rivals_of(self, resource: Resource, wire_name: str) -> Iterable[Resource]:
        for other in self._inventory.channels.values():
            if other.uid != resource.uid and other.status.get("channel") == wire_name:
                yield other

    def _wake_rivals_of(self, resource: Resource) -> None:
        for rival in self._rivals_of(resource, resource.status.get("channel", "")):
            self._wake(rival.kind, rival.key)

    def _usable_database(self, database: Resource) -> tuple[KnownDatabase, AdminConnection, Endpoint]:
        known = self._known.get(database.key)
        if known is None:
            raise _NotObservedYetError
        if known.failure is not None or known.admin is None or known.clients is None:
            # Nothing to retry here: the database has its own retries, and wakes its channels when it is back.
            raise SpecError(f"{database} is not ready: {known.failure}", reason="DatabaseUnavailable")
        return known, known.admin, known.clients

    async def _delete_channel(self, resource: Resource) -> None:
        """Does what the deletion policy says, then lets the resource go."""
        policy = str(resource.spec.get("deletionPolicy", "Retain"))
        wire_name = resource.status.get("channel")
        reference = resource.status.get("database")
        database = self._inventory.databases.get((reference["namespace"], reference["name"])) if reference else None
        if database is not None and wire_name is not None:
            try:
                await self._deprovision(resource, database, wire_name, policy)
            except BusError as exc:
                # Retain asks for nothing that needs the server; what the others ask for waits until it is back.
                if policy != "Retain":
                    await self._kube.post_event(
                        resource,
                        warning=True,
                        reason="DeletionWaits",
                        message=f"deletionPolicy {policy}: {exc}",
                    )
                    raise
                logger.warning("%s: retained channel %r without reaching the database: %s", resource, wire_name, exc)
        await self._kube.set_finalizer(resource, present=False)

    async def _deprovision(self, resource: Resource, database: Resource, wire_name: str, policy: str) -> None:
        known, admin, _ = self._usable_database(database)
        async with known.slots, connect(admin) as connection:
            with translate(str(admin.endpoint)):
                done = await provision.deprovision(connection, wire_name, resource.uid, policy)
        if done is None:
            return
        dropped = isinstance(done, DropChannel)
        logger.info("%s: %s channel %r", resource, "dropped" if dropped else "retained", wire_name)
        if policy == "DeleteIfEmpty" and not dropped:
            await self._kube.post_event(
                resource,
                warning=True,
                reason="NotEmpty",
                message=f"channel {wire_name!r} still holds messages: it was retained",
            )

    # --- shared ------------------------------------------------------------------------------------------------------

    async def _cluster_id(self) -> str:
        if self._cluster is None:
            self._cluster = await self._kube.cluster_id()
        return self._cluster

    def _wake_channels_of(self, key: Key) -> None:
        """Channels that use the database, and those without a database, which may be able to now."""
        for channel in self._inventory.channels.values():
            used = channel.status.get("database")
            if used is None or (used["namespace"], used["name"]) == key:
                self._wake(channel.kind, channel.key)

    async def _report(self, resource: Resource, conditions: list[Condition], fields: dict[str, Any]) -> None:
        """Writes the status when it changed, and an Event when the summary did."""
        now = self._clock()
        summary = status.ready(conditions)
        previous = resource.status.get("conditions", [])
        wanted = fields | {
            "observedGeneration": resource.generation,
            "conditions": status.merge(previous, [*conditions, summary], generation=resource.generation, now=now),
        }
        if not self._worth_writing(resource, wanted, now):
            return
        written = await self._kube.patch_status(resource, wanted)
        if written is not None:
            self._inventory.put(written)
        before = status.find(previous, "Ready") or {}
        if (before.get("status"), before.get("reason")) != (summary.status, summary.reason):
            await self._kube.post_event(
                resource, warning=summary.status != "True", reason=summary.reason, message=summary.message
            )

    @staticmethod
    def _worth_writing(resource: Resource, wanted: dict[str, Any], now: datetime) -> bool:
        changed = {name for name, value in wanted.items() if resource.status.get(name) != value}
        if changed != {"lastProbeTime"}:
            return bool(changed)
        last = datetime.fromisoformat(resource.status["lastProbeTime"]) if "lastProbeTime" in resource.status else None
        return last is None or now - last >= PROBE_TIME_INTERVAL


class _NotObservedYetError(Exception):
    """The channel's database has not been looked at since the operator started; that will wake the channel."""


def _as_issued(held: HeldCredential | None, generation: int | None) -> IssuedCredential:
    if held is None or generation is None:
        raise TransientError("the binding vanished while it was looked at", reason="Conflict")
    return IssuedCredential(held.username, held.password, generation)


def _database_failure(failure: BusError, *, reached: bool) -> list[Condition]:
    if reached:
        return [
            Condition.true("Reachable", "Connected", "connected"),
            Condition.false("Installed", failure.reason, str(failure)),
        ]
    return [
        Condition.false("Reachable", failure.reason, str(failure)),
        Condition.unknown("Installed", "Waiting", "the database cannot be reached"),
    ]


class _Progress:
    """How far reconciling a channel got: the conditions follow from it."""

    def __init__(self) -> None:
        self.provisioned: str | None = None
        self.current: str | None = None

    def conditions(self, failure: BusError | None) -> list[Condition]:
        """Provisioned and CredentialsCurrent, the failure at the first that was not reached."""
        reason, message = (failure.reason, str(failure)) if failure else ("Waiting", "")
        if self.provisioned is None:
            return [
                Condition.false("Provisioned", reason, message),
                Condition.unknown("CredentialsCurrent", "Waiting", "the channel is not provisioned"),
            ]
        done = Condition.true("Provisioned", "Provisioned", self.provisioned)
        if self.current is None:
            return [done, Condition.false("CredentialsCurrent", reason, message)]
        return [done, Condition.true("CredentialsCurrent", "Current", self.current)]
