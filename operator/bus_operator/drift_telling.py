"""Tells in Events what was changed by hand: about the BusChannel that it concerns, else about the BusDatabase."""

import logging
from collections.abc import Sequence

from bus_operator import tallies
from bus_operator.drift import Difference, DriftReport, Repair, summary
from bus_operator.errors import SpecError
from bus_operator.inventory import Key, Resource
from bus_operator.reporting import Reporter, Wake
from bus_operator.selection import Selection

logger = logging.getLogger(__name__)

REPAIRED = "DriftRepaired"
REMAINS = "DriftRemains"


async def tell_repaired(reporter: Reporter, resource: Resource, differences: Sequence[Difference]) -> None:
    """One Event about what was found on a resource, and is as it should be again."""
    for difference in differences:
        tallies.repaired(difference.repair)
    if differences:
        message = f"changed by hand, and put right: {summary(differences)}"
        logger.warning("%s: %s", resource, message)
        await reporter.tell(resource, warning=True, reason=REPAIRED, message=message)


class DriftTeller:
    """Remembers what was said about each database, so that what cannot be put right is said once.

    Args:
        reporter: Where Events go.
        selection: Which channels a database concerns.
        wake: Asks for a channel to be reconciled soon.
    """

    def __init__(self, reporter: Reporter, selection: Selection, wake: Wake) -> None:
        self._reporter = reporter
        self._selection = selection
        self._wake = wake
        self._told: dict[Key, frozenset[Difference]] = {}

    async def tell(self, database: Resource, report: DriftReport) -> None:
        """Posts what the last look did not find as well, and wakes the channels concerned."""
        told = self._told.pop(database.key, frozenset())
        if not report:
            return
        self._told[database.key] = frozenset((*report.repaired, *report.remaining))
        channels = {
            channel.status["channel"]: channel
            # Wire names are those of one database: others may have channels of the same.
            for channel in self._selection.residents_of(database.key)
            if channel.status.get("channel") in report.channels
        }
        fresh = report.without(told)
        for name in {None, *fresh.channels}:
            resource = channels.get(name or "", database)
            part = fresh.of(name)
            # A credential is the channel's own business, and told where it is issued.
            repaired = [item for item in part.repaired if item.repair is not Repair.CREDENTIAL]
            await tell_repaired(self._reporter, resource, repaired)
            if part.remaining and resource is not database:
                message = summary(part.remaining, remedies=True)
                await self._reporter.tell(resource, warning=True, reason=REMAINS, message=message)
        for name in fresh.channels & channels.keys():
            self._wake(channels[name].kind, channels[name].key)

    def forget(self, key: Key) -> None:
        """Of a database that is gone."""
        self._told.pop(key, None)


def require_repaired(report: DriftReport) -> None:
    """Raises SpecError, which becomes the BusDatabase's condition, when somebody has to look."""
    if report.remaining:
        raise SpecError(
            f"changed by hand, and not for the operator to put right: {summary(report.remaining, remedies=True)}",
            reason=REMAINS,
        )
