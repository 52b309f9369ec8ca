"""What becomes of a BusChannel that is being deleted: its channel dropped or retained, then the resource let go."""

import logging

from bus_operator import provision, shards
from bus_operator.actions import DropChannel
from bus_operator.breaker import SuspectError
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.errors import AuthenticationFailedError, BusError, ConnectionFailedError, SpecError, TransientError
from bus_operator.inventory import Inventory, Resource
from bus_operator.kube import FINALIZER, Kube
from bus_operator.reporting import Reporter, Wake
from bus_operator.selection import Selection
from bus_operator.status import Condition

logger = logging.getLogger(__name__)


class ChannelDeletion:
    """Does what the deletion policies say.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        selection: Where a channel belongs.
        databases: What is known about the databases.
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
        reporter: Reporter,
        wake: Wake,
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._selection = selection
        self._databases = databases
        self._reporter = reporter
        self._wake = wake

    async def finalize(self, resource: Resource) -> None:
        """Does what the deletion policy says, then lets the resource go."""
        if FINALIZER not in resource.finalizers:
            return
        policy = str(resource.spec.get("deletionPolicy", "Retain"))
        wire_name, database = await self._whereabouts(resource)
        if database is not None and wire_name is not None:
            try:
                await self._deprovision(resource, database, wire_name, policy)
            except BusError as exc:
                # Retain asks for nothing that needs the server; what the others ask for waits until it is back.
                if policy != "Retain":
                    if isinstance(exc, SuspectError):
                        raise
                    await self._reporter.report(resource, _waiting(policy, exc), {})
                    if isinstance(exc, TransientError):
                        raise
                    return
                logger.warning("%s: retained channel %r without reaching the database: %s", resource, wire_name, exc)
        elif policy != "Retain" and wire_name is not None:
            await self._reporter.tell(
                resource,
                warning=True,
                reason="NotDropped",
                message=f"deletionPolicy {policy}: its BusDatabase is gone, channel {wire_name!r} was left as it is",
            )
        await self._kube.set_finalizer(resource, present=False)
        self._inventory.remove(resource)
        for rival in self._selection.rivals_of(resource, wire_name):
            self._wake(rival.kind, rival.key)

    async def _whereabouts(self, resource: Resource) -> tuple[str | None, Resource | None]:
        """Wire name and database: as reported, else as specified, for what was made and not reported any more."""
        wire_name, database = resource.status.get("channel"), self._selection.last_database_of(resource)
        if "database" in resource.status:
            return wire_name, database
        try:
            spec = resource.channel_spec()
            return spec.wire_name(*resource.key), await self._selection.database_of(resource, spec)
        except SpecError:
            return None, None

    async def _deprovision(self, resource: Resource, database: Resource, wire_name: str, policy: str) -> None:
        usable = self._databases.usable(database, resource)
        try:
            async with usable.slots:
                shard = await shards.find(usable.shards, wire_name, resource.status.get("shard"), usable.connect)
                if shard is None:
                    return
                async with usable.connect(shard.admin) as connection:
                    done = await provision.deprovision(connection, wire_name, resource.uid, policy)
        except (ConnectionFailedError, AuthenticationFailedError) as exc:
            raise self._databases.suspect(database, exc) from exc
        if done is None:
            return
        dropped = isinstance(done, DropChannel)
        logger.info("%s: %s channel %r", resource, "dropped" if dropped else "retained", wire_name)
        if dropped:
            self._wake(database.kind, database.key)
        elif policy == "DeleteIfEmpty":
            await self._reporter.tell(
                resource,
                warning=True,
                reason="NotEmpty",
                message=f"channel {wire_name!r} still holds messages: it was retained",
            )


def _waiting(policy: str, failure: BusError) -> list[Condition]:
    return [
        Condition.unknown("Provisioned", "DeletionWaits", f"deletionPolicy {policy}: {failure}"),
        Condition.unknown("CredentialsCurrent", "Waiting", "the channel is being deleted"),
    ]
