"""What others do at the same moment as the operator: a Secret deleted, a namespace that is going away."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import GROUP, VERSION, KubeClient, Manifest
from kubernetes.aio.client import ApiClient

from bus_operator.binding_audit import BindingAudit
from bus_operator.errors import SpecError, TransientError
from bus_operator.inventory import Inventory, Resource
from bus_operator.kube import Kube
from bus_operator.kube_api import KubeApi

pytestmark = pytest.mark.cluster

NAMESPACES = "/api/v1/namespaces"


@pytest.fixture
def namespaces(kube: KubeClient) -> Iterator[tuple[str, str]]:
    """Two, in the order of a list; the first is being deleted, which takes for ever without a controller."""
    going, staying = (f"meddling-{order}-{secrets.token_hex(4)}" for order in "ab")
    for name in (going, staying):
        kube.create(NAMESPACES, {"metadata": {"name": name}})
        kube.create_asking_pod(name, "worker")
    kube.delete(f"{NAMESPACES}/{going}")
    yield going, staying
    for name in (going, staying):
        kube.request("DELETE", f"{NAMESPACES}/{name}/pods/worker", {"gracePeriodSeconds": 0})


def kube_of(client: ApiClient, *namespaces: str, api: KubeApi | None = None) -> Kube:
    return Kube(api or KubeApi(client), secrets_role="none", service_account=("default", "none"), namespaces=namespaces)


def channel(namespace: str) -> Manifest:
    metadata = {"namespace": namespace, "name": "orders", "uid": secrets.token_hex(8), "resourceVersion": "1"}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": metadata}


def events(kube: KubeClient, namespace: str) -> list[str]:
    found = kube.get(f"{NAMESPACES}/{namespace}/events")["items"]
    return sorted(f"{item['involvedObject']['kind']} {item['reason']}" for item in found)


async def test_a_pod_of_which_nothing_can_be_told_keeps_no_other_unnamed(
    client: ApiClient, kube: KubeClient, namespaces: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    going, staying = namespaces
    inventory = Inventory()
    for namespace in namespaces:
        inventory.put(Resource.from_body(channel(namespace)))
    audit = BindingAudit(kube_of(client, *namespaces), inventory, interval=60)
    await audit.look()
    assert events(kube, staying) == ["BusChannel BindingMissing", "Pod BindingMissing"]
    assert audit.lacking == 2
    assert f"Pod {going}/worker: Event BindingMissing was not posted" in caplog.text
    caplog.clear()
    await audit.look()
    assert caplog.text == "", "each is named once"


async def test_an_event_in_a_namespace_that_is_gone_is_refused(client: ApiClient) -> None:
    with pytest.raises(SpecError, match="Event about BusChannel none-such/orders: "):
        await kube_of(client).post_event(
            Resource.from_body(channel("none-such")), warning=True, reason="BindingMissing", message="as the test says"
        )


class Meddled(KubeApi):
    """Deletes what is to be patched, a moment before."""

    def __init__(self, client: ApiClient, kube: KubeClient) -> None:
        super().__init__(client)
        self._kube = kube

    async def patch(self, path: str, body: Any, **options: Any) -> dict[str, Any]:
        self._kube.delete(path)
        return await super().patch(path, body, **options)


async def test_a_secret_that_is_deleted_while_it_is_written_is_looked_at_again(
    client: ApiClient, kube: KubeClient
) -> None:
    owner, name = Resource.from_body(channel("default")), f"meddling-{secrets.token_hex(4)}"
    await kube_of(client).write_binding(owner, name, {"generation": "1"})
    with pytest.raises(TransientError, match=f"Secret default/{name} was deleted meanwhile") as caught:
        await kube_of(client, api=Meddled(client, kube)).write_binding(owner, name, {"generation": "2"})
    assert caught.value.reason == "Conflict"
    await kube_of(client).write_binding(owner, name, {"generation": "2"})
    kube.delete(f"{NAMESPACES}/default/secrets/{name}")
