"""Which pods are shown to the webhook without having asked: those of the namespaces where a BusChannel selects pods.

The chart's webhook, `inject.pgmqbus.dev`, is for the pods that carry the label. For the others the leader keeps a
second one beside it in the same configuration: the chart's own, with other selectors. It is there as long as there are
BusChannels that select pods, and names exactly their namespaces: no pod elsewhere ever depends on it. It is in no
manifest of the chart, so Helm leaves it alone, as it does the caBundle; and it goes with the configuration.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import BusError
from bus_operator.inventory import Inventory
from bus_operator.kube_api import KubeApi, words_of
from bus_operator.pod_requests import LABEL, WEBHOOK, WEBHOOK_CONFIGURATIONS

logger = logging.getLogger(__name__)

SELECTED = "select.pgmqbus.dev"

CHECK = 60.0
"""Seconds between looks at what somebody else may have changed, such as an upgrade of the chart."""

PAUSE = 1.0
"""Seconds between two looks at least: BusChannels come in crowds."""

RETRY = 10.0
"""Seconds until the next look after one that failed."""

Webhook = Mapping[str, Any]


def with_selected(webhooks: Sequence[Webhook], namespaces: Collection[str]) -> list[Webhook]:
    """The webhooks of the configuration as they should be. It has no side effects.

    Args:
        webhooks: Those that it has.
        namespaces: Where BusChannels select pods.
    """
    others = [webhook for webhook in webhooks if webhook["name"] != SELECTED]
    pattern = next((webhook for webhook in others if webhook["name"] == WEBHOOK), None)
    if pattern is None or not namespaces:
        return others
    # What the chart says of namespaces holds here as well.
    within = pattern.get("namespaceSelector") or {}
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": sorted(namespaces)}
    selected = {
        **pattern,
        "name": SELECTED,
        "namespaceSelector": {**within, "matchExpressions": [*within.get("matchExpressions", ()), named]},
        # One that has the label asks by itself, or has opted out.
        "objectSelector": {"matchExpressions": [{"key": LABEL, "operator": "DoesNotExist"}]},
    }
    return [*others, selected]


def named_now(webhooks: Sequence[Webhook]) -> frozenset[str]:
    """The namespaces that the second webhook of the configuration names, as `with_selected` wrote it."""
    for webhook in webhooks:
        expressions = (webhook.get("namespaceSelector") or {}).get("matchExpressions")
        if webhook["name"] == SELECTED and expressions:
            return frozenset(expressions[-1].get("values") or ())
    return frozenset()


class WebhookScope:
    """Keeps the second webhook.

    Args:
        api: The API server; only a leader may write.
        name: The MutatingWebhookConfiguration.
        inventory: The BusChannels that there are.
    """

    def __init__(self, api: KubeApi, name: str, inventory: Inventory) -> None:
        self._api = api
        self._path = f"{WEBHOOK_CONFIGURATIONS}/{name}"
        self._inventory = inventory

    async def run(self) -> None:
        """Keeps it until it is cancelled: at once when a namespace comes or goes, else once in CHECK seconds."""
        changed = self._inventory.selection_changed
        while True:
            changed.clear()
            wait = await self._look()
            await asyncio.sleep(PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), wait)

    async def _look(self) -> float:
        """Returns the seconds until the next look."""
        try:
            await self.ensure()
        except (BusError, ApiException, aiohttp.ClientError, TimeoutError) as exc:
            if isinstance(exc, ApiException) and exc.status == HTTPStatus.CONFLICT:
                # Such as another replica that writes the caBundle.
                return 0
            logger.warning("pods that BusChannels select may not be shown to the webhook: %s", words_of(exc))
            return RETRY
        return CHECK

    async def ensure(self) -> bool:
        """Makes the configuration as it should be; whether it had to be changed.

        Raises TransientError, ApiException (409 when somebody else changes it at the same time) or aiohttp's errors.
        """
        namespaces = self._inventory.selecting_namespaces
        try:
            configuration = await self._api.get(self._path)
        except ApiException as exc:
            if exc.status == HTTPStatus.NOT_FOUND and not namespaces:
                return False
            raise
        present = configuration.get("webhooks") or []
        # What cannot be read stays as it is.
        wanted = with_selected(present, namespaces | (named_now(present) & self._inventory.unread))
        if wanted == present:
            return False
        # The version, since the whole list is written.
        version = configuration["metadata"]["resourceVersion"]
        await self._api.patch(self._path, {"metadata": {"resourceVersion": version}, "webhooks": wanted})
        logger.info("unlabelled pods of %d namespaces are shown to the webhook", len(namespaces))
        return True
