"""Whose credentials should have been replaced by now, and were not; or replaced ones should have ended.

A rotation that does not come about says so in the status; but one that is never looked at again, or a login that nobody
drops, says nothing. So at each look it is noted when the next step must have been taken, whatever is in the way then.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime

from bus_operator import status
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.reporting import utc_now

FAILURES = ("VerificationFailed", "SecretContested")
"""Reasons of CredentialsCurrent: there should be another credential, and there is none that could be published."""


class RotationDeadlines:
    """Until when each channel's next step is due. Channels that are not rotated by age have none while nothing ends.

    Args:
        inventory: The BusChannels there are.
        clock: Seconds that only grow.
        now: The current time, for what the API server's times are compared with.
    """

    def __init__(
        self,
        inventory: Inventory,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._inventory = inventory
        self._clock = clock or asyncio.get_running_loop().time
        self._now = now
        self._due: dict[Key, float] = {}

    def note(self, key: Key, seconds: float | None) -> None:
        """The next step is due in so many seconds; None: none is."""
        if seconds is None:
            self.forget(key)
        else:
            self._due[key] = self._clock() + seconds

    def forget(self, key: Key) -> None:
        """There is nothing to expect: it is gone, or waits for its user."""
        self._due.pop(key, None)

    def overdue(self) -> Iterator[tuple[Resource, float]]:
        """The BusChannels whose next step is due, and for how many seconds."""
        for key, resource in self._inventory.channels.items():
            seconds = max(self._clock() - self._due.get(key, self._clock()), self._failing_for(resource))
            if seconds > 0:
                yield resource, seconds

    def _failing_for(self, resource: Resource) -> float:
        """By the status, which another leader may have written. A first credential is none that is replaced."""
        current = status.find(resource.status.get("conditions", ()), "CredentialsCurrent")
        if current is None or resource.status.get("credentialGeneration") is None:
            return 0.0
        if current["status"] != "False" or current["reason"] not in FAILURES:
            return 0.0
        return (self._now() - datetime.fromisoformat(current["lastTransitionTime"])).total_seconds()
