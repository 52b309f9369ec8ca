"""Finds pods that asked for a binding and did not get it, and names them: each once, however long it stays like that.

The webhook never holds a pod up, so a pod that is created while no replica answers starts without its bindings, and
nothing in it would say why. Only the metadata of labelled pods is read, a page at a time, and nothing of it is kept but
the UIDs of those that were named.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError
from bus_operator.inventory import Inventory
from bus_operator.kube import Kube
from bus_operator.kube_api import words_of
from bus_operator.model import Uid
from bus_operator.pods import MissingBinding, Pod, missing_binding
from bus_operator.reporting import utc_now
from bus_operator.selection_audit import SelectionAudit, post

logger = logging.getLogger(__name__)


class BindingAudit:
    """Looks at the pods once per interval.

    Args:
        kube: The Kubernetes API.
        inventory: The BusChannels that there are.
        interval: Seconds between two looks.
        clock: The current time.
    """

    def __init__(
        self, kube: Kube, inventory: Inventory, *, interval: float, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._interval = interval
        self._clock = clock
        self._named: set[Uid] = set()
        self._selected = SelectionAudit(kube, inventory)

    @property
    def lacking(self) -> int:
        """How many pods there are without a binding that they asked for, as of the last look."""
        return len(self._named)

    @property
    def selected_lacking(self) -> int:
        """How many there are without a binding that they are selected for."""
        return self._selected.lacking

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            try:
                await self.look()
                await self._selected.look()
            except (BusError, ApiException) as exc:
                logger.warning("cannot look for pods without their bindings: %s", words_of(exc))
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Names those that were not named yet."""
        lacking: set[Uid] = set()
        async for body in self._kube.asking_pods():
            pod = Pod.from_body(body, self._inventory.selecting)
            missing = missing_binding(pod, self._inventory.channels.__contains__, self._clock())
            if missing is None:
                continue
            lacking.add(pod.uid)
            if pod.uid not in self._named:
                await self._tell(missing)
                self._named.add(pod.uid)
        self._named &= lacking

    async def _tell(self, missing: MissingBinding) -> None:
        pod = missing.pod
        logger.warning("%s: %s", pod, missing.message)
        # The name of the Event keeps another leader, or this one after a restart, from saying it again.
        once = f"binding-missing-{pod.uid}"
        await post(self._kube, pod, missing.message, once)
        for name in missing.channels:
            channel = self._inventory.channels.get((pod.namespace, name))
            if channel is not None:
                message = f"pod {pod.name} was created without this binding: recreate the pod"
                await post(self._kube, channel, message, once)
