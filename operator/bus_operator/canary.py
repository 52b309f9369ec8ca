"""Whether the watches still deliver: a canary's round trip.

A watch can go deaf: its connection stands, no event comes, and nobody notices. kopf connects again when not even a
bookmark comes for 70 s; what that does not cure, a restart does, and the liveness probe asks for one. So the leader now
and then changes an annotation of one resource that a watch covers, each watch in turn; and every replica compares the
version of that resource which the API server holds with what its own watch has delivered. An API server that does not
answer says nothing about a watch, and gets nobody restarted.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError
from bus_operator.inventory import Inventory, Resource, comes_before
from bus_operator.kube import PLURALS, Kube

logger = logging.getLogger(__name__)

PATIENCE = 1.5
"""Intervals that an event may take: kopf itself mends what it can within 70 s, and that shall come first."""

_CANDIDATES = 3
"""Resources that are tried before a turn is given up: the API server may refuse to change one."""

_LOOK = 0.05
"""Seconds between looks at whether the event has come, as a part of the interval."""


class _Stream(NamedTuple):
    """What one watch covers: a kind, in a namespace or (empty) in all."""

    kind: str
    namespace: str

    def __str__(self) -> str:
        return f"the watch of {PLURALS[self.kind]}{f' in namespace {self.namespace}' if self.namespace else ''}"


class Canary:
    """Tries the watches out.

    Args:
        kube: The Kubernetes API.
        inventory: What there is.
        leading: Whether this replica may write.
        interval: Seconds between two rounds. Each costs one write in all, and a read for each watch and replica.
        namespaces: Those that are watched; none means the whole cluster.
    """

    def __init__(
        self,
        kube: Kube,
        inventory: Inventory,
        *,
        leading: Callable[[], bool],
        interval: float,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._kube = kube
        self._inventory = inventory
        self._leading = leading
        self._interval = interval
        self._streams = [_Stream(kind, namespace) for namespace in namespaces or ("",) for kind in PLURALS]
        self._namespaced = bool(namespaces)
        self._heard: dict[_Stream, str] = {}
        self._deaf: dict[_Stream, str] = {}
        self._confirmed: dict[_Stream, float] = {}

    @property
    def deaf(self) -> str | None:
        """Which watches deliver nothing any more; None when all is well or nothing is known."""
        return "; ".join(self._deaf.values()) or None

    def ages(self) -> Iterator[tuple[str, str, float]]:
        """Kind and namespace of each watch that was tried with success, and seconds since the last time."""
        now = time.monotonic()
        return ((stream.kind, stream.namespace, now - at) for stream, at in self._confirmed.items())

    def hear(self, body: Mapping[str, Any]) -> None:
        """Takes the object of a watch's event."""
        metadata = body["metadata"]
        stream = _Stream(body["kind"], metadata["namespace"] if self._namespaced else "")
        version = metadata.get("resourceVersion", "")
        if stream not in self._heard or comes_before(self._heard[stream], version):
            self._heard[stream] = version

    async def run(self) -> None:
        """Tries them until it is cancelled."""
        turns = itertools.cycle(self._streams)
        while True:
            await asyncio.sleep(self._interval)
            if self._leading():
                await self._sing(next(turns))
            await asyncio.gather(*(self._listen(stream) for stream in self._streams))

    async def _sing(self, stream: _Stream) -> None:
        for resource in self._oldest(stream):
            with suppress(BusError, ApiException):
                if await self._kube.touch(resource) is not None:
                    return

    async def _listen(self, stream: _Stream) -> None:
        latest = await self._latest(stream)
        if latest is None:
            return
        if await self._hears(stream, latest):
            self._deaf.pop(stream, None)
            self._confirmed[stream] = time.monotonic()
        # Asked again, since the one that answered before may be gone by now: the server, or the resource.
        elif await self._latest(stream) is not None and stream not in self._deaf:
            seconds = self._interval * PATIENCE
            self._deaf[stream] = (
                f"{stream} has not delivered version {latest.resource_version} of {latest} in {seconds:.0f} s"
            )
            logger.error("%s", self._deaf[stream])

    async def _latest(self, stream: _Stream) -> Resource | None:
        """The canary as the API server holds it; None when there is none, or no answer."""
        with suppress(BusError, ApiException):
            for resource in self._oldest(stream):
                if (found := await self._kube.read_resource(resource.kind, resource.key)) is not None:
                    return found
        return None

    async def _hears(self, stream: _Stream, latest: Resource) -> bool:
        looks = int(PATIENCE / _LOOK)
        for _ in range(looks):
            if not comes_before(self._heard.get(stream, "0"), latest.resource_version):
                return True
            await asyncio.sleep(self._interval * _LOOK)
        return False

    def _oldest(self, stream: _Stream) -> list[Resource]:
        """Those that are likely to stay, and that all replicas agree on."""
        covered = (
            resource
            for resource in self._inventory.of(stream.kind).values()
            if stream.namespace in ("", resource.namespace) and not resource.deleting
        )
        return heapq.nsmallest(_CANDIDATES, covered, key=lambda resource: (resource.created, resource.uid))
