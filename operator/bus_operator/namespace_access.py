"""Which of the namespaces that the operator is restricted to it may read: all, as long as its Roles are there.

With the chart's `scope.namespaces` its rights are Roles. They go with a namespace that is deleted, and anybody who may
can take them away. The others are served all the same. What is in a namespace that may not be read is not known, which
is not the same as gone: it is in `Inventory.unread` from when that is noticed until everything in it was listed again.
"""

import asyncio
import logging
from collections.abc import Mapping

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError, NamespaceUnreadableError
from bus_operator.inventory import Inventory
from bus_operator.kube import Kube
from bus_operator.kube_objects import Refusal

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 30.0
"""Seconds between two looks at most. Each costs two small requests for a namespace."""

_EXPLANATIONS = {
    Refusal.GONE: "it does not exist. Take it off scope.namespaces; if it is created again, helm upgrade makes the"
    " operator's Role there",
    Refusal.TERMINATING: "it is being deleted, and the operator's Role there is gone already. Take it off"
    " scope.namespaces; if its BusChannels hold it, run busctl release-finalizers --namespace %s",
    Refusal.FORBIDDEN: "the operator's Role there is gone or was changed. Renew it with helm upgrade, or take the"
    " namespace off scope.namespaces",
}


def unknown(refused: Mapping[str, Refusal]) -> frozenset[str]:
    """The namespaces in which there may be something: not those that do not exist."""
    return frozenset(name for name, why in refused.items() if why is not Refusal.GONE)


class NamespaceAccess:
    """Tries the namespaces, and says in the log what has changed.

    Args:
        kube: The Kubernetes API.
        inventory: What is known.
        interval: Seconds between two looks, if they are fewer than LOOK_INTERVAL.
    """

    def __init__(self, kube: Kube, inventory: Inventory, *, interval: float) -> None:
        self._kube = kube
        self._inventory = inventory
        self._interval = min(interval, LOOK_INTERVAL)
        self._told: Mapping[str, Refusal] = {}
        self._listed = True
        """Whether everything was listed since it changed what may be read."""

    async def look(self) -> Mapping[str, Refusal]:
        """Those that may not be read. Raises BusError or ApiException when that is not found out, or if it is all."""
        refused = await self._kube.try_namespaces()
        before, self._told = self._told, refused
        if refused != before:
            self._listed = False
            _tell(before, refused)
        self._inventory.unread |= unknown(refused)
        if unknown(refused) and len(refused) == len(self._kube.namespaces):
            # Who sees nothing cannot lead; and an API server that has just started may refuse everybody.
            raise NamespaceUnreadableError("nothing is served", ", ".join(sorted(refused)))
        return refused

    def listed(self, refused: Mapping[str, Refusal]) -> None:
        """Takes that everything was listed but what is in these namespaces."""
        self._listed = refused == self._told
        self._inventory.unread = unknown(refused) | unknown(self._told)

    async def until_changed(self, seconds: float) -> None:
        """Waits until it is time to list because of what may be read now, at most so long."""
        if not self._kube.namespaces:
            await asyncio.sleep(seconds)
            return
        due = asyncio.get_running_loop().time() + seconds
        while (left := due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, self._interval))
            try:
                await self.look()
            except (BusError, ApiException) as exc:
                logger.debug("not found out which namespaces may be read: %s", exc)
            if not self._listed:
                return


def _tell(before: Mapping[str, Refusal], refused: Mapping[str, Refusal]) -> None:
    for name, why in refused.items():
        if before.get(name) is not why:
            explanation = _EXPLANATIONS[why].replace("%s", name)
            logger.error("namespace %s of scope.namespaces is not served: %s", name, explanation)
    for name in before.keys() - refused.keys():
        logger.info("namespace %s can be read again", name)
