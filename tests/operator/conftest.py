"""The real operator, as a process with the rights that the chart gives it, on a real API server and PostgreSQL."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest
from control_plane import KubeClient, Manifest
from operator_process import Operator, install_chart
from operator_webhook import reachable
from operator_world import Namespace, World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def server(running_servers: Callable[[int], postgres.Server]) -> postgres.Server:
    """One version is enough here: what differs between them is in tests/database."""
    return running_servers(18)


@pytest.fixture(scope="session")
def operator(
    kube: KubeClient, definitions: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """The operator's process; tests that end it start it again."""
    assert definitions
    kubeconfig = install_chart(kube, tmp_path_factory.mktemp("operator"))
    # The canary would write to a resource on which a test lets nobody write; those about it start an operator for it.
    process = Operator(kubeconfig, kubeconfig.parent / "log", BUS_CANARY_SECONDS="3600")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def world(kube: KubeClient, operator: Operator, server: postgres.Server) -> Iterator[World]:
    """Makes namespaces, databases and manifests; all of them are gone after the test."""
    operator.require_running()
    made = World(kube, operator, server)
    yield made
    made.remove()


@pytest.fixture
def namespace(world: World) -> Namespace:
    """A namespace whose Secrets the operator may use."""
    return world.namespace(f"test-{secrets.token_hex(4)}")


@pytest.fixture
def webhook(world: World) -> Iterator[World]:
    """The world, with a webhook that the API server can reach."""
    with reachable(world):
        yield world


@pytest.fixture(scope="session")
def _fragile_server() -> Iterator[postgres.Server]:
    with postgres.running_server(18) as running:
        yield running


@pytest.fixture
def fragile_server(_fragile_server: postgres.Server) -> postgres.Server:
    """A server that tests stop and start; it runs when a test begins."""
    if _fragile_server.process is None:
        _fragile_server.start()
    return _fragile_server
