"""Fixtures that several kinds of tests share. What needs PostgreSQL gets real ones, the oldest and the newest."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import control_plane
import distribution
import fuzzing
import postgres
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

POSTGRES_VERSIONS = (15, 18)


def pytest_configure(config: pytest.Config) -> None:
    """Before hypothesis reads its options."""
    fuzzing.configure(config)


def pytest_report_header(config: pytest.Config) -> str:
    """What a fuzz test that failed is repeated with."""
    return fuzzing.header(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried."""
    fuzzing.summary(terminalreporter)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What several processes begin with."""
    items.sort(key=distribution.rank)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """What one process does in one go."""
    return distribution.Scheduling(config, log)


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Callable[[int], postgres.Server]]:
    """Starts PostgreSQL of a version, once per session."""
    with ExitStack() as stack:
        yield cache(lambda version: stack.enter_context(postgres.running_server(version)))


@pytest.fixture(scope="session", params=POSTGRES_VERSIONS, ids=lambda version: f"pg{version}")
def server(request: pytest.FixtureRequest, running_servers: Callable[[int], postgres.Server]) -> postgres.Server:
    """A PostgreSQL server of either version."""
    return running_servers(request.param)


@pytest.fixture
async def database(server: postgres.Server) -> AsyncIterator[postgres.Database]:
    """A fresh database with the schema installed."""
    created = await postgres.create_database(server)
    yield created
    await postgres.drop_database(created)


@pytest.fixture(scope="session")
def apiserver_processes() -> Iterator[control_plane.ControlPlane]:
    """An API server and its etcd that are there for this session only."""
    with control_plane.running() as started:
        yield started


@pytest.fixture(scope="session")
def apiserver(apiserver_processes: control_plane.ControlPlane) -> Path:
    """The kubeconfig of its administrator."""
    return apiserver_processes.kubeconfig


@pytest.fixture(scope="session")
def kube(apiserver: Path) -> Iterator[control_plane.KubeClient]:
    """A client of the API server, as its administrator."""
    client = control_plane.KubeClient(apiserver)
    yield client
    client.close()


@pytest.fixture(scope="session")
def definitions(kube: control_plane.KubeClient) -> dict[str, control_plane.Manifest]:
    """The resource definitions as crds/ has them, by kind, established in the API server."""
    return kube.install_definitions()
