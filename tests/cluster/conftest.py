"""The whole thing on a real cluster: the chart, the operator's image, pods."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_cluster import Cluster, Demo

from hack.cluster.layout import DEFAULT_NAME, Layout
from hack.cluster.providers import choose

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    # It installs what the demo, which the others share, then installs again.
    items.sort(key=lambda item: item.path != here / "test_quickstart.py")


@pytest.fixture(scope="package")
def bare_cluster() -> Iterator[Cluster]:
    """A cluster, on which the demo may have run. It is ended afterwards unless it was there before."""
    layout = Layout.of(DEFAULT_NAME)
    was_there = layout.state.exists()
    try:
        run_cluster("up", timeout=1800)
        yield Cluster(choose(layout).kubeconfig)
    finally:
        if not was_there:
            run_cluster("down", timeout=120)


def run_cluster(command: str, *, timeout: float) -> None:
    subprocess.run([sys.executable, "-m", "hack.cluster", command], cwd=ROOT, check=True, timeout=timeout)


@pytest.fixture(scope="package")
def demo(bare_cluster: Cluster) -> Demo:
    """`make demo`, as a user runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "hack.demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800
    )
    return Demo(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="package")
def cluster(bare_cluster: Cluster, demo: Demo) -> Cluster:
    """A client of the cluster that the demo left."""
    assert demo.status == 0, f"{demo.output}\n{demo.errors}"
    return bare_cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own in which the operator may write bindings, under Pod Security `restricted`."""
    name = f"test-{time.monotonic_ns() % 10**9}"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    cluster.kubectl(
        "create", "rolebinding", "pgmq-bus-secrets", "-n", name, "--clusterrole=pgmq-bus-secrets",
        "--serviceaccount=pgmq-bus:pgmq-bus",
    )  # fmt: skip
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def image(cluster: Cluster) -> str:
    """The operator's image: it has Python and bus_runtime in it."""
    deployment = cluster.get("deployment", "pgmq-bus", "-n", "pgmq-bus")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
