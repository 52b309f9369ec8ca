"""Whether the cluster's resource definitions are as new as this operator.

Helm does not upgrade definitions, the chart's hook may be switched off, and GitOps may leave them out. The API server
drops fields that a definition does not know, without a word: a manifest then seems to do nothing.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib.metadata import version

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from bus_operator import definitions
from bus_operator.kube import METADATA, PLURALS
from bus_operator.kube_api import KubeApi, message_of
from bus_operator.model import GROUP

logger = logging.getLogger(__name__)

INTERVAL = 300.0
"""Seconds between two looks: somebody may have brought them up to date meanwhile, or put back older ones."""

RETRY = 10.0
"""Seconds until the next look while one of them could not be read."""


class DefinitionAge:
    """Compares the versions, and says so in the log when a definition is older.

    Args:
        api: The Kubernetes API.
        expected: The version that this operator came with.
    """

    def __init__(self, api: KubeApi, *, expected: str | None = None) -> None:
        self._api = api
        self._expected = expected if expected is not None else version("pgmq-bus")
        self._ailments: dict[str, str | None] = {}
        self._unread: dict[str, str] = {}

    @property
    def outdated(self) -> Mapping[str, bool]:
        """Of each definition that was read, whether it is older than expected."""
        return {name: ailment is not None for name, ailment in self._ailments.items()}

    async def run(self) -> None:
        """Looks now and then, until it is cancelled."""
        while True:
            known = await self.look()
            await asyncio.sleep(INTERVAL if known else RETRY)

    async def look(self) -> bool:
        """Looks at all definitions. False when one could not be read, about which nothing new is known then."""
        return all([await self._look_at(f"{plural}.{GROUP}") for plural in PLURALS.values()])

    async def _look_at(self, name: str) -> bool:
        try:
            present = await self._api.get(f"{definitions.COLLECTION}/{name}", accept=METADATA)
        except ApiException as exc:
            if exc.status == 404:
                self._judge(name, f"definition {name} is not installed. Install it: {definitions.BY_HAND}")
            else:
                self._tell_unread(name, message_of(exc))
            return False
        except (aiohttp.ClientError, TimeoutError) as exc:
            self._tell_unread(name, str(exc) or type(exc).__name__)
            return False
        self._unread.pop(name, None)
        found = definitions.version_of(present)
        older = found < definitions.parse_version(self._expected)
        self._judge(name, self._describe(name, found) if older else None)
        return True

    def _judge(self, name: str, ailment: str | None) -> None:
        before = self._ailments.get(name)
        self._ailments[name] = ailment
        if ailment is not None and ailment != before:
            logger.warning("%s", ailment)
        elif ailment is None and before is not None:
            logger.info("definition %s is up to date now", name)

    def _describe(self, name: str, found: tuple[int, ...]) -> str:
        stated = f"is of version {definitions.version_text(found)}" if any(found) else "states no version"
        return (
            f"definition {name} {stated}, older than the {self._expected} of this operator: the API server drops fields"
            f" that it does not know. Bring it up to date: {definitions.BY_HAND}"
        )

    def _tell_unread(self, name: str, why: str) -> None:
        if self._unread.get(name) != why:
            self._unread[name] = why
            logger.warning("definition %s cannot be read, so nobody knows whether it is outdated: %s", name, why)
