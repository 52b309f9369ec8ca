"""Finds pods that a BusChannel selects and that were created without its binding, and names them on the BusChannel.

Such are those that were there before the selector, and those that were created while no replica answered. Unlike pods
that asked they may be whole Deployments at once: one Event names them all, and they get none of their own. No label of
ours tells them from others, so a whole namespace is read for them, and only some namespaces at a time.
"""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from bus_operator.errors import SpecError
from bus_operator.inventory import Inventory
from bus_operator.kube import Kube
from bus_operator.kube_objects import Subject
from bus_operator.model import Uid
from bus_operator.pod_requests import shown
from bus_operator.pods import Pod

logger = logging.getLogger(__name__)

REASON = "BindingMissing"

NAMESPACES_PER_LOOK = 30
"""With more namespaces that have such BusChannels it takes several looks to see all of them."""


def next_in_turn(namespaces: Collection[str], last: str, most: int = NAMESPACES_PER_LOOK) -> list[str]:
    """The namespaces to look into after `last`: in a circle by name, whatever comes and goes meanwhile."""
    return sorted(namespaces, key=lambda name: (name <= last, name))[:most]


@dataclass
class _Found:
    """Pods that are to be named on a BusChannel."""

    names: list[str] = field(default_factory=list)
    identity: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, pod: Pod) -> None:
        self.names.append(pod.name)
        self.identity.update(pod.uid.encode())


class SelectionAudit:
    """Looks at the pods of namespaces where BusChannels select pods.

    It keeps nothing but the UIDs of those that it has named, and what for.

    Args:
        kube: The Kubernetes API.
        inventory: The BusChannels that there are.
    """

    def __init__(self, kube: Kube, inventory: Inventory) -> None:
        self._kube = kube
        self._inventory = inventory
        self._named: dict[str, dict[Uid, tuple[str, ...]]] = {}
        """By namespace, what each pod was named for."""
        self._last = ""

    @property
    def lacking(self) -> int:
        """How many pods there are without a binding that they are selected for, as of the last looks."""
        return sum(map(len, self._named.values()))

    async def look(self) -> None:
        """Looks into the namespaces whose turn it is. Raises TransientError or SpecError."""
        selecting = self._inventory.selecting_namespaces - self._kube.refused.keys()
        for namespace in self._named.keys() - selecting:
            del self._named[namespace]
        for namespace in next_in_turn(selecting, self._last):
            self._last = namespace
            await self._look_into(namespace)

    async def _look_into(self, namespace: str) -> None:
        named = self._named.get(namespace, {})
        lacking: dict[Uid, tuple[str, ...]] = {}
        found: dict[str, _Found] = {}
        async for body in self._kube.unlabelled_pods(namespace):
            pod = Pod.from_body(body, self._inventory.selecting)
            if pod.deleting or not pod.without:
                continue
            lacking[pod.uid] = pod.without
            for channel in pod.without:
                if channel not in named.get(pod.uid, ()):
                    found.setdefault(channel, _Found()).add(pod)
        for name, pods in found.items():
            await self._tell(namespace, name, pods)
        if lacking:
            self._named[namespace] = lacking
        else:
            self._named.pop(namespace, None)

    async def _tell(self, namespace: str, name: str, found: _Found) -> None:
        channel = self._inventory.channels.get((namespace, name))
        if channel is None:
            return
        message = (
            f"spec.injection.podSelector selects pods that were created without the binding: {shown(found.names)}."
            " They were there before, or the webhook could not be reached: recreate them, for example with kubectl"
            " rollout restart of what owns them"
        )
        logger.warning("%s: %s", channel, message)
        # The name of the Event keeps another leader, or this one after a restart, from saying the same again.
        once = f"binding-missing-{found.identity.hexdigest()[:10]}"
        await post(self._kube, channel, message, once)


async def post(kube: Kube, subject: Subject, message: str, once: str) -> None:
    """Posts an Event. One that is refused, as in a namespace that is going away, keeps nobody else from being named."""
    try:
        await kube.post_event(subject, warning=True, reason=REASON, message=message, once=once)
    except SpecError as exc:
        logger.warning("%s: Event %s was not posted: %s", subject, REASON, exc)
