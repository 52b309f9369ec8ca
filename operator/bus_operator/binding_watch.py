"""Notices when somebody edits or deletes the Secret of a binding.

One watch for each namespace with channels that were looked at, on Secrets that carry our label, for their metadata
alone: no content of a Secret is sent, and nothing is kept but the versions of those that were seen. Where a watch does
not work, as without the right to it, the channels of the namespace are looked at in each resync.
"""

import asyncio
import logging
from collections.abc import Callable

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError, TransientError
from bus_operator.inventory import Key, comes_before
from bus_operator.kube import Kube
from bus_operator.kube_objects import BindingVersion
from bus_operator.ledger import Ledger

logger = logging.getLogger(__name__)

PAUSE = 30.0
"""Seconds between a watch that was refused and the next: somebody has to grant the right to it first."""

RECONNECT = 2.0
"""Seconds between a watch that failed in another way and the next, such as while the API server restarts."""

BREATH = 1.0
"""Seconds between a watch that the API server has ended and the next."""

ALL_SEEN = 10.0
"""Seconds after which a watch has told everything that was there when it began: what it has not told is gone."""


class BindingWatch:
    """Watches the namespaces that it is asked to.

    Args:
        kube: The Kubernetes API.
        ledger: The channels that were looked at.
        wake: Asks for a BusChannel to be looked at soon.
    """

    def __init__(self, kube: Kube, ledger: Ledger, wake: Callable[[Key], None]) -> None:
        self._kube = kube
        self._ledger = ledger
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._versions: dict[str, dict[str, str]] = {}
        """By namespace, if its watch works: the versions of the Secrets by name; of one that is gone, its last."""

    def cover(self, namespace: str) -> None:
        """Begins to watch a namespace, unless it is watched."""
        if namespace not in self._tasks:
            self._tasks[namespace] = asyncio.create_task(self._follow(namespace))

    def covers(self, namespace: str) -> bool:
        """Whether a change of a Secret there would be noticed."""
        return namespace in self._versions

    def is_outdated(self, namespace: str, name: str, version: str) -> bool:
        """Whether a newer version of the Secret was seen already, or that it went."""
        return comes_before(version, self._versions.get(namespace, {}).get(name, version))

    def stop(self) -> None:
        """Ends all watches."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._versions.clear()

    async def _follow(self, namespace: str) -> None:
        try:
            while any(True for _ in self._ledger.seen_in(namespace)):
                try:
                    await self._watch(namespace)
                    await asyncio.sleep(BREATH)
                except (BusError, ApiException) as exc:
                    logger.debug("watch of the bindings in namespace %s: %s", namespace, exc)
                    self._versions.pop(namespace, None)
                    await asyncio.sleep(RECONNECT if isinstance(exc, TransientError) else PAUSE)
        finally:
            # A namespace without channels is not watched; the next that is looked at there begins anew.
            self._versions.pop(namespace, None)
            self._tasks.pop(namespace, None)

    async def _watch(self, namespace: str) -> None:
        seen: dict[str, str] = {}
        timer: asyncio.TimerHandle | None = None
        try:
            async for binding in self._kube.watch_bindings(namespace):
                if timer is None:
                    self._versions[namespace] = seen
                    timer = asyncio.get_running_loop().call_later(ALL_SEEN, self._look_for_missing, namespace, seen)
                self._take(namespace, seen, binding)
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self, namespace: str, seen: dict[str, str], binding: BindingVersion) -> None:
        key = namespace, binding.channel
        # A look that is under way finds it here when it ends.
        seen[binding.name] = binding.version
        if binding.deleted and self._ledger.holds(key):
            seen.pop(binding.name)
            self._wake(key)
        elif not self._ledger.holds_secret(key, binding.name, binding.version):
            self._wake(key)

    def _look_for_missing(self, namespace: str, seen: dict[str, str]) -> None:
        for key, channel in self._ledger.seen_in(namespace):
            if channel.secret not in seen:
                self._wake(key)
