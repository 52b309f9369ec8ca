"""Ties watches to the reconciler: a work queue with lanes for the databases, and a watch per Secret of theirs.

Every replica watches, so that the inventory of one that takes over is current. Only the leader works: each term of
leading begins with a queue and a reconciler of its own, since what an earlier one knew another leader may have changed.
"""

import asyncio
import logging
from collections.abc import Hashable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from kubernetes.aio.client.exceptions import ApiException

from bus_operator import tallies
from bus_operator.binding_audit import BindingAudit
from bus_operator.breaker import VerdictPendingError
from bus_operator.database_access import DatabaseState
from bus_operator.errors import BusError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import PLURALS, Kube
from bus_operator.kube_api import words_of
from bus_operator.kube_objects import Refusal
from bus_operator.namespace_access import NamespaceAccess, unknown
from bus_operator.reconcile import Reconciler
from bus_operator.reporting import PENDING_DELETIONS
from bus_operator.surveys import Surveys
from bus_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)

SECRET_WATCH_PAUSE = 5.0
"""Seconds between a watch of a Secret that failed and the next; the resync covers the gap."""

LIST_PAUSE = 1.0
"""Seconds between attempts to list the resources at the start, such as while their definitions are not installed."""

LIST_INTERVAL = 600.0
"""Seconds between later listings: when kopf's watch is broken for long, it never tells what was deleted meanwhile."""


class Item(NamedTuple):
    """A key of the work queue."""

    kind: str
    key: Key

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about it says in fields."""
        namespace, name = self.key
        return {"kind": self.kind, "namespace": namespace, "name": name}

    def __str__(self) -> str:
        return f"{self.kind} {'/'.join(self.key)}"


class Lane(NamedTuple):
    """Where a key of the work queue waits: only for others of its lane, however slow or dead their database is."""

    purpose: str
    database: Key | None
    """None for channels whose database is not known yet."""


PURPOSES = ("database", "channels", "first_looks", "deletions")
"""Of lanes."""

FIRST_LOOKS = 16
"""How many channels that were ready when a leader began are looked at for the first time at once, over all databases.
All of them would share the processor with what users wait for: with thousands, for half a minute."""

HEAD_START = 3.0
"""Seconds by which a new leader looks later at databases where nothing waits, if something waits elsewhere: comparing a
database with what should be there costs as much as making several channels."""


class Controller:
    """Runs the reconciler over everything that the watches report.

    Args:
        kube: The Kubernetes API.
        resync: Seconds after which each resource is looked at without an event.
        workers: How many channels of one database are reconciled at the same time, and how many deleted besides.
        credential_unused: How long nobody must be seen to use replaced credentials before they end.
        verification_interval: Seconds between two verifications of a channel's isolation.
    """

    def __init__(
        self, kube: Kube, *, resync: float, workers: int, credential_unused: timedelta, verification_interval: float
    ) -> None:
        self.inventory = Inventory()
        self.listed = asyncio.Event()
        """Set once everything was listed."""
        self.page_size = 0
        """Of how many resources at a time no page of the last list was too large."""
        self._kube = kube
        self._access = NamespaceAccess(kube, self.inventory, interval=resync)
        self._resync = resync
        self._workers = workers
        self._credential_unused = credential_unused
        self._verification_interval = verification_interval
        self._term: _Term | None = None

    async def run(self) -> None:
        """Lists everything, and again now and then or when other namespaces may be read, until it is cancelled."""
        await self._look_until_seen()
        self.listed.set()
        while True:
            await self._access.until_changed(LIST_INTERVAL)
            await self.look_at_all()

    async def lead(self) -> None:
        """Works until it is cancelled, from the start: on everything that was listed.

        It lists again besides. If this replica was cut off as the former leader was, its watches may not know it yet.
        """
        await self.listed.wait()
        self._term = _Term(
            self._kube,
            self.inventory,
            resync=self._resync,
            workers=self._workers,
            credential_unused=self._credential_unused,
            verification_interval=self._verification_interval,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._term.run())
                group.create_task(self._look_until_seen())
        finally:
            self._term = None

    async def _look_until_seen(self) -> None:
        while True:
            if await self.look_at_all():
                return
            await asyncio.sleep(LIST_PAUSE)

    async def look_at_all(self) -> bool:
        """Lists both kinds, and takes what is new and what is gone from there. Returns whether it could.

        Of what is in a namespace that may not be read, nothing is taken for gone.
        """
        with self.inventory.removals() as gone:
            try:
                refused = await self._access.look()
                listings = {kind: await self._kube.list_resources(kind, without=refused) for kind in PLURALS}
            except (BusError, ApiException) as exc:
                logger.warning("cannot list what is there: %s", words_of(exc))
                return False
        self.page_size = min(listing.page_size for listing in listings.values())
        unread = unknown(refused)
        for kind, listing in listings.items():
            for resource in listing.resources:
                if resource.uid not in gone:
                    self._put(resource)
            there = {resource.uid for resource in listing.resources}
            for resource in tuple(self.inventory.of(kind).values()):
                if resource.uid not in there and resource.namespace not in unread and listing.is_newer_than(resource):
                    self._remove(resource)
        self._access.listed(refused)
        return True

    def observe(self, event: str | None, body: Mapping[str, Any]) -> None:
        """Takes a watch event; `event` is DELETED, ADDED, MODIFIED or None for what was there at the start."""
        resource = Resource.from_body(body)
        if event == "DELETED":
            known = self.inventory.channels.get(resource.key)
            if self._term is not None and known is not None and known.uid == resource.uid:
                self._term.deletion.went(resource)
            self._remove(resource)
        else:
            self._put(resource)

    def _put(self, resource: Resource) -> None:
        if self.inventory.put(resource) and self._term is not None:
            self._term.queue.add(Item(resource.kind, resource.key))

    def queue_depths(self) -> Iterator[tuple[str, int]]:
        """How many resources wait for a worker in each lane, by the lane's purpose."""
        depths = self._term.queue.depths() if self._term is not None else ()
        return ((lane.purpose, depth) for lane, depth in depths if isinstance(lane, Lane))

    def database_states(self) -> Iterator[DatabaseState]:
        """The BusDatabases that were looked at."""
        return iter(self._term.databases.states() if self._term is not None else ())

    @property
    def pods_without_binding(self) -> int | None:
        """How many pods asked for a binding and have none; None while another replica leads."""
        return self._term.binding_audit.lacking if self._term is not None else None

    @property
    def refused_namespaces(self) -> Mapping[str, Refusal]:
        """The namespaces that are to be served and may not be read, and why."""
        return self._kube.refused

    def overdue_rotations(self) -> Iterator[tuple[Resource, float]]:
        """The BusChannels whose credentials should have changed, and since how many seconds."""
        return self._term.deadlines.overdue() if self._term is not None else iter(())

    @property
    def selected_pods_without_binding(self) -> int | None:
        """How many pods a BusChannel selects that have no binding; None while another replica leads."""
        return self._term.binding_audit.selected_lacking if self._term is not None else None

    @property
    def surveys(self) -> Surveys | None:
        """How the channels are used; None while another replica leads."""
        return self._term.surveys if self._term is not None else None

    def _remove(self, resource: Resource) -> None:
        self.inventory.remove(resource)
        if self._term is not None:
            item = Item(resource.kind, resource.key)
            self._term.queue.forget(item)
            self._term.queue.add(item)


class _Term:
    """The work of a leader, and what it knows."""

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        resync: float,
        workers: int,
        credential_unused: timedelta,
        verification_interval: float,
    ) -> None:
        self.queue: WorkQueue[Item] = WorkQueue(self._reconcile, workers_of=self._workers_of, lane_of=self._lane_of)
        self._kube = kube
        self._workers = workers
        self._inventory = inventory
        self.surveys = Surveys(resync=resync)
        self._reconciler = Reconciler(
            kube,
            inventory,
            wake=self._wake,
            record_survey=self.surveys.record,
            resync=resync,
            credential_unused=credential_unused,
            verification_interval=verification_interval,
        )
        self._unseen = {Item("BusChannel", key) for key in inventory.channels}
        self._started = asyncio.get_running_loop().time()
        self.databases = self._reconciler.databases
        self.deletion = self._reconciler.deletion
        self.deadlines = self._reconciler.deadlines
        self.binding_audit = BindingAudit(kube, inventory, interval=resync)
        self._secret_watches: dict[Key, dict[str, asyncio.Task[None]]] = {}

    def add_all(self) -> None:
        """Queues everything that there is: first what somebody waits for."""
        waited_for = self._databases_waited_for()
        for key, database in self._inventory.databases.items():
            later = waited_for and key not in waited_for and database.is_ready
            self.queue.add(Item("BusDatabase", key), delay=HEAD_START if later else 0)
        for key in self._inventory.channels:
            self.queue.add(Item("BusChannel", key))

    async def run(self) -> None:
        """Works until it is cancelled."""
        self.add_all()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.queue.run())
                group.create_task(self.binding_audit.run())
                group.create_task(self.surveys.run(self.databases.usable_now))
                group.create_task(self._reconciler.namespaces.run())
                group.create_task(self._reconciler.schedule.run())
        finally:
            for watches in self._secret_watches.values():
                for task in watches.values():
                    task.cancel()
            self._reconciler.close()

    def _databases_waited_for(self) -> set[Key | None]:
        """Those with channels that are not as they should be."""
        place = self._reconciler.selection.presumed_database_of
        return {place(channel) for channel in self._inventory.channels.values() if not channel.is_ready}

    def _wake(self, kind: str, key: Key, *, delay: float = 0) -> None:
        self.queue.add(Item(kind, key), delay=delay)

    def _lane_of(self, item: Item) -> Lane:
        if item.kind == "BusDatabase":
            return Lane("database", item.key)
        if item.kind == PENDING_DELETIONS:
            return Lane("deletions", item.key)
        resource = self._inventory.channels.get(item.key)
        if resource is None:
            return Lane("channels", None)
        if resource.deleting:
            purpose = "deletions"
        else:
            purpose = "first_looks" if item in self._unseen and resource.is_ready else "channels"
        return Lane(purpose, self._reconciler.selection.presumed_database_of(resource))

    def _workers_of(self, lane: Hashable) -> int:
        if isinstance(lane, Lane) and lane.purpose == "first_looks":
            return max(1, min(self._workers, FIRST_LOOKS // max(1, len(self._inventory.databases))))
        return self._workers

    async def _reconcile(self, item: Item) -> float | None:
        with tallies.reconciling(item.kind):
            return await self._look_at(item)

    async def _look_at(self, item: Item) -> float | None:
        if item.kind == "BusDatabase":
            self._watch_secrets(item.key)
            return await self._reconciler.reconcile_database(item.key)
        if item.kind == PENDING_DELETIONS:
            await self._reconciler.pending.carry_out(item.key)
            return None
        try:
            delay = await self._reconciler.channels.reconcile(item.key)
        except VerdictPendingError:
            # The verdict wakes it.
            return None
        self._seen(item)
        return delay

    def _seen(self, item: Item) -> None:
        """Says when everything that was there at the start was looked at."""
        if item in self._unseen:
            self._unseen.discard(item)
            if not self._unseen:
                seconds = asyncio.get_running_loop().time() - self._started
                logger.info("everything was looked at once, %.1f s after the start", seconds)

    def _watch_secrets(self, key: Key) -> None:
        """Keeps exactly one watch on each Secret that the BusDatabase refers to now."""
        wanted = self.databases.secrets_of(key)
        watches = self._secret_watches.pop(key, {})
        for name in [name for name, task in watches.items() if name not in wanted or task.done()]:
            watches.pop(name).cancel()
        for name in wanted - watches.keys():
            watches[name] = asyncio.create_task(self._follow_secret(key, name))
        if watches:
            self._secret_watches[key] = watches

    async def _follow_secret(self, key: Key, name: str) -> None:
        while True:
            try:
                async for _ in self._kube.watch_secret(key[0], name):
                    self.queue.add(Item("BusDatabase", key))
            except BusError as exc:
                logger.debug("watch of Secret %s/%s: %s", key[0], name, exc)
                await asyncio.sleep(SECRET_WATCH_PAUSE)
