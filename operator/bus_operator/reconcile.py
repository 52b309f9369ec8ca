"""Level-triggered reconciliation: looks at what is, never at what happened.

`Reconciler` puts the parts together: the inventory (what the watches saw), the Kubernetes API, and the reconcilers of
the two kinds, which change databases by `provision` as `busctl` does. A failure becomes a condition first; one that may
pass is then raised, so that the work queue comes back to it.
"""

from datetime import timedelta

from bus_operator.binding_watch import BindingWatch
from bus_operator.channel_deletion import ChannelDeletion
from bus_operator.channel_reconciler import ChannelReconciler
from bus_operator.database_reconciler import DatabaseReconciler, RecordSurvey
from bus_operator.drift_telling import DriftTeller
from bus_operator.inventory import Inventory, Key
from bus_operator.kube import Kube
from bus_operator.ledger import Ledger
from bus_operator.namespaces import Namespaces
from bus_operator.pending_deletions import PendingDeletions
from bus_operator.reporting import Reporter, Wake
from bus_operator.rotation_deadlines import RotationDeadlines
from bus_operator.selection import Selection
from bus_operator.verification_schedule import VerificationSchedule
from bus_operator.withdrawal import Withdrawal


class Reconciler:
    """Makes the databases and the API server agree with the manifests, by the parts that it holds.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        wake: Asks for a resource to be reconciled soon.
        record_survey: Takes how the channels of a database are used.
        resync: Seconds after which everything is looked at again.
        credential_unused: How long nobody must be seen to use replaced credentials before they end.
        verification_interval: Seconds between two verifications of a channel's isolation.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        wake: Wake,
        record_survey: RecordSurvey,
        resync: float,
        credential_unused: timedelta,
        verification_interval: float,
    ) -> None:
        self._inventory = inventory
        self._resync = resync
        self._ledger = ledger = Ledger()
        nudge = wake

        def wake_afresh(kind: str, key: Key, *, delay: float = 0) -> None:
            """Whatever the ledger says: who asks knows of something new."""
            if kind == "BusChannel":
                ledger.forget(key)
            nudge(kind, key, delay=delay)

        self._wake = wake = wake_afresh
        self.deadlines = RotationDeadlines(inventory)
        self._bindings = bindings = BindingWatch(kube, ledger, lambda key: wake_afresh("BusChannel", key))
        self.namespaces = Namespaces(kube, self._namespace_changed)
        self.selection = selection = Selection(self.namespaces, inventory)
        reporter = Reporter(kube, inventory, wake)
        self.schedule = schedule = VerificationSchedule(inventory, wake, interval=verification_interval)

        def wake_and_verify(kind: str, key: Key, *, delay: float = 0) -> None:
            schedule.ask(key)
            wake(kind, key, delay=delay)

        self.databases = DatabaseReconciler(
            kube,
            inventory,
            selection=selection,
            drift=DriftTeller(reporter, selection, wake_and_verify),
            reporter=reporter,
            ledger=ledger,
            bindings=bindings,
            wake=wake,
            nudge=nudge,
            record_survey=record_survey,
            resync=resync,
        )
        self.pending = PendingDeletions(
            kube, inventory, selection=selection, databases=self.databases, reporter=reporter, wake=wake
        )
        self.deletion = deletion = ChannelDeletion(
            kube,
            inventory,
            selection=selection,
            databases=self.databases,
            pending=self.pending,
            reporter=reporter,
            wake=wake,
        )
        self.channels = ChannelReconciler(
            kube,
            inventory,
            selection=selection,
            databases=self.databases,
            deletion=deletion,
            withdrawal=Withdrawal(selection, self.databases),
            schedule=schedule,
            deadlines=self.deadlines,
            ledger=ledger,
            bindings=bindings,
            reporter=reporter,
            wake=wake,
            credential_unused=credential_unused,
            resync=resync,
        )

    def close(self) -> None:
        """Ends the watches, and the sessions that are kept open."""
        self._bindings.stop()
        self.databases.close()

    def _namespace_changed(self, name: str) -> None:
        for channel in self.selection.channels_in(name):
            self._wake(channel.kind, channel.key)

    async def reconcile_database(self, key: Key) -> float | None:
        """Looks at one BusDatabase. Returns the seconds until it wants to be looked at again, None when it is gone."""
        await self.databases.reconcile(key)
        return self._resync if key in self._inventory.databases else None
