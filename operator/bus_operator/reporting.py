"""What users see of a reconciliation: the status of the resource, and an Event when its summary changed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from bus_operator import status
from bus_operator.catalog import ChannelCounts
from bus_operator.errors import BusError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.kube import Kube
from bus_operator.model import format_age
from bus_operator.status import Condition

logger = logging.getLogger(__name__)


class Wake(Protocol):
    """Asks for a resource to be reconciled."""

    def __call__(self, kind: str, key: Key, *, delay: float = 0) -> None:
        """At once, or in `delay` seconds: many wishes within that time are one."""


PENDING_DELETIONS = "PendingDeletions"
"""In place of a kind, with the key of a BusDatabase: what deleted BusChannels have left to do there."""

PROBE_TIME_INTERVAL = timedelta(hours=1)
"""`lastProbeTime` alone is written no more often than this: that a database is looked at is no news."""


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


class Reporter:
    """Writes statuses and Events."""

    def __init__(self, kube: Kube, inventory: Inventory, wake: Wake, clock: Callable[[], datetime] = utc_now) -> None:
        self._kube = kube
        self._inventory = inventory
        self._wake = wake
        self._clock = clock

    def now(self) -> str:
        """The current time as a status writes it."""
        return status.timestamp(self._clock())

    async def report(self, resource: Resource, conditions: Sequence[Condition], fields: Mapping[str, Any]) -> None:
        """Writes the status when it changed, and an Event when the summary did."""
        now = self._clock()
        summary = status.ready(conditions)
        previous = resource.status.get("conditions", [])
        wanted = {
            **fields,
            "observedGeneration": resource.generation,
            "conditions": status.merge(previous, [*conditions, summary], generation=resource.generation, now=now),
        }
        if not _worth_writing(resource, wanted, now) or not await self._write(resource, wanted):
            return
        before = status.find(previous, "Ready") or {}
        if (before.get("status"), before.get("reason")) != (summary.status, summary.reason):
            logger.log(logging.INFO if summary.status == "True" else logging.WARNING, "%s: %s", resource, summary)
            await self.tell(resource, warning=summary.status != "True", reason=summary.reason, message=summary.message)

    async def refresh(self, resource: Resource, fields: Mapping[str, Any]) -> None:
        """Writes fields of the status that changed while the conditions stay as they are."""
        changed = {name: value for name, value in fields.items() if resource.status.get(name) != value}
        if changed:
            await self._write(resource, changed)

    async def _write(self, resource: Resource, fields: Mapping[str, Any]) -> bool:
        """False when the resource is gone."""
        written = await self._kube.patch_status(resource, fields)
        if written is None:
            self._inventory.remove(resource)
            return False
        if self._inventory.put(written):
            # The answer is ahead of the watch and holds a change by somebody else.
            self._wake(written.kind, written.key)
        return True

    async def tell(self, resource: Resource, *, warning: bool, reason: str, message: str) -> None:
        """Posts an Event; one that cannot be posted, as in a namespace that is going away, holds nothing up."""
        try:
            await self._kube.post_event(resource, warning=warning, reason=reason, message=message)
        except BusError as exc:
            logger.warning("%s: Event %s was not posted: %s", resource, reason, exc)


def usage(counts: ChannelCounts) -> dict[str, Any]:
    """How a channel is used, as its status shows it."""
    return {
        "peers": counts.peers,
        "wake": {"doorbell": counts.doorbell, "listen": counts.listen, "poll": counts.poll},
        "backlog": counts.backlog,
        # Without a backlog the field goes: null in a merge patch.
        "oldestMessageAge": format_age(counts.oldest) if counts.oldest is not None else None,
    }


def _worth_writing(resource: Resource, wanted: Mapping[str, Any], now: datetime) -> bool:
    changed = {name for name, value in wanted.items() if resource.status.get(name) != value}
    if changed != {"lastProbeTime"}:
        return bool(changed)
    last = datetime.fromisoformat(resource.status["lastProbeTime"]) if "lastProbeTime" in resource.status else None
    return last is None or now - last >= PROBE_TIME_INTERVAL
