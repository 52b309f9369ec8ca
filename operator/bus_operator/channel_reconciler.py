"""Level-triggered reconciliation of BusChannels: provisioned, bound to a Secret, reported."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from bus_operator import isolation, provision, shards, tallies
from bus_operator.actions import CreateChannel, DesiredChannel
from bus_operator.binding import is_current
from bus_operator.binding_drift import changes_by_hand
from bus_operator.binding_watch import BindingWatch
from bus_operator.breaker import SuspectError
from bus_operator.channel_deletion import ChannelDeletion
from bus_operator.channel_progress import Found, Progress, Task
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.drift_telling import REPAIRED, tell_repaired
from bus_operator.errors import BusError, SecretError, TransientError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import FINALIZER, Kube
from bus_operator.kube_objects import Secret
from bus_operator.ledger import Ledger, Surveyed
from bus_operator.plan_credentials import HeldCredential
from bus_operator.probes import Subject
from bus_operator.provision import ProvisionedChannel
from bus_operator.reporting import Reporter, Wake, usage
from bus_operator.roles import IssuedCredential
from bus_operator.rotation import Rotation
from bus_operator.rotation_deadlines import RotationDeadlines
from bus_operator.selection import Selection
from bus_operator.shards import Shard
from bus_operator.verification_schedule import VerificationSchedule, condition
from bus_operator.withdrawal import Withdrawal

logger = logging.getLogger(__name__)

COUNT_DELAY = 2.0
"""Seconds until the database of a new channel counts its channels."""


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
        deadlines: Where it is noted when their credentials must have changed.
        ledger: Where those that are right are noted.
        bindings: Watches their Secrets.
        reporter: Where the outcome goes.
        wake: Asks for another resource to be reconciled soon.
        credential_unused: How long nobody must be seen to use replaced credentials before they end.
        resync: Seconds after which those are looked at again of which nobody else knows when.
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
        deadlines: RotationDeadlines,
        ledger: Ledger,
        bindings: BindingWatch,
        reporter: Reporter,
        wake: Wake,
        credential_unused: timedelta,
        resync: float,
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._selection = selection
        self._databases = databases
        self._reporter = reporter
        self._wake = wake
        self._deletion = deletion
        self._withdrawal = withdrawal
        self._ledger = ledger
        self._bindings = bindings
        self._resync = resync
        self._credential_unused = credential_unused
        self._schedule = schedule
        self._deadlines = deadlines
        self._cluster: str | None = None

    async def reconcile(self, key: Key) -> float | None:
        """Looks at one BusChannel.

        Returns:
            The seconds after which it is to be looked at again; None: its database sees to that, or it is gone.

        Raises:
            TransientError: When it should be tried again soon.
            VerdictPendingError: When its database is probed first; the verdict wakes it.
        """
        await self._deletion.settle_escaped(key)
        resource = self._inventory.channels.get(key)
        if resource is None or resource.deleting:
            self._ledger.forget(key)
            self._deadlines.forget(key)
        if resource is None:
            return None
        if resource.deleting:
            await self._deletion.finalize(resource)
            return self._resync if key in self._inventory.channels else None
        if FINALIZER not in resource.finalizers:
            # Before anything is made in the database, so that nothing is left behind.
            written = await self._kube.set_finalizer(resource, present=True)
            # Not left to its event: a watch that was cut off may not know it yet.
            if written is not None and self._inventory.put(written):
                self._wake(written.kind, written.key)
            return self._resync
        return await self._make(resource)

    async def _make(self, resource: Resource) -> float | None:
        surveyed = self._databases.take_surveyed(resource)
        if surveyed is not None and self._ledger.agrees(resource, surveyed.observed):
            await self._reporter.refresh(resource, usage(surveyed.counts))
            return None
        self._ledger.forget(resource.key)
        fields: dict[str, Any] = {}
        failure: BusError | None = None
        progress = Progress()
        try:
            await self._provision(resource, surveyed, progress, fields)
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
            self._deadlines.forget(resource.key)
            tallies.failed(resource.kind, failure.reason)
            # What waits for its database is woken by that.
            return None if failure.reason == "DatabaseUnavailable" else self._resync
        if progress.found is not None:
            self._note(resource, progress, progress.found)
        if self._ledger.is_settled(resource.key):
            return progress.next_look
        return min(self._resync, progress.next_look or self._resync)

    def _note(self, resource: Resource, progress: Progress, found: Found) -> None:
        """Notes what was found; has it looked at again if that is not true any more."""
        if self._bindings.is_outdated(resource.namespace, found.secret, found.secret_version):
            self._wake(resource.kind, resource.key)
            return
        at_rest = found.at_rest and (progress.verdict is None or progress.verdict.reason == "Verified")
        self._ledger.note(
            resource,
            found.observed if at_rest else None,
            secret=found.secret,
            secret_version=found.secret_version,
            look_again=progress.next_look,
        )
        self._bindings.cover(resource.namespace)

    async def _provision(
        self, resource: Resource, surveyed: Surveyed | None, progress: Progress, fields: dict[str, Any]
    ) -> None:
        spec = resource.channel_spec()
        wire_name = spec.wire_name(*resource.key)
        fields["channel"] = wire_name
        database = await self._selection.database_of(resource, spec)
        fields["database"] = {"namespace": database.namespace, "name": database.name}
        yielding = self._selection.younger_rivals(resource, wire_name, database)
        usable = self._databases.usable(database, resource)

        secret_name = spec.secret_name(resource.name)
        present, refusal = await self._read_binding(resource, secret_name)
        desired = DesiredChannel.from_spec(spec, namespace=resource.namespace, name=resource.name, uid=resource.uid)
        desired = replace(desired, owner_reference=f"{desired.owner_reference}@{await self._cluster_id()}")
        rotation = Rotation(resource, spec, unused=self._credential_unused)
        task = Task(resource, spec, usable, desired, yielding, rotation, present, binding_wanted=refusal is None)
        subject = None
        known = self._as_surveyed(task, surveyed)
        if known is not None:
            shard, provisioned = known
        else:
            with self._databases.suspecting(database):
                shard, provisioned, subject = await self._in_database(task, progress)
        await self._tell_done(resource, database, wire_name, provisioned)
        progress.provisioned = f"channel {wire_name!r} on {shard}"
        fields["shard"] = shard.index
        fields |= usage(provisioned.counts)
        for reason in (refusal, provisioned.refusal):
            if reason is not None:
                raise reason

        credential = provisioned.issued or _as_issued(task.held, provisioned.generation)
        wanted = task.binding(shard, credential)
        if not is_current(task.data, wanted):
            await self._tell_edits(resource, secret_name, task.data, wanted, reissued=provisioned.issued is not None)
            if provisioned.issued is None:
                task.version = await self._kube.write_binding(resource, secret_name, wanted)
        progress.found = Found(provisioned.channel, provisioned.actions, secret_name, task.version)
        await rotation.tell(provisioned, self._kube, self._reporter)
        progress.current = rotation.condition(provisioned.channel, provisioned.generation, secret_name)
        progress.next_look = rotation.next_look(provisioned.channel)
        self._deadlines.note(resource.key, rotation.next_step(provisioned.channel))
        fields |= {
            "secretRef": {"name": secret_name},
            "credentialGeneration": provisioned.generation,
            "rotationRequest": rotation.request_answered(provisioned.channel),
        }
        if subject is not None:
            async with usable.slots:
                progress.verdict = await isolation.verify(shard.admin.endpoint, credential, subject)
            fields |= self._schedule.done(resource, progress.verdict)

    def _as_surveyed(self, task: Task, surveyed: Surveyed | None) -> tuple[Shard, ProvisionedChannel] | None:
        """What a survey says, if that is all there is to know and to do."""
        if surveyed is None:
            return None
        found = provision.confirmed(
            surveyed.observed,
            surveyed.counts,
            task.desired,
            task.held,
            task.yielding,
            rotation=task.rotation.rules,
            binding_wanted=task.binding_wanted,
        )
        if found is None or self._is_to_be_verified(task, found):
            return None
        return task.usable.shards.at(surveyed.shard), found

    async def _in_database(self, task: Task, progress: Progress) -> tuple[Shard, ProvisionedChannel, Subject | None]:
        """Makes the channel as it should be; also whom attempts are aimed at, if its isolation is to be verified."""
        usable, wire_name = task.usable, task.desired.name
        last = task.resource.status.get("shard")
        async with usable.slots, shards.placed(usable.shards, wire_name, last, usable.connect) as place:
            shard, connection, taken = place

            async def deliver(issued: IssuedCredential) -> None:
                await taken()
                progress.provisioned = f"channel {wire_name!r} on {shard}"
                endpoint = shard.admin.endpoint
                await task.rotation.verify(issued, endpoint, endpoint.for_clients(usable.clients))
                wanted, name = task.binding(shard, issued), task.spec.secret_name(task.resource.name)
                task.version = await self._kube.write_binding(task.resource, name, wanted)

            provisioned = await provision.provision(
                connection,
                task.desired,
                task.held,
                task.yielding,
                rotation=task.rotation.rules,
                binding_wanted=task.binding_wanted,
                deliver=deliver,
            )
            subject = None
            if self._is_to_be_verified(task, provisioned):
                subject = await isolation.find_subject(connection, wire_name)
            return shard, provisioned, subject

    def _is_to_be_verified(self, task: Task, provisioned: ProvisionedChannel) -> bool:
        return task.binding_wanted and self._schedule.is_due(task.resource, provisioned.generation)

    async def _tell_done(
        self, resource: Resource, database: Resource, wire_name: str, provisioned: ProvisionedChannel
    ) -> None:
        """Wakes whom it concerns, and says what was put right."""
        if not provisioned.actions:
            return
        logger.info("%s: %s", resource, ", ".join(map(str, provisioned.actions)))
        for rival in self._selection.rivals_of(resource, wire_name):
            self._wake(rival.kind, rival.key)
        await tell_repaired(self._reporter, resource, provisioned.drift)
        if any(isinstance(action, CreateChannel) for action in provisioned.actions):
            # For its count. Not at once: channels come in crowds.
            self._wake(database.kind, database.key, delay=COUNT_DELAY)
            if "credentialGeneration" in resource.status:
                lost = "its row was gone from the registry: the channel was made anew, and what was in it is lost"
                await self._reporter.tell(resource, warning=True, reason=REPAIRED, message=lost)

    async def _tell_edits(
        self,
        resource: Resource,
        name: str,
        present: Mapping[str, str] | None,
        wanted: Mapping[str, str | None],
        *,
        reissued: bool,
    ) -> None:
        if resource.status.get("secretRef") != {"name": name}:
            return
        if by_hand := changes_by_hand(name, present, wanted, reissued=reissued):
            await self._reporter.tell(resource, warning=True, reason=REPAIRED, message=by_hand)

    async def _read_binding(self, resource: Resource, name: str) -> tuple[Secret | None, SecretError | None]:
        """The binding's Secret, if there is one; else why it may not be used.

        The channel can be made all the same, without a credential that could be kept nowhere.
        """
        try:
            secret = await self._kube.read_secret(resource.namespace, name)
            if secret is not None:
                secret.require_owner(resource)
        except SecretError as exc:
            return None, exc
        return secret, None

    async def _cluster_id(self) -> str:
        if self._cluster is None:
            self._cluster = await self._kube.cluster_id()
        return self._cluster


def _as_issued(held: HeldCredential | None, generation: int | None) -> IssuedCredential:
    if held is None or generation is None:
        raise TransientError("the binding vanished while it was looked at", reason="Conflict")
    return IssuedCredential(held.username, held.password, generation)
