"""`busctl upgrade-definitions` with exactly the rights of the chart's hook."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import GROUP, VERSION, ApiError, KubeClient, Manifest, wait_until

pytestmark = pytest.mark.cluster

BIN = Path(sys.executable).parent
CHART = Path(__file__).parents[2] / "charts" / "pgmq-bus"
NAMESPACE, ACCOUNT = "default", "upgrader-pgmq-bus-definitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CHANNELS = f"{COLLECTION}/buschannels.{GROUP}"
PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
}

Upgrade = Callable[[], tuple[int, str]]


@pytest.fixture(scope="module")
def hook(kube: KubeClient, definitions: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with the rights of the hook."""
    assert definitions
    command = [BIN / "helm", "template", "upgrader", CHART, "-n", NAMESPACE, "-s", "templates/definitions.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True)
    for manifest in yaml.safe_load_all(rendered.stdout):
        if manifest["kind"] in PATHS:
            kube.apply(f"{PATHS[manifest['kind']]}/{manifest['metadata']['name']}", manifest)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = kube.create(f"{PATHS['ServiceAccount']}/{ACCOUNT}/token", request)["status"]["token"]
    kubeconfig = tmp_path_factory.mktemp("hook") / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(kube.kubeconfig | {"users": [{"name": "admin", "user": {"token": token}}]}))
    return kubeconfig


@pytest.fixture
def upgrade(hook: Path, kube: KubeClient) -> Iterator[Upgrade]:
    """The command: its exit status and output. Afterwards the definitions are as they were."""

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [BIN / "busctl", "upgrade-definitions"],
            env=os.environ | {"KUBECONFIG": str(hook)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    yield run
    kube.install_definitions()


def make_older(kube: KubeClient) -> None:
    """As an earlier version would have it: without a field and without the annotation."""
    present = kube.get(CHANNELS)
    older = copy.deepcopy(present)
    del older["metadata"]["annotations"]["pgmqbus.dev/version"]
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["peerTimeout"]
    kube.request("PUT", CHANNELS, older)


def peer_timeout(kube: KubeClient) -> Any:
    schema = kube.get(CHANNELS)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema["properties"]["spec"]["properties"].get("peerTimeout")


def test_older_definitions_are_upgraded(kube: KubeClient, upgrade: Upgrade) -> None:
    """What is stored stays as it is; and a second time nothing is written."""
    make_older(kube)
    assert peer_timeout(kube) is None
    collection = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/buschannels"
    channel = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": {"name": "stored"},
        "spec": {"channel": "kept", "retention": {"maxMessages": 5}},
    }  # fmt: skip
    stored = kube.create(collection, channel)
    try:
        status, output = upgrade()
        assert (status, output.splitlines()) == (
            0, [f"buschannels.{GROUP} upgraded", f"busdatabases.{GROUP} is up to date"],
        )  # fmt: skip
        assert peer_timeout(kube) is not None
        # A field that has a default has it in what was stored before, too.
        default = {"peerTimeout": peer_timeout(kube)["default"]}
        wait_until(
            lambda: kube.get(f"{collection}/stored")["spec"] == stored["spec"] | default, "the channel is intact"
        )
        before = kube.get(CHANNELS)["metadata"]["resourceVersion"]
        status, output = upgrade()
        assert (status, output.count("is up to date")) == (0, 2), output
        assert kube.get(CHANNELS)["metadata"]["resourceVersion"] == before
    finally:
        kube.delete(f"{collection}/stored")


def test_newer_definitions_stay(kube: KubeClient, upgrade: Upgrade) -> None:
    kube.patch(CHANNELS, {"metadata": {"annotations": {"pgmqbus.dev/version": "99.1.0"}}})
    before = kube.get(CHANNELS)["metadata"]["resourceVersion"]
    status, output = upgrade()
    assert status == 1
    assert f"definition buschannels.{GROUP} is of version 99.1.0, newer than" in output
    assert "crds.upgrade=false" in output
    assert kube.get(CHANNELS)["metadata"]["resourceVersion"] == before


def test_rights(kube: KubeClient, hook: Path) -> None:
    """It can do nothing else."""
    client = KubeClient(hook)
    for path in (COLLECTION, f"/apis/{GROUP}/{VERSION}/buschannels", "/api/v1/secrets", "/api/v1/namespaces"):
        with pytest.raises(ApiError, match="403"):
            client.get(path)
    with pytest.raises(ApiError, match="403"):
        client.request("DELETE", CHANNELS)
    client.close()
