"""Takes a channel's credentials away when its namespace may not use the database any more. The messages stay."""

import logging

from bus_operator import provision, shards
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.errors import SpecError
from bus_operator.inventory import Resource
from bus_operator.selection import Selection

logger = logging.getLogger(__name__)


class Withdrawal:
    """Drops logins, and ends their sessions.

    Args:
        selection: Where a channel belongs.
        databases: What is known about the databases.
    """

    def __init__(self, selection: Selection, databases: DatabaseReconciler) -> None:
        self._selection = selection
        self._databases = databases

    async def withdraw(self, resource: Resource) -> str | None:
        """Looks at a channel that its database does not allow, or not any more.

        Returns:
            How things are, for its status; None for a channel that never had credentials there.

        Raises:
            VerdictPendingError: The database was not probed yet.
            TransientError: It failed; trying again may help.
        """
        key, wire_name = self._selection.last_database_of(resource), resource.status.get("channel")
        database = self._selection.existing(key) if key is not None else None
        if database is None or wire_name is None or key != self._selection.presumed_database_of(resource):
            return None
        try:
            usable = self._databases.usable(database, resource)
            with self._databases.suspecting(database):
                last = resource.status.get("shard")
                async with usable.slots, shards.holding(usable.shards, wire_name, last, usable.connect) as session:
                    if session is not None:
                        withdrawn = await provision.withdraw(session, wire_name, resource.uid)
                        if withdrawn:
                            logger.warning("%s: %s", resource, ", ".join(map(str, withdrawn)))
        except SpecError as exc:
            # It has its own retries, and wakes the channel when it is back.
            return f"its logins are dropped as soon as the database can be used: {exc}"
        return "its logins were dropped and their sessions ended; the Secret opens nothing"
