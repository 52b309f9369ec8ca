"""When a watch counts as deaf, which ends the process, and when not. The test is the watch; the API server is real."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import GROUP, VERSION, KubeClient, Manifest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import new_client_from_config
from postgres import free_port

from bus_operator.canary import Canary
from bus_operator.inventory import Inventory, Resource
from bus_operator.kube import Kube
from bus_operator.kube_api import KubeApi

pytestmark = pytest.mark.cluster

COLLECTION = f"/apis/{GROUP}/{VERSION}/namespaces/default/buschannels"
PATH = f"{COLLECTION}/canary"
INTERVAL = 0.1


@pytest.fixture
async def client(apiserver: Path) -> AsyncIterator[ApiClient]:
    async with await new_client_from_config(config_file=str(apiserver)) as client:
        yield client


@pytest.fixture
def inventory(kube: KubeClient, definitions: dict[str, Manifest]) -> Iterator[Inventory]:
    """With one BusChannel, which is there."""
    assert definitions
    kube.create(COLLECTION, {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": {"name": "canary"}})
    inventory = Inventory()
    inventory.put(Resource.from_body(kube.get(PATH)))
    yield inventory
    kube.delete(PATH)


@pytest.fixture
async def canary(client: ApiClient, inventory: Inventory) -> AsyncIterator[Canary]:
    kube = Kube(KubeApi(client), secrets_role="none", service_account=("default", "none"))
    canary = Canary(kube, inventory, leading=lambda: True, interval=INTERVAL)
    task = asyncio.create_task(canary.run())
    yield canary
    task.cancel()


async def becomes(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(INTERVAL / 10)


def sung(kube: KubeClient) -> int:
    """The version of the BusChannel, which grows with each song."""
    return int(kube.get(PATH)["metadata"]["resourceVersion"])


async def rounds(kube: KubeClient, number: int) -> None:
    for _ in range(number):
        before = sung(kube)
        await becomes(lambda before=before: sung(kube) > before)


async def test_deaf_until_it_hears_again(canary: Canary, kube: KubeClient) -> None:
    assert canary.deaf is None
    await becomes(lambda: canary.deaf)
    assert "the watch of buschannels has not delivered version" in (canary.deaf or "")
    assert "of BusChannel default/canary" in (canary.deaf or "")
    assert "busdatabases" not in (canary.deaf or ""), "there is none that could be heard"

    def hears() -> bool:
        canary.hear(kube.get(PATH))
        return canary.deaf is None

    await becomes(hears)
    assert [kind for kind, _, _ in canary.ages()] == ["BusChannel"]


async def test_a_watch_that_delivers(canary: Canary, kube: KubeClient) -> None:
    delivering = asyncio.create_task(deliver(canary, kube))
    await rounds(kube, 4)
    assert canary.deaf is None
    delivering.cancel()
    await becomes(lambda: canary.deaf)


async def deliver(canary: Canary, kube: KubeClient) -> None:
    while True:
        canary.hear(kube.get(PATH))
        await asyncio.sleep(INTERVAL / 20)


async def test_an_api_server_that_is_down(client: ApiClient, canary: Canary) -> None:
    """It says nothing about the watches: no restart brings it back."""
    server = client.configuration.host
    client.configuration.host = f"https://127.0.0.1:{free_port()}"
    # Many times as long as it takes to be found deaf.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20 * INTERVAL):
            await becomes(lambda: canary.deaf)
    client.configuration.host = server
    await becomes(lambda: canary.deaf)


async def test_what_was_deleted_is_no_canary(canary: Canary, inventory: Inventory, kube: KubeClient) -> None:
    """Although the watch has not told so yet."""
    assert inventory.channels
    kube.delete(PATH)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20 * INTERVAL):
            await becomes(lambda: canary.deaf)
