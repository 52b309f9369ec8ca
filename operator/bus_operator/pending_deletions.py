"""Deletions that wait for their database: noted in the status of the BusDatabase, carried out when it is back.

A BusChannel never waits for a database in order to go, so that no namespace is stuck because a server is down. What
its deletion policy says is then owed, and `status.pendingDeletions` of the BusDatabase says so, by the UID of the
BusChannel: it survives the operator, and a merge patch adds and removes entries without touching those of others.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from bus_operator import catalog, provision
from bus_operator.actions import DropChannel
from bus_operator.breaker import VerdictPendingError
from bus_operator.database_access import UsableDatabase
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.errors import BusError, ConnectionFailedError, SpecError, TransientError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import Kube
from bus_operator.model import Uid
from bus_operator.reporting import Reporter, Wake
from bus_operator.selection import Selection

logger = logging.getLogger(__name__)

FIELD = "pendingDeletions"

LIMIT = 2000
"""Entries that a BusDatabase holds at most, as its definition says too: 400 KB of the 1.5 MB that etcd takes."""

PASS = 100
"""Entries that are carried out before they are struck off: what is done twice after a crash, to no effect."""


@dataclass(frozen=True)
class PendingDeletion:
    """What is owed for one BusChannel that is gone."""

    uid: Uid
    namespace: str
    name: str
    channel: str
    policy: str
    since: str

    def entry(self) -> dict[str, str]:
        """As the status holds it, under the UID."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "channel": self.channel,
            "policy": self.policy,
            "since": self.since,
        }

    def __str__(self) -> str:
        return f"deleted BusChannel {self.namespace}/{self.name}"


def pending_of(database: Resource | None) -> list[PendingDeletion]:
    """What the status of a BusDatabase says is owed, the oldest first."""
    entries = database.status.get(FIELD, {}) if database is not None else {}
    return sorted((PendingDeletion(uid=Uid(uid), **entry) for uid, entry in entries.items()), key=lambda p: p.since)


class PendingDeletions:
    """Keeps the notes, and carries them out.

    Args:
        kube: The Kubernetes API.
        inventory: What the watches saw.
        selection: Which BusChannels want a name.
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
        self._writing: dict[Key, asyncio.Lock] = {}
        self._unwritten: dict[Key, dict[Uid, PendingDeletion]] = {}

    async def note(self, database: Resource, resource: Resource, channel: str, policy: str) -> None:
        """Writes down what is owed for a BusChannel, before that goes.

        While one writes, others queue up; the next of them writes for all, since each answer holds all entries.

        Raises:
            SpecError: It cannot be kept: there are too many already, or the BusDatabase is gone.
            TransientError: The API server could not be reached.
        """
        owed = PendingDeletion(
            resource.uid, resource.namespace, resource.name, channel, policy, since=self._reporter.now()
        )
        unwritten = self._unwritten.setdefault(database.key, {})
        unwritten[owed.uid] = owed
        async with self._writing.setdefault(database.key, asyncio.Lock()):
            if owed.uid not in unwritten:
                return
            batch = {uid: item.entry() for uid, item in unwritten.items()}
            noted = pending_of(self._inventory.databases.get(database.key))
            if len(noted) + len(batch) > LIMIT:
                del unwritten[owed.uid]
                raise SpecError(f"{database} holds {LIMIT} pending deletions already", reason="TooManyPending")
            await self._write(database, batch)
            for uid in batch:
                unwritten.pop(uid, None)

    async def carry_out(self, key: Key) -> None:
        """Does what is owed in one database, as far as it can be used. Raises TransientError: try again soon."""
        database = self._inventory.databases.get(key)
        while database is not None and (pending := self._due(database)):
            try:
                usable = self._databases.usable(database, None)
            except (SpecError, VerdictPendingError):
                # It has its own retries, and wakes us when it is back.
                return
            work = _Pass(pending[:PASS])
            await self._look(usable, key, work)
            await self._strike_off(database, work)
            if isinstance(work.failure, ConnectionFailedError):
                raise self._databases.suspect(database, work.failure)
            if work.failure is not None:
                raise TransientError(f"{database}: pending deletions: {work.failure}", reason="DeletionPending")
            if not work.finished:
                return
            database = self._inventory.databases.get(key)

    def _due(self, database: Resource) -> list[PendingDeletion]:
        """What is owed for BusChannels of which it is known whether they were made anew."""
        return [owed for owed in pending_of(database) if owed.namespace not in self._inventory.unread]

    async def _look(self, usable: UsableDatabase, key: Key, work: "_Pass") -> None:
        """Looks for each channel in every shard; what is in none of them, or not its own, is done with."""
        try:
            for shard in usable.shards.usable:
                async with usable.slots, usable.connect(shard.admin) as connection:
                    for owed in work.open():
                        try:
                            await self._settle(connection, key, owed, work)
                        except ConnectionFailedError:
                            raise
                        except BusError as exc:
                            work.keep(owed, exc)
        except BusError as exc:
            work.stop(exc)
            return
        if not usable.shards.unseen:
            work.finished.update(owed.uid for owed in work.open())

    async def _settle(self, connection: asyncpg.Connection, key: Key, owed: PendingDeletion, work: "_Pass") -> None:
        if self._selection.made_anew(owed.namespace, owed.name, owed.channel, key):
            # What was not dropped in time passes on to it. Until it has it in the database, the note stays.
            if await catalog.channel_owner(connection, owed.channel) == owed.uid:
                work.keep(owed)
            return
        done = await provision.deprovision(connection, owed.channel, owed.uid, owed.policy)
        if done is None:
            return
        dropped = isinstance(done, DropChannel)
        logger.info("%s: %s channel %r", owed, "dropped" if dropped else "retained", owed.channel)
        work.settled(owed, dropped=dropped)
        for rival in self._selection.claimants(owed.channel):
            self._wake(rival.kind, rival.key)

    async def _strike_off(self, database: Resource, work: "_Pass") -> None:
        if not work.finished:
            return
        async with self._writing.setdefault(database.key, asyncio.Lock()):
            await self._write(database, dict.fromkeys(work.finished))
        if work.dropped:
            self._wake(database.kind, database.key)
        for event in work.events():
            await self._reporter.tell(database, warning=event.warning, reason=event.reason, message=event.message)

    async def _write(self, database: Resource, entries: Mapping[Uid, Mapping[str, Any] | None]) -> None:
        written = await self._kube.patch_status(database, {FIELD: entries})
        if written is None:
            raise SpecError(f"{database} is gone", reason="DatabaseNotFound")
        if self._inventory.put(written):
            self._wake(database.kind, database.key)


class _Pass:
    """How far one look at some of the entries got."""

    def __init__(self, pending: list[PendingDeletion]) -> None:
        self._pending = pending
        self._kept: set[Uid] = set()
        self.finished: set[Uid] = set()
        self.dropped: list[str] = []
        self.released: list[str] = []
        self.not_empty: list[str] = []
        self.failure: BusError | None = None

    def open(self) -> list[PendingDeletion]:
        """Those that are still to be looked for."""
        return [owed for owed in self._pending if owed.uid not in self.finished | self._kept]

    def settled(self, owed: PendingDeletion, *, dropped: bool) -> None:
        """It was found, and done."""
        self.finished.add(owed.uid)
        if dropped:
            self.dropped.append(owed.channel)
        elif owed.policy == "DeleteIfEmpty":
            self.not_empty.append(owed.channel)
        else:
            self.released.append(owed.channel)

    def keep(self, owed: PendingDeletion, failure: BusError | None = None) -> None:
        """It stays noted."""
        self._kept.add(owed.uid)
        self.failure = self.failure or failure

    def stop(self, failure: BusError) -> None:
        """Those that are left stay noted."""
        self._kept.update(owed.uid for owed in self.open())
        self.failure = failure

    def events(self) -> list["_Event"]:
        """What to tell on the BusDatabase, for the BusChannels are gone."""
        told = []
        if self.dropped:
            message = f"of BusChannels deleted before: {_named(self.dropped)}"
            told.append(_Event(warning=False, reason="ChannelsDropped", message=message))
        if self.released:
            message = f"of BusChannels deleted before: {_named(self.released)}"
            told.append(_Event(warning=False, reason="ChannelsRetained", message=message))
        if self.not_empty:
            message = f"still holding messages, retained: {_named(self.not_empty)}"
            told.append(_Event(warning=True, reason="NotEmpty", message=message))
        return told


class _Event(NamedTuple):
    """An Event to post."""

    warning: bool
    reason: str
    message: str


def _named(channels: list[str]) -> str:
    listed = ", ".join(map(repr, channels[:10]))
    return listed if len(channels) <= 10 else f"{listed} and {len(channels) - 10} more"
