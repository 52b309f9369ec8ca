"""What the operator is told of Secrets, and what it leaves in those that it writes."""

import base64
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from control_plane import GROUP, VERSION, KubeClient
from kubernetes.aio.client import ApiClient

from bus_operator.inventory import Resource
from bus_operator.kube import Kube
from bus_operator.kube_api import KubeApi
from bus_operator.webhook import PATH, make_app

pytestmark = pytest.mark.cluster

SECRETS = "/api/v1/namespaces/default/secrets"
OWNER = Resource.from_body(
    {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "BusChannel",
        "metadata": {"namespace": "default", "name": "orders", "uid": "uid-1", "resourceVersion": "1"},
    }
)


def encoded(**entries: str) -> dict[str, str]:
    return {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in entries.items()}


@pytest.fixture
def name(kube: KubeClient) -> Iterator[str]:
    chosen = f"access-{secrets.token_hex(4)}"
    yield chosen
    kube.delete(f"{SECRETS}/{chosen}")


class Told(KubeApi):
    """Keeps what watches say."""

    def __init__(self, client: ApiClient) -> None:
        super().__init__(client)
        self.events: list[dict[str, Any]] = []

    async def watch(self, path: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        async for event in super().watch(path, **options):
            self.events.append(event)
            yield event


def kube_of(api: KubeApi) -> Kube:
    return Kube(api, secrets_role="none", service_account=("default", "none"))


async def test_a_watch_of_a_secret_is_told_nothing_of_its_content(
    client: ApiClient, kube: KubeClient, name: str
) -> None:
    """Beside the authority's certificates there may be its private key."""
    kube.create(SECRETS, {"metadata": {"name": name}, "data": encoded(ca_crt="certificate", ca_key="hush")})
    api = Told(client)
    async with aclosing(kube_of(api).watch_secret("default", name)) as changes:
        await anext(changes)
        kube.patch(f"{SECRETS}/{name}", {"data": encoded(ca_crt="another")})
        await anext(changes)
    assert [event["object"]["metadata"]["name"] for event in api.events] == [name, name]
    assert not any("data" in event["object"] for event in api.events)
    found = await kube_of(api).read_secret("default", name, only="ca.crt")
    assert found is not None
    assert found.data == {"ca.crt": "another"}


async def test_what_a_binding_should_not_hold_any_more(client: ApiClient, kube: KubeClient, name: str) -> None:
    operator = kube_of(KubeApi(client))
    await operator.write_binding(OWNER, name, {"generation": "1", "ca.crt": None})
    kube.patch(f"{SECRETS}/{name}", {"data": encoded(keystore_p12="somebody's")})
    assert kube.get(f"{SECRETS}/{name}")["data"] == encoded(generation="1", keystore_p12="somebody's")
    await operator.write_binding(OWNER, name, {"generation": "1", "ca.crt": "certificate"})
    assert kube.get(f"{SECRETS}/{name}")["data"].keys() == {"generation", "keystore.p12", "ca.crt"}
    await operator.write_binding(OWNER, name, {"generation": "1", "ca.crt": None})
    assert kube.get(f"{SECRETS}/{name}")["data"] == encoded(generation="1", keystore_p12="somebody's")


async def test_who_writes_to_the_webhook_has_the_operator_read_nothing_else(
    client: ApiClient, kube: KubeClient, name: str
) -> None:
    """It answers whoever reaches it, and looks BusChannels up that it does not know, in the namespace that is named."""
    kube.create(SECRETS, {"metadata": {"name": name}, "data": encoded(password="hush")})
    operator = kube_of(KubeApi(client))

    async def resolve(namespace: str, channel: str) -> str | None:
        found = await operator.read_resource("BusChannel", (namespace, channel))
        return None if found is None else found.channel_spec().secret_name(channel)

    async def select(*_: object) -> tuple[str, ...]:
        return ()

    labels, asking = {"pgmqbus.dev/inject": "true"}, {"pgmqbus.dev/channels": "x"}
    pod = {"metadata": {"labels": labels, "annotations": asking}, "spec": {"containers": [{}]}}
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    answers = []
    async with TestClient(TestServer(make_app(resolve, select))) as webhook:
        for guess in (name, "missing"):
            namespace = f"../../../..{SECRETS}/{guess}?x="
            request = {"uid": "u", "kind": kind, "namespace": namespace, "operation": "CREATE", "object": pod}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
            async with webhook.post(PATH, json=review) as answer:
                answers.append((answer.status, (await answer.text()).replace(guess, "")))
    assert answers[0] == answers[1]
