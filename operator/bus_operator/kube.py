"""What the operator asks of the Kubernetes API, over the asynchronous client of the `kubernetes` package.

Secrets are read one by one, by name, when they are needed; none is cached and none is listed.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.watch import Watch

from bus_operator.errors import SecretError, SpecError, TransientError
from bus_operator.inventory import Key, Resource

GROUP = "pgmqbus.dev"
VERSION = "v1alpha1"
PLURALS = {"BusDatabase": "busdatabases", "BusChannel": "buschannels"}
FINALIZER = f"{GROUP}/finalizer"
CHANNEL_LABEL = f"{GROUP}/channel"
SECRET_TYPE = "servicebinding.io/pgmqbus"  # noqa: S105 - a type, not a secret
COMPONENT = "pgmq-bus"

_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


@asynccontextmanager
async def api_client() -> AsyncIterator[client.ApiClient]:
    """A client for the cluster this process runs in, else for the current kubeconfig context."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with client.ApiClient(configuration) as api:
        yield api


@dataclass(frozen=True)
class Secret:
    """A Secret that was read. Its entries are kept out of `repr`."""

    namespace: str
    name: str
    resource_version: str
    owners: frozenset[str]
    data: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_api(cls, secret: client.V1Secret) -> "Secret":
        """Decodes what the API server sent. Raises SecretError for entries that are no text."""
        metadata = secret.metadata or client.V1ObjectMeta()
        try:
            data = {key: base64.b64decode(value).decode() for key, value in (secret.data or {}).items()}
        except UnicodeDecodeError as exc:
            raise SecretError(f"Secret {metadata.namespace}/{metadata.name} holds binary data") from exc
        return cls(
            namespace=str(metadata.namespace),
            name=str(metadata.name),
            resource_version=str(metadata.resource_version),
            owners=frozenset(str(reference.uid) for reference in metadata.owner_references or ()),
            data=data,
        )

    def require_owner(self, owner: Resource) -> None:
        """Raises SecretError unless the Secret belongs to `owner`."""
        if owner.uid not in self.owners:
            raise SecretError(
                f"Secret {self.namespace}/{self.name} exists and does not belong to this {owner.kind}:"
                " delete it, or choose another spec.credentials.secretName",
                reason="SecretConflict",
            )


class Kube:
    """The API calls that reconciling makes. Raises TransientError for what may pass, SpecError for what will not."""

    def __init__(self, api: client.ApiClient, *, secrets_role: str, service_account: Key) -> None:
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._secrets_role = secrets_role
        self._service_account = service_account

    async def cluster_id(self) -> str:
        """Eight characters that tell this cluster from others: the UID of kube-system begins with them."""
        with _translated("namespace kube-system"):
            namespace = await self._core.read_namespace("kube-system")
        return str(_metadata(namespace).uid)[:8]

    async def namespace_labels(self, name: str) -> dict[str, str]:
        """The labels of a namespace."""
        with _translated(f"namespace {name}"):
            namespace = await self._core.read_namespace(name)
        return dict(_metadata(namespace).labels or {})

    async def read_channel(self, namespace: str, name: str) -> Resource | None:
        """A BusChannel, or None when there is none."""
        try:
            with _translated(f"BusChannel {namespace}/{name}"):
                body = await self._custom.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURALS["BusChannel"], name
                )
        except ApiException as exc:
            if exc.status == 404:
                return None
            raise
        return Resource.from_body(cast("dict[str, Any]", body))

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret, or None when there is none. Raises SecretError when it may not be read."""
        try:
            with self._secret_access(namespace, name):
                return Secret.from_api(await self._core.read_namespaced_secret(name, namespace))
        except ApiException as exc:
            if exc.status == 404:
                return None
            raise

    async def write_binding(self, owner: Resource, name: str, data: Mapping[str, str]) -> None:
        """Creates or updates the binding's Secret. Raises SecretError when a foreign Secret has that name."""
        existing = await self.read_secret(owner.namespace, name)
        if existing is not None:
            existing.require_owner(owner)
        body: Any = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {
                "name": name,
                "labels": {CHANNEL_LABEL: owner.name, "app.kubernetes.io/managed-by": COMPONENT},
                "ownerReferences": [owner_reference(owner)],
            },
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
        }
        with self._secret_access(owner.namespace, name):
            if existing is None:
                await self._core.create_namespaced_secret(owner.namespace, body)
            else:
                body["metadata"]["resourceVersion"] = existing.resource_version
                await self._core.patch_namespaced_secret(name, owner.namespace, body, _content_type=_MERGE_PATCH)

    async def watch_secret(self, namespace: str, name: str) -> AsyncIterator[None]:
        """Yields whenever the Secret changes, until the API server ends the watch (some minutes)."""
        with self._secret_access(namespace, name):
            async with Watch() as watch:  # type: ignore[no-untyped-call]
                stream = watch.stream(
                    self._core.list_namespaced_secret,
                    namespace,
                    field_selector=f"metadata.name={name}",
                    timeout_seconds=600,
                )
                async for _ in stream:
                    yield

    async def patch_status(self, resource: Resource, status: Mapping[str, Any]) -> dict[str, Any] | None:
        """Merges into the status subresource; returns the resource as it then is, None when it is gone meanwhile."""
        try:
            with _translated(str(resource)):
                patched = await self._custom.patch_namespaced_custom_object_status(
                    GROUP,
                    VERSION,
                    resource.namespace,
                    PLURALS[resource.kind],
                    resource.name,
                    {"status": dict(status)},
                    _content_type=_MERGE_PATCH,
                )
        except ApiException as exc:
            if exc.status != 404:
                raise
            return None
        return cast("dict[str, Any]", patched)

    async def set_finalizer(self, resource: Resource, *, present: bool) -> None:
        """Adds or removes our finalizer, if nobody changed the list meanwhile (TransientError: look again)."""
        finalizers = [item for item in resource.finalizers if item != FINALIZER]
        if present:
            finalizers.append(FINALIZER)
        try:
            with _translated(str(resource)):
                await self._custom.patch_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    resource.namespace,
                    PLURALS[resource.kind],
                    resource.name,
                    {"metadata": {"finalizers": finalizers, "resourceVersion": resource.resource_version}},
                    _content_type=_MERGE_PATCH,
                )
        except ApiException as exc:
            if exc.status != 404:
                raise

    async def post_event(self, resource: Resource, *, warning: bool, reason: str, message: str) -> None:
        """Tells about a change on the resource, as `kubectl describe` shows it."""
        now = datetime.now(UTC)
        body: Any = {
            "metadata": {"generateName": f"{resource.name[:50]}.", "namespace": resource.namespace},
            "involvedObject": {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": resource.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": resource.uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            # The API server refuses longer ones.
            "message": message[:1024],
            "source": {"component": COMPONENT},
            "firstTimestamp": now.isoformat(),
            "lastTimestamp": now.isoformat(),
            "count": 1,
        }
        with _translated(f"Event about {resource}"):
            await self._core.create_namespaced_event(resource.namespace, body)

    def _secret_access(self, namespace: str, name: str) -> "_translated":
        account_namespace, account = self._service_account
        return _translated(
            f"Secret {namespace}/{name}",
            forbidden=(
                f"the operator may not use Secrets in namespace {namespace}. Allow it with: kubectl create rolebinding"
                f" {self._secrets_role} --namespace {namespace} --clusterrole={self._secrets_role}"
                f" --serviceaccount={account_namespace}:{account}"
            ),
        )


def _metadata(item: client.V1Namespace) -> client.V1ObjectMeta:
    return item.metadata or client.V1ObjectMeta()


def owner_reference(owner: Resource) -> dict[str, Any]:
    """Ties an object's life to a resource: garbage collection deletes it afterwards."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


class _translated:  # noqa: N801 - reads as a statement: with _translated(...):
    """Turns API errors into BusErrors that name the object; 404 passes, for callers to whom it means something."""

    def __init__(self, subject: str, *, forbidden: str | None = None) -> None:
        self._subject = subject
        self._forbidden = forbidden

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case ApiException(status=404):
                return
            case ApiException(status=403) if self._forbidden:
                raise SecretError(self._forbidden, reason="SecretAccessDenied") from error
            case ApiException(status=409):
                raise TransientError(f"{self._subject} was changed meanwhile", reason="Conflict") from error
            case ApiException(status=status) if status and 400 <= status < 500 and status not in (401, 429):
                raise SpecError(f"{self._subject}: {_reason(error)}", reason="ApiRefused") from error
            case ApiException():
                raise TransientError(f"{self._subject}: {_reason(error)}", reason="ApiUnavailable") from error
            case aiohttp.ClientError() | TimeoutError():
                raise TransientError(f"{self._subject}: {error}", reason="ApiUnavailable") from error


def _reason(error: ApiException) -> str:
    """The API server's message out of the error's body."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
