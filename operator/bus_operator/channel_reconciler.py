"""Level-triggered reconciliation of BusChannels: provisioned, bound to a Secret, reported."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from bus_operator import isolation, provision, shards, tallies
from bus_operator.actions import CreateChannel, DesiredChannel
from bus_operator.binding import binding_data, held_credential, is_current
from bus_operator.binding_drift import changes_by_hand
from bus_operator.breaker import SuspectError, VerdictPendingError
from bus_operator.catalog import ChannelCounts
from bus_operator.channel_deletion import ChannelDeletion
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.drift_telling import REPAIRED, tell_repaired
from bus_operator.errors import (
    AuthenticationFailedError,
    BusError,
    ConnectionFailedError,
    SecretError,
    TransientError,
)
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import FINALIZER, Kube
from bus_operator.model import format_age
from bus_operator.plan_credentials import HeldCredential
from bus_operator.probes import Verdict
from bus_operator.provision import ProvisionedChannel
from bus_operator.reporting import Reporter, Wake
from bus_operator.roles import IssuedCredential
from bus_operator.rotation import Rotation
from bus_operator.selection import Selection
from bus_operator.status import Condition
from bus_operator.verification_schedule import VerificationSchedule, condition
from bus_operator.withdrawal import Withdrawal

logger = logging.getLogger(__name__)


class ChannelReconciler:
    """Makes channels and bindings agree with the BusChannels.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        selection: Where a channel belongs.
        databases: What is known about the databases.
        deletion: Sees to those that are being deleted.
        withdrawal: Sees to those that are not allowed any more.
        schedule: When a channel's isolation is verified.
        reporter: Where the outcome goes.
        wake: Asks for another resource to be reconciled soon.
        credential_unused: How long nobody must be seen to use replaced credentials before they end.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        selection: Selection,
        databases: DatabaseReconciler,
        deletion: ChannelDeletion,
        withdrawal: Withdrawal,
        schedule: VerificationSchedule,
        reporter: Reporter,
        wake: Wake,
        credential_unused: timedelta,
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._selection = selection
        self._databases = databases
        self._reporter = reporter
        self._wake = wake
        self._deletion = deletion
        self._withdrawal = withdrawal
        self._credential_unused = credential_unused
        self._schedule = schedule
        self._cluster: str | None = None

    async def reconcile(self, key: Key) -> float | None:
        """Looks at one BusChannel. Raises TransientError when it should be tried again soon.

        Returns:
            The seconds after which time may have brought something about; None: never.
        """
        resource = self._inventory.channels.get(key)
        if resource is None:
            return None
        try:
            if resource.deleting:
                await self._deletion.finalize(resource)
            elif FINALIZER not in resource.finalizers:
                # Before anything is made in the database, so that nothing is left behind.
                written = await self._kube.set_finalizer(resource, present=True)
                # Not left to its event: a watch that was cut off may not know it yet.
                if written is not None and self._inventory.put(written):
                    self._wake(written.kind, written.key)
            else:
                return await self._make(resource)
        except VerdictPendingError:
            # The verdict wakes it.
            pass
        return None

    async def _make(self, resource: Resource) -> float | None:
        fields: dict[str, Any] = {}
        failure: BusError | None = None
        progress = _Progress()
        try:
            await self._provision(resource, progress, fields)
        except BusError as exc:
            if exc.reason == "Conflict" or isinstance(exc, SuspectError):
                # Somebody else was faster, or a session broke; what is true now shows at the next look.
                raise
            failure = exc
            if exc.reason == "NamespaceNotAllowed":
                progress.withdrawn = await self._withdrawal.withdraw(resource)
                if progress.withdrawn is not None:
                    fields["credentialGeneration"] = None
        conditions = [*progress.conditions(failure), condition(resource, progress.verdict)]
        await self._reporter.report(resource, conditions, fields)
        if isinstance(failure, TransientError):
            raise failure
        if failure is not None:
            tallies.failed(resource.kind, failure.reason)
        return progress.next_look

    async def _provision(self, resource: Resource, progress: "_Progress", fields: dict[str, Any]) -> None:
        spec = resource.channel_spec()
        wire_name = spec.wire_name(*resource.key)
        fields["channel"] = wire_name
        database = await self._selection.database_of(resource, spec)
        fields["database"] = {"namespace": database.namespace, "name": database.name}
        yielding = self._selection.younger_rivals(resource, wire_name, database)
        usable = self._databases.usable(database, resource)

        secret_name = spec.secret_name(resource.name)
        present, refusal = await self._read_binding(resource, secret_name)
        held = held_credential(present)

        desired = DesiredChannel.from_spec(spec, namespace=resource.namespace, name=resource.name, uid=resource.uid)
        desired = replace(desired, owner_reference=f"{desired.owner_reference}@{await self._cluster_id()}")
        last = resource.status.get("shard")
        rotation = Rotation(resource, spec, unused=self._credential_unused)
        try:
            async with (
                usable.slots,
                shards.placed(usable.shards, wire_name, last, usable.connect) as (shard, connection),
            ):
                server, clients = shard.admin.endpoint, shard.admin.endpoint.for_clients(usable.clients)

                async def deliver(issued: IssuedCredential) -> None:
                    progress.provisioned = f"channel {wire_name!r} on {shard}"
                    await rotation.verify(issued, server, clients)
                    await self._kube.write_binding(
                        resource, secret_name, binding_data(clients, wire_name, spec, issued)
                    )

                provisioned = await provision.provision(
                    connection,
                    desired,
                    held,
                    yielding,
                    rotation=rotation.rules,
                    binding_wanted=refusal is None,
                    deliver=deliver,
                )
                subject = None
                if refusal is None and self._schedule.is_due(resource, provisioned.generation):
                    subject = await isolation.find_subject(connection, wire_name)
        except (ConnectionFailedError, AuthenticationFailedError) as exc:
            raise self._databases.suspect(database, exc) from exc
        await self._tell_done(resource, database, wire_name, provisioned)
        progress.provisioned = f"channel {wire_name!r} on {shard}"
        fields["shard"] = shard.index
        fields |= _usage(provisioned.counts)
        if refusal is not None:
            raise refusal

        credential = provisioned.issued or _as_issued(held, provisioned.generation)
        wanted = binding_data(clients, wire_name, spec, credential)
        if not is_current(present, wanted):
            await self._tell_edits(resource, secret_name, present, wanted, reissued=provisioned.issued is not None)
            if provisioned.issued is None:
                await self._kube.write_binding(resource, secret_name, wanted)
        await rotation.tell(provisioned, self._kube, self._reporter)
        progress.current = rotation.condition(provisioned.channel, provisioned.generation, secret_name)
        progress.next_look = rotation.next_look(provisioned.channel)
        fields |= {
            "secretRef": {"name": secret_name},
            "credentialGeneration": provisioned.generation,
            "rotationRequest": rotation.request_answered(provisioned.channel),
        }
        if subject is not None:
            async with usable.slots:
                progress.verdict = await isolation.verify(server, credential, subject)
            fields |= self._schedule.done(resource, progress.verdict)

    async def _tell_done(
        self, resource: Resource, database: Resource, wire_name: str, provisioned: ProvisionedChannel
    ) -> None:
        """Wakes whom it concerns, and says what was put right."""
        if not provisioned.actions:
            return
        logger.info("%s: %s", resource, ", ".join(map(str, provisioned.actions)))
        self._wake_rivals_of(resource, wire_name)
        await tell_repaired(self._reporter, resource, provisioned.drift)
        if any(isinstance(action, CreateChannel) for action in provisioned.actions):
            self._wake(database.kind, database.key)
            if "credentialGeneration" in resource.status:
                lost = "its row was gone from the registry: the channel was made anew, and what was in it is lost"
                await self._reporter.tell(resource, warning=True, reason=REPAIRED, message=lost)

    async def _tell_edits(
        self,
        resource: Resource,
        name: str,
        present: Mapping[str, str] | None,
        wanted: Mapping[str, str],
        *,
        reissued: bool,
    ) -> None:
        if resource.status.get("secretRef") != {"name": name}:
            return
        if by_hand := changes_by_hand(name, present, wanted, reissued=reissued):
            await self._reporter.tell(resource, warning=True, reason=REPAIRED, message=by_hand)

    async def _read_binding(self, resource: Resource, name: str) -> tuple[Mapping[str, str] | None, SecretError | None]:
        """The entries of the binding's Secret, None when there is none; and why it cannot be used.

        The channel can be made all the same, without a credential that could be kept nowhere.
        """
        try:
            secret = await self._kube.read_secret(resource.namespace, name)
            if secret is None:
                return None, None
            secret.require_owner(resource)
        except SecretError as exc:
            return None, exc
        return secret.data, None

    def _wake_rivals_of(self, resource: Resource, wire_name: str | None) -> None:
        for rival in self._selection.rivals_of(resource, wire_name):
            self._wake(rival.kind, rival.key)

    async def _cluster_id(self) -> str:
        if self._cluster is None:
            self._cluster = await self._kube.cluster_id()
        return self._cluster


def _usage(counts: ChannelCounts) -> dict[str, Any]:
    return {
        "peers": counts.peers,
        "wake": {"doorbell": counts.doorbell, "listen": counts.listen, "poll": counts.poll},
        "backlog": counts.backlog,
        # Without a backlog the field goes: null in a merge patch.
        "oldestMessageAge": format_age(counts.oldest) if counts.oldest is not None else None,
    }


def _as_issued(held: HeldCredential | None, generation: int | None) -> IssuedCredential:
    if held is None or generation is None:
        raise TransientError("the binding vanished while it was looked at", reason="Conflict")
    return IssuedCredential(held.username, held.password, generation)


class _Progress:
    """How far reconciling a channel got: the conditions follow from it."""

    def __init__(self) -> None:
        self.provisioned: str | None = None
        self.current: Condition | None = None
        self.next_look: float | None = None
        self.withdrawn: str | None = None
        self.verdict: Verdict | None = None

    def conditions(self, failure: BusError | None) -> list[Condition]:
        """Provisioned and CredentialsCurrent, the failure at the first that was not reached."""
        reason, message = (failure.reason, str(failure)) if failure else ("Waiting", "")
        if self.withdrawn is not None:
            return [
                Condition.false("Provisioned", reason, f"{message}; {self.withdrawn}"),
                Condition.false("CredentialsCurrent", reason, self.withdrawn),
            ]
        if self.provisioned is None:
            return [
                Condition.false("Provisioned", reason, message),
                Condition.unknown("CredentialsCurrent", "Waiting", "the channel is not provisioned"),
            ]
        done = Condition.true("Provisioned", "Provisioned", self.provisioned)
        if self.current is None:
            return [done, Condition.false("CredentialsCurrent", reason, message)]
        return [done, self.current]
