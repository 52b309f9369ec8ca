"""The certificates' Secret and the caBundle on a real API server."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio.client import AdmissionregistrationV1Api, ApiClient, ApiException, CoreV1Api

from bus_operator.certificate_store import KubernetesSecretStore, ensure_ca_bundle
from bus_operator.certificates import plan_certificates
from bus_operator.errors import TransientError
from bus_operator.kube_api import KubeApi
from bus_operator.serving_certificates import CertificateManager, StoreConflictError

pytestmark = pytest.mark.cluster

NAMESPACE = "default"
SECRET = "certificates-store-test"
CONFIGURATION = "certificates-store-test"


@pytest.fixture
async def core(client: ApiClient) -> AsyncIterator[CoreV1Api]:
    core = CoreV1Api(client)
    yield core
    await core.delete_collection_namespaced_secret(NAMESPACE, field_selector=f"metadata.name={SECRET}")


@pytest.fixture
def api(client: ApiClient) -> KubeApi:
    return KubeApi(client)


@pytest.fixture
def store(api: KubeApi) -> KubernetesSecretStore:
    return KubernetesSecretStore(api, name=SECRET, namespace=NAMESPACE)


PAIR = {"tls.crt": b"a certificate\n", "tls.key": b"\x00\xff"}


async def test_create_and_read(store: KubernetesSecretStore, core: CoreV1Api) -> None:
    assert await store.read() is None
    await store.create(PAIR)
    found = await store.read()
    assert found is not None
    assert found[0] == PAIR
    secret = await core.read_namespaced_secret(SECRET, NAMESPACE)
    assert secret.type == "kubernetes.io/tls"
    assert secret.metadata is not None
    assert secret.metadata.resource_version == found[1]
    with pytest.raises(StoreConflictError, match=f"Secret default/{SECRET} exists already"):
        await store.create(PAIR)


async def test_an_empty_secret_of_another_type_is_filled_and_keeps_what_it_has(
    store: KubernetesSecretStore, core: CoreV1Api
) -> None:
    await core.create_namespaced_secret(
        NAMESPACE, {"metadata": {"name": SECRET, "labels": {"app": "chart"}}, "type": "Opaque"}
    )
    found = await store.read()
    assert found is not None
    assert found[0] == {}
    await store.replace(PAIR, found[1])
    secret = await core.read_namespaced_secret(SECRET, NAMESPACE)
    assert secret.metadata is not None
    assert (secret.type, secret.metadata.labels) == ("Opaque", {"app": "chart"})
    again = await store.read()
    assert again is not None
    assert again[0] == PAIR


async def test_a_version_that_is_not_current_conflicts(store: KubernetesSecretStore, core: CoreV1Api) -> None:
    await store.create(PAIR)
    found = await store.read()
    assert found is not None
    await store.replace({**PAIR, "tls.key": b"first"}, found[1])
    with pytest.raises(StoreConflictError, match="was changed meanwhile"):
        await store.replace({**PAIR, "tls.key": b"second"}, found[1])
    again = await store.read()
    assert again is not None
    assert again[0]["tls.key"] == b"first"
    await core.delete_namespaced_secret(SECRET, NAMESPACE)
    with pytest.raises(StoreConflictError, match="was changed meanwhile"):
        await store.replace(PAIR, again[1])


async def test_other_refusals_are_raised_as_they_are(api: KubeApi) -> None:
    elsewhere = KubernetesSecretStore(api, name=SECRET, namespace="does-not-exist")
    assert await elsewhere.read() is None
    with pytest.raises(ApiException) as refused:
        await elsewhere.create(PAIR)
    assert refused.value.status == 404


async def test_replicas_that_start_together_share_one_certificate(
    store: KubernetesSecretStore, core: CoreV1Api
) -> None:
    managers = [CertificateManager(store, service="pgmq-bus", namespace="bus-system") for _ in range(4)]
    await asyncio.gather(*(manager.ensure() for manager in managers))
    assert len({manager.ca_bundle for manager in managers}) == 1
    secret = await core.read_namespaced_secret(SECRET, NAMESPACE)
    assert managers[0].ca_bundle == base64.b64decode((secret.data or {})["ca.crt"])


def webhook(name: str, **client_config: str) -> dict[str, Any]:
    service = {"name": "pgmq-bus", "namespace": "bus-system", "path": "/mutate-pods"}
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {"service": service, **client_config},
        # Nothing matches, so that it disturbs no other test.
        "objectSelector": {"matchLabels": {"matches": "nothing"}},
    }


@pytest.fixture
async def admission(client: ApiClient) -> AsyncIterator[AdmissionregistrationV1Api]:
    """A configuration with a webhook that trusts nobody yet and one that trusts another authority."""
    admission = AdmissionregistrationV1Api(client)
    another = base64.b64encode(new_authority()).decode()
    webhooks = [webhook("a.pgmqbus.dev"), webhook("b.pgmqbus.dev", caBundle=another)]
    await admission.create_mutating_webhook_configuration({"metadata": {"name": CONFIGURATION}, "webhooks": webhooks})
    yield admission
    await admission.delete_mutating_webhook_configuration(CONFIGURATION)


def new_authority() -> bytes:
    return plan_certificates(None, ["pgmq-bus.bus-system.svc"], datetime.now(UTC)).ca_certificates


async def test_every_webhook_gets_the_authority_and_keeps_the_rest(
    api: KubeApi, admission: AdmissionregistrationV1Api
) -> None:
    before = await admission.read_mutating_webhook_configuration(CONFIGURATION)
    authority = new_authority()
    assert await ensure_ca_bundle(api, CONFIGURATION, authority)
    after = await admission.read_mutating_webhook_configuration(CONFIGURATION)
    for old, new in zip(before.webhooks or [], after.webhooks or [], strict=True):
        assert new.client_config.ca_bundle == base64.b64encode(authority).decode()
        old.client_config.ca_bundle = new.client_config.ca_bundle
        assert new == old

    assert not await ensure_ca_bundle(api, CONFIGURATION, authority), "nothing is to do"
    unchanged = await admission.read_mutating_webhook_configuration(CONFIGURATION)
    assert unchanged.metadata == after.metadata


@pytest.mark.usefixtures("admission")
async def test_two_authorities_are_a_bundle(api: KubeApi) -> None:
    assert await ensure_ca_bundle(api, CONFIGURATION, new_authority() + new_authority())


@pytest.mark.usefixtures("admission")
async def test_replicas_that_set_the_bundle_together(api: KubeApi) -> None:
    authority = new_authority()
    changed = await asyncio.gather(*(ensure_ca_bundle(api, CONFIGURATION, authority) for _ in range(4)))
    assert changed.count(True) == 1, "the others find it done"


async def test_a_configuration_that_is_not_there(api: KubeApi) -> None:
    with pytest.raises(TransientError, match="there is no MutatingWebhookConfiguration absent") as refused:
        await ensure_ca_bundle(api, "absent", new_authority())
    assert refused.value.reason == "WebhookConfigurationNotFound"
