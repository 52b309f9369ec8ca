"""Lets BusChannels go without an operator: takes its finalizer off all of them, a page at a time."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import TransientError
from bus_operator.inventory import Resource
from bus_operator.kube import FINALIZER, PLURALS, Kube, collection
from bus_operator.kube_api import KubeApi, words_of

ATTEMPTS = 5
"""How often one is read again because somebody changed it meanwhile."""


@dataclass
class Released:
    """What was done."""

    seen: int = 0
    released: int = 0
    failures: int = 0


class FinalizerRelease:
    """Takes the operator's finalizer off BusChannels. An operator that runs would put it on again.

    Args:
        api: The Kubernetes API.
        kube: The same.
        tell: Where it says what becomes of single ones.
    """

    def __init__(self, api: KubeApi, kube: Kube, tell: Callable[[str], None]) -> None:
        self._api = api
        self._kube = kube
        self._tell = tell

    async def run(self, namespaces: tuple[str, ...] = ()) -> Released:
        """Looks at all of these namespaces, of all when none is given. What cannot be released is told, and counted."""
        result = Released()
        for namespace in namespaces or (None,):
            async for channel in self._channels(namespace):
                result.seen += 1
                if FINALIZER not in channel.finalizers:
                    continue
                try:
                    await self._release(channel)
                    result.released += 1
                except (ApiException, TransientError) as exc:
                    result.failures += 1
                    self._tell(f"{channel}: {words_of(exc)}")
        return result

    async def _channels(self, namespace: str | None) -> AsyncIterator[Resource]:
        while True:
            begun = False
            try:
                async for page in self._api.pages(collection(PLURALS["BusChannel"], namespace)):
                    begun = True
                    for item in page.items:
                        yield Resource.from_body(item | {"kind": "BusChannel"})
                return
            except ApiException as exc:
                if exc.status == 404:
                    # The definitions are gone, and with them every BusChannel.
                    return
                if exc.status != 410 or not begun:
                    raise
                # From the start again: what was released is not worth a second look.

    async def _release(self, channel: Resource) -> None:
        current: Resource | None = channel
        for _ in range(ATTEMPTS):
            if current is None or FINALIZER not in current.finalizers:
                return
            try:
                await self._kube.set_finalizer(current, present=False)
            except TransientError as exc:
                if exc.reason != "Conflict":
                    raise
                current = await self._kube.read_resource(channel.kind, channel.key)
                continue
            if current.deleting:
                policy = current.spec.get("deletionPolicy", "Retain")
                self._tell(f"{channel} was being deleted and goes; its channel stays in the database ({policy})")
            return
        raise TransientError(f"somebody keeps changing it: {ATTEMPTS} attempts", reason="Conflict")
