"""`busctl publish` on a cluster: with the credentials of the BusChannel's Secret, read with the user's own rights."""

import base64
from pathlib import Path

import busctl_program
import postgres
import pytest
from control_plane import GROUP, VERSION, KubeClient, Manifest

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

NAMESPACE = "busctl-messages"
CHANNELS = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/buschannels"


async def test_the_credentials_of_a_buschannel(
    kube: KubeClient,
    definitions: dict[str, Manifest],
    apiserver: Path,
    database: postgres.Database,
    tmp_path: Path,
) -> None:
    assert definitions
    channel = await database.create_channel("shop.orders")
    files = channel.binding_dir(tmp_path) / "orders"
    data = {file.name: base64.b64encode(file.read_bytes()).decode() for file in files.iterdir()}
    kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    kube.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "orders-binding"}, "data": data})
    for name in ("orders", "audit"):
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": {"name": name}, "spec": {}}
        kube.create(CHANNELS, body)
    status = {"channel": "shop.orders", "secretRef": {"name": "orders-binding"}}
    kube.patch(f"{CHANNELS}/orders/status", {"status": status})

    def publish(name: str, code: int) -> busctl_program.Result:
        done = busctl_program.run("publish", name, "-n", NAMESPACE, "--raw", "1", KUBECONFIG=str(apiserver))
        assert done.returncode == code, done.stderr
        assert channel.password not in done.stderr
        return done

    try:
        done = publish("orders", 0)
        assert done.stdout == "1\n"
        assert done.stderr.splitlines()[0].endswith(f"namespace {NAMESPACE}")
        assert f"busctl status audit -n {NAMESPACE} says why [BindingNotReady]" in publish("audit", 1).stderr
        assert f"there is no BusChannel {NAMESPACE}/other" in publish("other", 1).stderr
        kube.patch(f"/api/v1/namespaces/{NAMESPACE}/secrets/orders-binding", {"data": {"uri": None}})
        assert "holds no binding" in publish("orders", 1).stderr
    finally:
        for name in ("orders", "audit"):
            kube.delete(f"{CHANNELS}/{name}")
