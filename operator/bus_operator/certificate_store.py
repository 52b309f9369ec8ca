"""The Kubernetes objects that the webhook's certificates live in: a Secret and the webhook configuration's caBundle.

Needs the verbs get, create and patch on the Secret's name in the operator's namespace (create cannot be limited to a
name), and get and patch on the one MutatingWebhookConfiguration.
"""

import base64
import logging
from collections.abc import Mapping
from http import HTTPStatus

from kubernetes.aio.client import AdmissionregistrationV1Api, ApiException, CoreV1Api, V1ObjectMeta, V1Secret

from bus_operator.errors import TransientError
from bus_operator.serving_certificates import StoreConflictError

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
_TIMEOUT_SECONDS = 10.0


class KubernetesSecretStore:
    """A SecretStore on the API server. What it does not name, it raises as ApiException."""

    def __init__(self, api: CoreV1Api, *, name: str, namespace: str) -> None:
        self._api = api
        self._name = name
        self._namespace = namespace

    async def read(self) -> tuple[Mapping[str, bytes], str] | None:
        """The decoded data and the resourceVersion; None when there is no Secret."""
        try:
            secret = await self._api.read_namespaced_secret(
                self._name, self._namespace, _request_timeout=_TIMEOUT_SECONDS
            )
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        data = {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}
        return data, _version(secret.metadata)

    async def create(self, data: Mapping[str, bytes]) -> None:
        """Raises StoreConflictError when there is one already."""
        body = V1Secret(
            metadata=V1ObjectMeta(name=self._name, labels={"app.kubernetes.io/managed-by": "pgmq-bus"}),
            type="kubernetes.io/tls",
            data=dict(_encoded(data)),
        )
        try:
            await self._api.create_namespaced_secret(self._namespace, body, _request_timeout=_TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                raise StoreConflictError(f"Secret {self._namespace}/{self._name} exists already") from error
            raise

    async def replace(self, data: Mapping[str, bytes], resource_version: str) -> None:
        """Writes these keys; labels, owners and type stay. Raises StoreConflictError when it was changed meanwhile."""
        body = {"metadata": {"resourceVersion": resource_version}, "data": _encoded(data)}
        try:
            await self._api.patch_namespaced_secret(
                self._name, self._namespace, body, _request_timeout=_TIMEOUT_SECONDS
            )
        except ApiException as error:
            # NOT_FOUND: deleted since it was read.
            if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise StoreConflictError(f"Secret {self._namespace}/{self._name} was changed meanwhile") from error
            raise


async def ensure_ca_bundle(api: AdmissionregistrationV1Api, name: str, ca_pem: bytes) -> bool:
    """Makes every webhook of the MutatingWebhookConfiguration `name` trust `ca_pem`; whether it had to be changed.

    Raises TransientError (WebhookConfigurationNotFound) when there is no such object, StoreConflictError when others
    change it all the time, else ApiException.
    """
    wanted = base64.b64encode(ca_pem).decode("ascii")
    for _ in range(_ATTEMPTS):
        try:
            configuration = await api.read_mutating_webhook_configuration(name, _request_timeout=_TIMEOUT_SECONDS)
            # A strategic merge by the webhooks' names: their other fields, and the chart's changes to them, stay.
            webhooks = [
                {"name": webhook.name, "clientConfig": {"caBundle": wanted}}
                for webhook in configuration.webhooks or []
                if webhook.client_config.ca_bundle != wanted
            ]
            if not webhooks:
                return False
            # The version, since merging a webhook that was removed meanwhile would add half of one.
            body = {"metadata": {"resourceVersion": _version(configuration.metadata)}, "webhooks": webhooks}
            await api.patch_mutating_webhook_configuration(name, body, _request_timeout=_TIMEOUT_SECONDS)
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


def _version(metadata: V1ObjectMeta | None) -> str:
    if metadata is None or metadata.resource_version is None:
        raise ValueError("the API server sent an object without a resourceVersion")
    return str(metadata.resource_version)
