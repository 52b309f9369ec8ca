"""Pods that a real API server sends to the running webhook, which it trusts by the caBundle that the operator wrote.

Pods are created as a dry run: admission and validation are those of any other creation.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import AdmissionregistrationV1Api, ApiClient, ApiException, CoreV1Api
from kubernetes.aio.config import new_client_from_config

from bus_operator.certificate_store import KubernetesSecretStore, ensure_ca_bundle
from bus_operator.kube_api import KubeApi
from bus_operator.runtime_injection import RuntimeImage
from bus_operator.serving_certificates import CertificateManager
from bus_operator.webhook import WebhookServer, make_app

pytestmark = pytest.mark.cluster

NAMESPACE = "default"
NAME = "pod-injection-test"
RESTRICTED = "pod-injection-restricted"
RUNTIME = RuntimeImage("registry.example/pgmq-bus:0.1.0", "0.1.0")

Json = dict[str, Any]


async def resolve(_namespace: str, channel: str) -> str | None:
    return {"orders": "orders-bus", "audit": "audit-credentials"}.get(channel)


async def select(_namespace: str, _labels: Mapping[str, str]) -> tuple[str, ...]:
    return ()


class Webhook:
    """The webhook as the operator runs it, on this machine, and its configuration in the API server."""

    def __init__(self, client: ApiClient) -> None:
        self._api = KubeApi(client)
        self._admission = AdmissionregistrationV1Api(client)
        self._core = CoreV1Api(client)
        self.behind = timedelta(0)
        """By how much the replicas' clock is behind."""
        self.certificate = self.replica()
        self._server = WebhookServer(make_app(resolve, select, runtime=RUNTIME))

    def replica(self) -> CertificateManager:
        """One of those that share a certificate."""
        store = KubernetesSecretStore(self._api, name=NAME, namespace=NAMESPACE)
        # A Service called `localhost` makes that one of the names in the certificate.
        return CertificateManager(
            store, service="localhost", namespace="bus-system", clock=lambda: datetime.now(UTC) - self.behind
        )

    async def start(self) -> None:
        await self.certificate.ensure()
        await self._server.start("127.0.0.1", 0, self.certificate.ssl_context)
        webhook = {
            "name": "inject.pgmqbus.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",  # so that a test sees why
            "reinvocationPolicy": "IfNeeded",
            "clientConfig": {"url": f"https://localhost:{self._server.port}/mutate-pods"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "objectSelector": {"matchLabels": {"pgmqbus.dev/inject": "true"}},
        }
        await self._admission.create_mutating_webhook_configuration({"metadata": {"name": NAME}, "webhooks": [webhook]})

    async def restrict(self) -> None:
        """Makes a namespace under Pod Security's restricted profile, for good: an API server alone ends none."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        await self._core.create_namespace({"metadata": {"name": RESTRICTED, "labels": labels}})

    async def trust(self) -> None:
        """Has the API server trust the webhook, and waits until it does."""
        assert self.certificate.ca_bundle is not None
        await ensure_ca_bundle(self._api, NAME, self.certificate.ca_bundle)
        async with asyncio.timeout(30):
            while True:
                try:
                    created, _ = await self.create(pod())
                except ApiException as error:
                    # Signed by an unknown authority: it has not seen the change yet.
                    if error.status != 500:
                        raise
                else:
                    if "pgmqbus.dev/injected" in created["metadata"]["annotations"]:
                        return
                await asyncio.sleep(0.05)

    async def create(self, pod: Json, namespace: str = NAMESPACE) -> tuple[Json, list[str]]:
        """What the API server would store, and its warnings."""
        answer = await self._core.create_namespaced_pod_with_http_info(
            namespace, pod, dry_run="All", field_validation="Strict"
        )
        created: Json = self._core.api_client.sanitize_for_serialization(answer.data)
        headers = answer.headers or {}
        return created, [value for key, value in headers.items() if key.lower() == "warning"]

    async def lose_the_secret(self) -> None:
        await self._core.delete_namespaced_secret(NAME, NAMESPACE)

    async def stop(self) -> None:
        await self._server.stop()
        await self._admission.delete_mutating_webhook_configuration(NAME)
        await self.lose_the_secret()


@pytest.fixture
async def webhook(apiserver: Path) -> AsyncIterator[Webhook]:
    async with await new_client_from_config(config_file=str(apiserver)) as client:
        webhook = Webhook(client)
        await webhook.start()
        try:
            await webhook.trust()
            yield webhook
        finally:
            await webhook.stop()


def pod(channels: str = "orders,audit", *containers: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "app-",
            "labels": {"pgmqbus.dev/inject": "true"},
            "annotations": {"pgmqbus.dev/channels": channels},
        },
        "spec": {"containers": list(containers) or [{"name": "app", "image": "app"}], **spec},
    }


def mounts(container: Json) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}


async def test_an_injected_pod_is_valid(webhook: Webhook) -> None:
    sidecar = {"name": "sidecar", "image": "s", "restartPolicy": "Always"}
    created, warnings = await webhook.create(
        pod(initContainers=[{"name": "init", "image": "i", "env": [{"name": "A", "value": "b"}]}, sidecar])
    )
    spec = created["spec"]
    for container in (*spec["containers"], *spec["initContainers"]):
        assert mounts(container) == {"/bindings/orders": "pgmqbus-orders", "/bindings/audit": "pgmqbus-audit"}
        assert all(mount["readOnly"] for mount in container["volumeMounts"])
        assert container["env"][:2] == [
            {"name": "SERVICE_BINDING_ROOT", "value": "/bindings"},
            {
                "name": "PGMQ_BUS_ADDRESS",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
            },
        ]
    assert {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"]} == {
        "pgmqbus-orders": "orders-bus",
        "pgmqbus-audit": "audit-credentials",
    }
    assert created["metadata"]["annotations"]["pgmqbus.dev/injected"] == "orders,audit"
    assert warnings == []


OWN_VOLUME = {"name": "pgmqbus-orders", "emptyDir": {}}
OWN_MOUNT = {"name": "pgmqbus-orders", "mountPath": "/bindings/orders"}


@pytest.mark.parametrize(
    ("odd", "paths"),
    [
        (pod("eu.orders," + "a" * 63), {"/bindings/eu.orders", "/bindings/" + "a" * 63}),
        (
            pod("orders", {"name": "app", "image": "a", "volumeMounts": [OWN_MOUNT]}, volumes=[OWN_VOLUME]),
            {"/bindings/orders"},
        ),
        (pod("orders", volumes=[OWN_VOLUME]), {"/bindings/orders"}),
        (
            pod(
                "orders",
                {"name": "app", "image": "a", "env": [{"name": "SERVICE_BINDING_ROOT", "value": "/own//root/"}]},
            ),
            {"/own/root/orders"},
        ),
        (pod(",".join(f"c{n}" for n in range(100))), {f"/bindings/c{n}" for n in range(100)}),
        (
            pod(
                "orders",
                {"name": "app", "image": "a", "env": [{"name": "SERVICE_BINDING_ROOT", "value": "/a:b"}]},
            ),
            set(),
        ),
    ],
)
async def test_odd_pods_stay_valid(webhook: Webhook, odd: Json, paths: set[str]) -> None:
    created, _ = await webhook.create(odd)
    assert set(mounts(created["spec"]["containers"][0])) == paths


async def test_warnings_reach_whoever_creates_the_pod(webhook: Webhook) -> None:
    created, (warning,) = await webhook.create(pod("orders,later"))
    assert warning == (
        "299 - \"no BusChannel 'later' in namespace default yet: "
        'the pod waits until there is and its Secret is written"'
    )
    assert "/bindings/later" in mounts(created["spec"]["containers"][0])


async def test_the_api_server_goes_on_through_a_change_of_authority(webhook: Webhook) -> None:
    before = webhook.certificate.ca_bundle
    await webhook.lose_the_secret()
    assert await webhook.certificate.ensure()
    assert webhook.certificate.ca_bundle != before
    await webhook.trust()


async def test_a_certificate_is_renewed_before_it_expires(webhook: Webhook) -> None:
    """By all replicas together, without a restart, and without the API server's having to learn anything."""
    await webhook.lose_the_secret()
    webhook.behind = timedelta(days=61)
    replicas = [webhook.certificate, webhook.replica(), webhook.replica()]
    for replica in replicas:
        await replica.ensure()
    await webhook.trust()
    authority, old = webhook.certificate.ca_bundle, webhook.certificate.expires
    assert old is not None
    assert old < datetime.now(UTC) + timedelta(days=30)

    webhook.behind = timedelta(0)
    assert await asyncio.gather(*(replica.ensure() for replica in replicas)) == [True] * 3
    (renewed,) = {replica.expires for replica in replicas}
    assert renewed is not None
    assert renewed > datetime.now(UTC) + timedelta(days=80)
    assert {replica.ca_bundle for replica in replicas} == {authority}
    created, _ = await webhook.create(pod())
    assert "pgmqbus.dev/injected" in created["metadata"]["annotations"]
    assert not any([await replica.ensure() for replica in replicas]), "once is enough"


async def test_a_pod_with_the_runtime_is_valid_and_keeps_its_quality_of_service(webhook: Webhook) -> None:
    exact = {"cpu": "50m", "memory": "32Mi"}
    own = {"image": "app", "resources": {"requests": exact, "limits": exact}}
    asking = pod("orders", {"name": "app", **own}, initContainers=[{"name": "init", **own}])
    before, _ = await webhook.create(asking)
    asking["metadata"]["annotations"]["pgmqbus.dev/inject-runtime"] = "true"
    created, warnings = await webhook.create(asking)
    assert warnings == []
    assert created["metadata"]["annotations"]["pgmqbus.dev/injected-runtime"] == "0.1.0"
    copier, init = created["spec"]["initContainers"]
    assert (copier["name"], copier["image"]) == ("pgmq-bus-runtime", RUNTIME.reference)
    for container in (init, *created["spec"]["containers"]):
        assert mounts(container)["/pgmq-bus-runtime"] == "pgmq-bus-runtime"
    assert before["status"]["qosClass"] == created["status"]["qosClass"] == "Guaranteed"


async def test_the_restricted_profile_of_pod_security_takes_the_init_container(webhook: Webhook) -> None:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    asking = pod("orders", {"name": "app", "image": "app", "securityContext": security})
    asking["metadata"]["annotations"]["pgmqbus.dev/inject-runtime"] = "true"
    await webhook.restrict()
    created, warnings = await webhook.create(asking, namespace=RESTRICTED)
    assert warnings == []
    assert len(created["spec"]["initContainers"]) == 1
