"""What becomes of a BusChannel that is being deleted: its channel dropped or retained, then the resource let go.

Nothing holds the resource for long. What cannot be done at once is noted on the BusDatabase (`pending_deletions`);
where there is no BusDatabase any more, the channel stays in the database as it is. Only where the operator may not read
the BusDatabase's namespace does the resource wait: whether there is one, and what is owed, could not be noted anywhere.
"""

import asyncio
import logging

from bus_operator import provision, shards
from bus_operator.actions import DropChannel
from bus_operator.breaker import SuspectError
from bus_operator.channel_progress import Progress
from bus_operator.database_access import UsableDatabase
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.errors import (
    AuthenticationFailedError,
    BusError,
    ConnectionFailedError,
    NamespaceUnreadableError,
    SpecError,
    TransientError,
)
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import FINALIZER, Kube
from bus_operator.kube_objects import Refusal
from bus_operator.model import Uid
from bus_operator.pending_deletions import PendingDeletions
from bus_operator.reporting import Reporter, Wake
from bus_operator.selection import Selection

logger = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds that a deletion may take, waiting for its turn included, before it is noted for later."""


class ChannelDeletion:
    """Does what the deletion policies say.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        selection: Where a channel belongs.
        databases: What is known about the databases.
        pending: Keeps what cannot be done at once.
        reporter: Where the outcome goes.
        wake: Asks for another resource to be reconciled soon.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        selection: Selection,
        databases: DatabaseReconciler,
        pending: PendingDeletions,
        reporter: Reporter,
        wake: Wake,
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._selection = selection
        self._databases = databases
        self._pending = pending
        self._reporter = reporter
        self._wake = wake
        self._waited: set[Uid] = set()
        """Those that have waited for a probe of their database once: a server that comes and goes keeps nobody."""
        self._letting_go: set[Uid] = set()
        self._escaped: dict[Uid, Resource] = {}

    async def finalize(self, resource: Resource) -> None:
        """Does what the deletion policy says, or sees to it that it will be done; then lets the resource go."""
        if FINALIZER not in resource.finalizers:
            return
        policy = str(resource.spec.get("deletionPolicy", "Retain"))
        wire_name = None
        try:
            if (place := await self._whereabouts(resource)) is not None:
                wire_name, database = place
                await self._settle(resource, wire_name, database, policy)
        except NamespaceUnreadableError as exc:
            await self._reporter.report(resource, Progress().conditions(exc), {})
            raise
        self._letting_go.add(resource.uid)
        try:
            await self._kube.set_finalizer(resource, present=False)
            self._inventory.remove(resource)
        finally:
            self._letting_go.discard(resource.uid)
        self._waited.discard(resource.uid)
        for rival in self._selection.rivals_of(resource, wire_name):
            self._wake(rival.kind, rival.key)

    def went(self, resource: Resource) -> None:
        """Takes one that is gone, and was there as far as was known: our doing, or somebody took our finalizer off."""
        if resource.uid not in self._letting_go:
            self._escaped[resource.uid] = resource

    async def settle_escaped(self, key: Key) -> None:
        """Ends the credentials of those with this key that went without us: nobody else would ever take them away."""
        for resource in [item for item in self._escaped.values() if item.key == key]:
            if (place := await self._whereabouts(resource)) is not None:
                logger.info("%s: gone without having been let go: its logins are dropped, its messages stay", resource)
                # Not what its policy says: it did not go in the way in which that is carried out.
                await self._settle(resource, *place, "Retain")
            self._escaped.pop(resource.uid, None)
            self._waited.discard(resource.uid)

    async def _whereabouts(self, resource: Resource) -> tuple[str, Key] | None:
        """Wire name and database: as reported, else as specified, for what was made and not reported any more."""
        reported, last = resource.status.get("channel"), self._selection.last_database_of(resource)
        if reported is not None and last is not None:
            return reported, last
        try:
            spec = resource.channel_spec()
            database = await self._selection.database_of(resource, spec)
        except SpecError:
            # It never had a place in a database.
            return None
        return spec.wire_name(*resource.key), database.key

    async def _settle(self, resource: Resource, wire_name: str, key: Key, policy: str) -> None:
        failure: BusError
        try:
            async with asyncio.timeout(PATIENCE):
                await self._deprovision(resource, key, wire_name, policy)
            return
        except TimeoutError:
            failure = TransientError(f"it took longer than {PATIENCE:.0f} s", reason="DatabaseError")
            self._suspect(key, failure)
        except BusError as exc:
            failure = exc
        if failure.reason == "Conflict":
            # Somebody else was faster; what is true now shows at the next look.
            raise failure
        if isinstance(failure, SuspectError) and resource.uid not in self._waited:
            self._waited.add(resource.uid)
            raise failure
        await self._leave_for_later(resource, wire_name, key, policy, failure)

    async def _usable(self, resource: Resource, key: Key) -> UsableDatabase:
        """How to use the database. In a namespace that is going away, its BusDatabase or Secret may have gone first."""
        database = self._selection.existing(key)
        try:
            if database is None:
                raise SpecError(f"there is no BusDatabase {'/'.join(key)} any more", reason="DatabaseNotFound")
            return self._databases.usable(database, resource)
        except SpecError:
            last = self._databases.last_usable(key)
            if last is not None and key[0] == resource.namespace and await self._kube.is_terminating(key[0]):
                return last
            raise

    def _suspect(self, key: Key, failure: BusError) -> BusError:
        """Spares the others from finding out the same one by one. Returns what to raise."""
        database = self._selection.existing(key)
        if database is None:
            self._databases.forget_last(key)
            return failure
        return self._databases.suspect(database, failure)

    async def _deprovision(self, resource: Resource, key: Key, wire_name: str, policy: str) -> None:
        usable = await self._usable(resource, key)
        try:
            async with usable.slots:
                if usable.last_resort and self._databases.last_usable(key) is not usable:
                    raise SpecError(
                        f"the server of BusDatabase {'/'.join(key)} cannot be reached", reason="ConnectionFailed"
                    )
                last = resource.status.get("shard")
                async with shards.holding(usable.shards, wire_name, last, usable.connect) as session:
                    if session is None:
                        return
                    done = await provision.deprovision(session, wire_name, resource.uid, policy)
        except (ConnectionFailedError, AuthenticationFailedError) as exc:
            raise self._suspect(key, exc) from exc
        if done is None:
            return
        dropped = isinstance(done, DropChannel)
        logger.info("%s: %s channel %r", resource, "dropped" if dropped else "retained", wire_name)
        if dropped:
            self._wake("BusDatabase", key)
        elif policy == "DeleteIfEmpty":
            await self._reporter.tell(
                resource,
                warning=True,
                reason="NotEmpty",
                message=f"channel {wire_name!r} still holds messages: it was retained",
            )

    async def _leave_for_later(
        self, resource: Resource, wire_name: str, key: Key, policy: str, failure: BusError
    ) -> None:
        database = self._selection.existing(key)
        try:
            if database is None:
                raise SpecError("its BusDatabase is gone", reason="DatabaseNotFound")
            await self._pending.note(database, resource, wire_name, policy)
        except SpecError as exc:
            if await self._is_unknown(key[0]):
                raise NamespaceUnreadableError(
                    f"deletionPolicy {policy} can be neither carried out on channel {wire_name!r} nor noted on"
                    f" BusDatabase {'/'.join(key)}",
                    key[0],
                ) from exc
            logger.warning("%s: channel %r was left as it is: %s; %s", resource, wire_name, failure, exc)
            if policy != "Retain":
                await self._reporter.tell(
                    resource,
                    warning=True,
                    reason="NotDropped",
                    message=f"deletionPolicy {policy}: {exc}, channel {wire_name!r} was left as it is",
                )
            return
        logger.info("%s: channel %r: %s is pending: %s", resource, wire_name, policy, failure)
        await self._reporter.tell(
            resource,
            warning=policy != "Retain",
            reason="DeletionPending",
            message=f"deletionPolicy {policy} is carried out on channel {wire_name!r} when {database} can be used"
            f" again; until then the logins stay: {failure}",
        )

    async def _is_unknown(self, namespace: str) -> bool:
        """Whether a BusDatabase in this namespace may be there, for all that is known at this moment."""
        if namespace in self._inventory.unread:
            return True
        return await self._kube.refusal(namespace) not in (None, Refusal.GONE)
