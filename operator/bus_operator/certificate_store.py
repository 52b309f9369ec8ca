"""Where the webhook's certificate lives and who is told to trust it, on the Kubernetes API.

What this module does not name, it raises as ApiException.
"""

import base64
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import TransientError
from bus_operator.kube_api import STRATEGIC_PATCH, KubeApi, unless_missing
from bus_operator.pod_requests import WEBHOOK_CONFIGURATIONS
from bus_operator.serving_certificates import StoreConflictError

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
"""Rounds of reading and writing before giving up: each lost race means that another replica won one."""


class KubernetesSecretStore:
    """A SecretStore on the API server."""

    def __init__(self, api: KubeApi, *, name: str, namespace: str) -> None:
        self._api = api
        self._name = name
        self._namespace = namespace

    async def read(self) -> tuple[Mapping[str, bytes], str] | None:
        """The decoded data and the resourceVersion; None when there is no Secret."""
        secret = await unless_missing(self._api.get(f"{self._collection}/{self._name}"))
        if secret is None:
            return None
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        return data, secret["metadata"]["resourceVersion"]

    async def create(self, data: Mapping[str, bytes]) -> None:
        """Raises StoreConflictError when there is one already."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "labels": {"app.kubernetes.io/managed-by": "pgmq-bus"}},
            "type": "kubernetes.io/tls",
            "data": _encoded(data),
        }
        try:
            await self._api.create(self._collection, body)
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                raise StoreConflictError(f"Secret {self._namespace}/{self._name} exists already") from error
            raise

    async def replace(self, data: Mapping[str, bytes], resource_version: str) -> None:
        """Writes these keys; labels, owners and type stay. Raises StoreConflictError when it was changed meanwhile."""
        body = {"metadata": {"resourceVersion": resource_version}, "data": _encoded(data)}
        try:
            await self._api.patch(f"{self._collection}/{self._name}", body)
        except ApiException as error:
            # NOT_FOUND: deleted since it was read.
            if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise StoreConflictError(f"Secret {self._namespace}/{self._name} was changed meanwhile") from error
            raise

    @property
    def _collection(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets"


async def ensure_ca_bundle(api: KubeApi, name: str, ca_pem: bytes) -> bool:
    """Makes every webhook of the MutatingWebhookConfiguration `name` trust `ca_pem`; whether it had to be changed.

    Raises TransientError (WebhookConfigurationNotFound) when there is no such object, StoreConflictError when others
    change it all the time, else ApiException.
    """
    path = f"{WEBHOOK_CONFIGURATIONS}/{name}"
    wanted = base64.b64encode(ca_pem).decode("ascii")
    for _ in range(_ATTEMPTS):
        try:
            configuration = await api.get(path)
            # A strategic merge by the webhooks' names: their other fields, and the chart's changes to them, stay.
            webhooks: list[dict[str, Any]] = [
                {"name": webhook["name"], "clientConfig": {"caBundle": wanted}}
                for webhook in configuration.get("webhooks") or []
                if webhook["clientConfig"].get("caBundle") != wanted
            ]
            if not webhooks:
                return False
            # The version, since merging a webhook that was removed meanwhile would add half of one.
            version = configuration["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "webhooks": webhooks}
            await api.patch(path, body, content_type=STRATEGIC_PATCH)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise TransientError(
                    f"there is no MutatingWebhookConfiguration {name}: no pod is injected until it is installed",
                    reason="WebhookConfigurationNotFound",
                ) from error
            if error.status != HTTPStatus.CONFLICT:
                raise
        else:
            logger.info("set the caBundle of %d webhooks in MutatingWebhookConfiguration %s", len(webhooks), name)
            return True
    raise StoreConflictError(
        f"MutatingWebhookConfiguration {name} changed {_ATTEMPTS} times while writing its caBundle"
    )


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode("ascii") for key, value in data.items()}
