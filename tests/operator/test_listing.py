"""The controller's own look at everything, on the real API server: what a broken watch has kept from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_plane import Manifest, wait_until
from kubernetes.aio import config
from operator_process import RELEASE, RELEASE_NAMESPACE, SECRETS_ROLE
from operator_world import Namespace, World

from bus_operator.controller import Controller
from bus_operator.kube import Kube
from bus_operator.kube_api import KubeApi
from bus_operator.kube_objects import Listing


@asynccontextmanager
async def idle_controller(kubeconfig: Path) -> AsyncIterator[Controller]:
    """One that is not run, and thus has no watches: it only looks."""
    async with await config.new_client_from_config(config_file=str(kubeconfig)) as client:
        kube = Kube(KubeApi(client), secrets_role=SECRETS_ROLE, service_account=(RELEASE_NAMESPACE, RELEASE))
        yield Controller(kube, resync=3600, workers=1, credential_unused=timedelta(hours=1), verification_interval=3600)


@pytest.fixture
async def controller(apiserver: Path) -> AsyncIterator[Controller]:
    async with idle_controller(apiserver) as made:
        yield made


async def test_what_was_deleted_unseen_is_forgotten(world: World, namespace: Namespace, controller: Controller) -> None:
    database = namespace.database(None)
    stays = namespace.database(None, "stays")
    assert await controller.look_at_all()
    assert {database.name, stays.name} <= {name for _, name in controller.inventory.databases}
    database.delete()
    wait_until(lambda: database.get() is None, "it is deleted")
    assert await controller.look_at_all()
    names = {name for space, name in controller.inventory.databases if space == namespace.name}
    assert names == {"stays"}


async def test_what_the_watch_delivered_after_the_list_was_made_stays(
    world: World, namespace: Namespace, controller: Controller
) -> None:
    """The list and the watch come over two connections."""
    newest: Manifest = namespace.database(None).get()
    newest["metadata"] |= {"uid": "not-in-the-list", "resourceVersion": str(10**12), "name": "newest"}
    controller.observe("ADDED", newest)
    assert await controller.look_at_all()
    assert (namespace.name, "newest") in controller.inventory.databases


async def test_what_is_deleted_while_the_list_is_on_its_way_does_not_come_back(
    world: World, namespace: Namespace, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be made once more, for nobody: with thousands of BusChannels a list takes a second or two."""
    database = namespace.database(None)
    listed = controller._kube.list_resources

    async def list_and_delete(kind: str, **options: Any) -> Listing:
        listing = await listed(kind, **options)
        if kind == "BusDatabase":
            body = database.get()
            database.delete()
            wait_until(lambda: database.get() is None, "it is deleted")
            controller.observe("DELETED", body)
        return listing

    monkeypatch.setattr(controller._kube, "list_resources", list_and_delete)
    assert await controller.look_at_all()
    assert (namespace.name, database.name) not in controller.inventory.databases


async def test_without_an_api_server(tmp_path: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}"
    )
    async with idle_controller(nowhere) as lonely:
        assert not await lonely.look_at_all()
