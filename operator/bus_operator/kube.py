"""What the operator asks of the Kubernetes API.

Secrets are read one by one, by name, when they are needed; none is cached. Those with our label are watched, for their
metadata only.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Container, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import SecretError, SpecError, TransientError
from bus_operator.inventory import Key, Resource
from bus_operator.kube_api import PAGE, KubeApi, message_of, unless_missing
from bus_operator.kube_objects import BindingVersion, Listing, Refusal, Secret, Subject, owner_reference
from bus_operator.model import GROUP, VERSION
from bus_operator.pod_requests import LABEL as INJECT_LABEL
from bus_operator.status import timestamp
from bus_operator.texts import escaped

PLURALS = {"BusDatabase": "busdatabases", "BusChannel": "buschannels"}
FINALIZER = f"{GROUP}/finalizer"
CANARY_ANNOTATION = f"{GROUP}/canary"
CHANNEL_LABEL = f"{GROUP}/channel"
SECRET_TYPE = "servicebinding.io/pgmqbus"  # noqa: S105 - a type, not a secret
COMPONENT = "pgmq-bus"

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Ask the API server to leave out everything but metadata."""

LABELS_INTERVAL = 5.0
"""Seconds between two looks at the labels of namespaces that cannot be watched."""


class Kube:
    """The API calls that reconciling makes. Raises TransientError for what may pass, SpecError for what will not.

    Args:
        api: The API server.
        secrets_role: What remedies name as the role that gives access to Secrets.
        service_account: What they name as the operator's.
        namespaces: Those that are listed and watched; none means the whole cluster.
    """

    def __init__(
        self, api: KubeApi, *, secrets_role: str, service_account: Key, namespaces: tuple[str, ...] = ()
    ) -> None:
        self._api = api
        self.namespaces = namespaces
        self.refused: Mapping[str, Refusal] = {}
        """Those of them that could not be read when it was tried last."""
        self._secrets_role = secrets_role
        self._service_account = service_account

    async def cluster_id(self) -> str:
        """Eight characters that tell this cluster from others: the UID of kube-system begins with them."""
        with _translated("namespace kube-system"):
            namespace = await self._api.get("/api/v1/namespaces/kube-system")
        return str(namespace["metadata"]["uid"])[:8]

    async def namespace_labels(self, name: str) -> dict[str, str]:
        """The labels of a namespace."""
        with _translated(f"namespace {name}"):
            namespace = await self._api.get(f"/api/v1/namespaces/{name}")
        return namespace["metadata"].get("labels") or {}

    async def list_namespace_labels(self) -> tuple[str, dict[str, Mapping[str, str]]]:
        """The resource version, and by name the labels of all namespaces that are watched, and can be read."""
        if self.namespaces:
            read = {name: await self._labels_if_readable(name) for name in self.namespaces}
            return "", {name: labels for name, labels in read.items() if labels is not None}
        with _translated("the list of namespaces"):
            listed = await self._api.get("/api/v1/namespaces", accept=METADATA_LIST)
        labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in listed["items"] or ()}
        return listed["metadata"]["resourceVersion"], labels

    async def _labels_if_readable(self, name: str) -> dict[str, str] | None:
        try:
            return await self.namespace_labels(name)
        except (SpecError, ApiException):
            return None

    async def watch_namespace_labels(self, version: str) -> AsyncIterator[tuple[str, Mapping[str, str] | None]]:
        """Name and labels of each namespace that changes, None when it is gone; until the API server ends the watch.

        A Role lets nobody watch its own namespace, only read it: with a list of namespaces this ends after a while.
        """
        if self.namespaces:
            await asyncio.sleep(LABELS_INTERVAL)
            return
        with _translated("the watch of namespaces"):
            events = self._api.watch("/api/v1/namespaces", seconds=600, version=version, accept=METADATA)
            async for event in events:
                if event["type"] == "ERROR":
                    # The version is too old by now: list again.
                    return
                metadata = event["object"]["metadata"]
                yield metadata["name"], None if event["type"] == "DELETED" else metadata.get("labels") or {}

    async def is_terminating(self, name: str) -> bool:
        """Whether a namespace is being deleted; False where that may not be read."""
        try:
            with _translated(f"namespace {name}"):
                namespace = await self._api.get(f"/api/v1/namespaces/{name}")
        except (SpecError, ApiException):
            return False
        return "deletionTimestamp" in namespace["metadata"]

    async def read_resource(self, kind: str, key: Key) -> Resource | None:
        """A BusDatabase or BusChannel, or None when there is none."""
        with _translated(f"{kind} {'/'.join(key)}"):
            found = await unless_missing(self._api.get(_path(kind, key)))
        return Resource.from_body(found) if found is not None else None

    async def try_namespaces(self) -> Mapping[str, Refusal]:
        """Which of the namespaces that are watched may not be read, and why; none where the whole cluster is."""
        refused = {name: await self.refusal(name) for name in self.namespaces}
        self.refused = {name: why for name, why in refused.items() if why is not None}
        return self.refused

    async def refusal(self, namespace: str) -> Refusal | None:
        """Why a namespace may not be read; None when it may, or is not one that is watched by its name."""
        if namespace not in self.namespaces:
            return None
        with _translated(f"namespace {namespace}"):
            try:
                for plural in PLURALS.values():
                    await self._api.get(f"{collection(plural, namespace)}?limit=1")
            except ApiException as exc:
                if exc.status != HTTPStatus.FORBIDDEN:
                    raise
                return await self._why_forbidden(namespace)
        return None

    async def _why_forbidden(self, namespace: str) -> Refusal:
        """A Role goes with its namespace, so the API server forbids where there is nothing as well."""
        try:
            found = await unless_missing(self._api.get(f"/api/v1/namespaces/{namespace}"))
        except ApiException as exc:
            if exc.status != HTTPStatus.FORBIDDEN:
                raise
            return Refusal.FORBIDDEN
        if found is None:
            return Refusal.GONE
        return Refusal.TERMINATING if "deletionTimestamp" in found["metadata"] else Refusal.FORBIDDEN

    async def list_resources(self, kind: str, *, without: Container[str] = ()) -> Listing:
        """All resources of a kind that are watched, read page by page, without those of some namespaces.

        Its version is that of the first page, which is the oldest where there are several namespaces.
        """
        version, resources, page_size = "", [], PAGE
        with _translated(f"the list of {PLURALS[kind]}"):
            for namespace in self._scopes:
                if namespace in without:
                    continue
                async for page in self._api.pages(collection(PLURALS[kind], namespace)):
                    version = version or page.resource_version
                    page_size = min(page_size, page.limit)
                    # The items of a list come without their kind.
                    resources += [Resource.from_body(item | {"kind": kind}) for item in page.items]
        return Listing(version, resources, page_size)

    @property
    def _scopes(self) -> tuple[str | None, ...]:
        """The namespaces whose collections are listed; None stands for all of them."""
        return self.namespaces or (None,)

    async def read_secret(self, namespace: str, name: str, *, only: str | None = None) -> Secret | None:
        """The Secret, with a single entry if `only` names one, or None when there is none.

        Raises SecretError when it may not be read.
        """
        with self._secret_access(namespace, name):
            found = await unless_missing(self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}"))
        return Secret.from_body(found, only) if found is not None else None

    async def write_binding(self, owner: Resource, name: str, data: Mapping[str, str | None]) -> str:
        """Creates or updates the binding's Secret, without the entries that are None; its version then.

        Raises SecretError when a foreign Secret has that name, TransientError when somebody else was faster.
        """
        existing = await self.read_secret(owner.namespace, name)
        if existing is not None:
            existing.require_owner(owner)
        secrets = f"/api/v1/namespaces/{owner.namespace}/secrets"
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {
                "name": name,
                "labels": {CHANNEL_LABEL: owner.name, "app.kubernetes.io/managed-by": COMPONENT},
                "ownerReferences": [owner_reference(owner)],
            },
            "data": {
                key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value is not None
            },
        }
        with self._secret_access(owner.namespace, name):
            if existing is None:
                written = await self._api.create(secrets, body)
            else:
                body["metadata"]["resourceVersion"] = existing.resource_version
                body["data"] |= {key: None for key, value in data.items() if value is None}
                patched = await unless_missing(self._api.patch(f"{secrets}/{name}", body))
                if patched is None:
                    raise TransientError(f"Secret {owner.namespace}/{name} was deleted meanwhile", reason="Conflict")
                written = patched
        return str(written["metadata"]["resourceVersion"])

    async def watch_secret(self, namespace: str, name: str) -> AsyncIterator[None]:
        """Yields whenever the Secret changes, until the API server ends the watch (some minutes).

        Its content stays there.
        """
        with self._secret_access(namespace, name):
            selector = f"metadata.name={name}"
            events = self._api.watch(
                f"/api/v1/namespaces/{namespace}/secrets", field_selector=selector, seconds=600, accept=METADATA
            )
            async for _ in events:
                yield

    async def watch_bindings(self, namespace: str) -> AsyncIterator[BindingVersion]:
        """The Secrets of a namespace that carry our label, by their metadata: first all, then as they change."""
        with self._secret_access(namespace, "of bindings"):
            events = self._api.watch(
                f"/api/v1/namespaces/{namespace}/secrets", label_selector=CHANNEL_LABEL, seconds=600, accept=METADATA
            )
            async for event in events:
                if event["type"] == "ERROR":
                    return
                metadata = event["object"]["metadata"]
                yield BindingVersion(
                    metadata["name"],
                    metadata.get("labels", {}).get(CHANNEL_LABEL, ""),
                    metadata["resourceVersion"],
                    event["type"] == "DELETED",
                )

    async def patch_status(self, resource: Resource, status: Mapping[str, Any]) -> Resource | None:
        """Merges into the status subresource; the resource as it then is, None when it is gone meanwhile."""
        return await self._patch(resource, f"{_path(resource.kind, resource.key)}/status", {"status": dict(status)})

    async def set_finalizer(self, resource: Resource, *, present: bool) -> Resource | None:
        """Adds or removes our finalizer, if nobody changed the resource meanwhile (TransientError: look again).

        Returns the resource as it then is, None when it is gone.
        """
        finalizers = [item for item in resource.finalizers if item != FINALIZER]
        if present:
            finalizers.append(FINALIZER)
        metadata = {"finalizers": finalizers, "resourceVersion": resource.resource_version}
        return await self._patch(resource, _path(resource.kind, resource.key), {"metadata": metadata})

    async def asking_pods(self) -> AsyncIterator[Mapping[str, Any]]:
        """The pods that ask for bindings: their metadata only, page by page, so that no more is ever held."""
        for namespace in self._scopes:
            if namespace in self.refused:
                continue
            async for pod in self._pods(namespace, f"{INJECT_LABEL}=true"):
                yield pod

    async def unlabelled_pods(self, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
        """The pods of a namespace that neither ask nor have opted out, and have not ended: their metadata likewise."""
        unfinished = "status.phase!=Succeeded,status.phase!=Failed"
        async for pod in self._pods(namespace, f"!{INJECT_LABEL}", unfinished):
            yield pod

    async def _pods(
        self, namespace: str | None, labels: str, fields: str | None = None
    ) -> AsyncIterator[Mapping[str, Any]]:
        with _translated("the list of pods"):
            path = collection("pods", namespace, api="/api/v1")
            pages = self._api.pages(path, label_selector=labels, field_selector=fields, accept=METADATA_LIST)
            async for page in pages:
                for item in page.items:
                    yield item
                    # A page comes at once: whoever looks at hundreds of pods leaves others a turn, above all the Lease.
                    await asyncio.sleep(0)

    async def touch(self, resource: Resource) -> Resource | None:
        """Changes nothing but the canary's annotation; the resource as it then is, None when it is gone."""
        metadata = {"annotations": {CANARY_ANNOTATION: timestamp(datetime.now(UTC))}}
        return await self._patch(resource, _path(resource.kind, resource.key), {"metadata": metadata})

    async def pods_at(self, namespace: str, address: str) -> list[str]:
        """The names of the pods in a namespace that have this IP address: several share their node's."""
        query = {"fieldSelector": f"status.podIP={address}"}
        with _translated(f"the pods at {address}"):
            found = await self._api.get(f"/api/v1/namespaces/{namespace}/pods?{urlencode(query)}", accept=METADATA_LIST)
        return [item["metadata"]["name"] for item in found["items"] or ()]

    async def post_event(
        self, subject: Subject, *, warning: bool, reason: str, message: str, once: str | None = None
    ) -> None:
        """Tells about a change on an object, as `kubectl describe` shows it.

        Args:
            subject: What it is about.
            warning: Whether somebody should look.
            reason: In CamelCase.
            message: What happened, and what to do.
            once: Ends the Event's name; as long as there is an Event of that name no second one is made.

        Raises SpecError when the API server will not have it, as in a namespace that is going away.
        """
        now = timestamp(datetime.now(UTC))
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": subject.namespace}
            | ({"name": f"{subject.name[:50]}.{once}"} if once else {"generateName": f"{subject.name[:50]}."}),
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            # The API server refuses longer ones.
            "message": escaped(message[:1024])[:1024],
            "source": {"component": COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            with _translated(f"Event about {subject}"):
                await self._api.create(f"/api/v1/namespaces/{subject.namespace}/events", body)
        except ApiException as exc:
            raise SpecError(f"Event about {subject}: {message_of(exc)}", reason="ApiRefused") from exc
        except TransientError as exc:
            if once is None or exc.reason != "Conflict":
                raise

    async def _patch(self, resource: Resource, path: str, body: Mapping[str, Any]) -> Resource | None:
        with _translated(str(resource)):
            patched = await unless_missing(self._api.patch(path, body))
        return Resource.from_body(patched) if patched is not None else None

    def _secret_access(self, namespace: str, name: str) -> "_translated":
        account_namespace, account = self._service_account
        return _translated(
            f"Secret {namespace}/{name}",
            forbidden=(
                # Before the command, which is copied up to the end.
                f"the operator may not use Secrets in namespace {namespace}, and tries again every resyncSeconds, a"
                " minute unless it was set otherwise. Allow it with: kubectl create rolebinding"
                f" {self._secrets_role} --namespace {namespace} --clusterrole={self._secrets_role}"
                f" --serviceaccount={account_namespace}:{account}"
            ),
        )


def collection(plural: str, namespace: str | None, *, api: str = f"/apis/{GROUP}/{VERSION}") -> str:
    """The path of what there is of a kind, in one namespace or in all."""
    return f"{api}/namespaces/{namespace}/{plural}" if namespace else f"{api}/{plural}"


def _path(kind: str, key: Key) -> str:
    namespace, name = key
    return f"{collection(PLURALS[kind], namespace)}/{name}"


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
                raise SpecError(f"{self._subject}: {message_of(error)}", reason="ApiRefused") from error
            case ApiException():
                raise TransientError(f"{self._subject}: {message_of(error)}", reason="ApiUnavailable") from error
            case aiohttp.ClientError() | TimeoutError():
                raise TransientError(f"{self._subject}: {error}", reason="ApiUnavailable") from error
