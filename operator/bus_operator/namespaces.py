"""The labels of namespaces, watched: which of them may use a BusDatabase can change at any time."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError
from bus_operator.kube import Kube
from bus_operator.kube_api import words_of

logger = logging.getLogger(__name__)

Labels = Mapping[str, str]

PAUSE = 5.0
"""Seconds between a watch that failed and the next; meanwhile namespaces are read one by one."""


class Namespaces:
    """What the watch saw; of each namespace the labels and nothing else.

    Args:
        kube: The Kubernetes API.
        changed: Called with the name of a namespace whose labels changed.
    """

    def __init__(self, kube: Kube, changed: Callable[[str], None]) -> None:
        self._kube = kube
        self._changed = changed
        self._labels: dict[str, Labels] = {}
        self._current = False

    async def labels_of(self, name: str) -> Labels:
        """The labels of a namespace. Raises BusError when they cannot be read."""
        if self._current and name in self._labels:
            return self._labels[name]
        return await self._kube.namespace_labels(name)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            try:
                await self._follow()
            except (BusError, ApiException, aiohttp.ClientError, TimeoutError) as exc:
                logger.warning("cannot watch the labels of namespaces: %s", words_of(exc))
                self._current = False
                await asyncio.sleep(PAUSE)

    async def _follow(self) -> None:
        """One list, and the watch from there until the API server ends it (some minutes)."""
        version, listed = await self._kube.list_namespace_labels()
        for name in self._labels.keys() - listed.keys():
            del self._labels[name]
        for name, labels in listed.items():
            self._put(name, labels)
        self._current = True
        async for name, seen in self._kube.watch_namespace_labels(version):
            if seen is None:
                self._labels.pop(name, None)
            else:
                self._put(name, seen)

    def _put(self, name: str, labels: Labels) -> None:
        before = self._labels.get(name)
        self._labels[name] = labels
        if before is not None and before != labels:
            self._changed(name)
