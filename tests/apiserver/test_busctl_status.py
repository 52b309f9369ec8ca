"""`busctl status` on a cluster: what the API server says, with the user's own kubeconfig and rights."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import busctl_program
import pytest
import yaml
from control_plane import GROUP, VERSION, KubeClient, Manifest

from hack.cluster.layout import cache_directory

pytestmark = pytest.mark.cluster

SHOP, BACK_OFFICE = "busctl-shop", "busctl-back-office"
TIME = "2026-01-02T03:04:05Z"


def condition(type_: str, status: str, reason: str, message: str) -> Manifest:
    return {
        "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
        "lastTransitionTime": TIME,
    }  # fmt: skip


READY = {
    "channel": "busctl-shop.orders",
    "database": {"namespace": BACK_OFFICE, "name": "main"},
    "shard": 2,
    "peers": 3,
    "wake": {"doorbell": 2, "listen": 1, "poll": 0},
    "backlog": 12,
    "oldestMessageAge": "40s",
    "credentialGeneration": 4,
    "lastVerifiedTime": TIME,
    "conditions": [
        condition("Provisioned", "True", "Provisioned", "channel 'busctl-shop.orders' on db:5432/app_bus_2"),
        condition("Ready", "True", "Ready", "everything is in place"),
    ],
}
CONFLICT = "channel 'orders' belongs to BusChannel busctl-shop/orders: choose another spec.channel"


@pytest.fixture(scope="module")
def channels(kube: KubeClient, definitions: dict[str, Manifest]) -> Iterator[None]:
    """One that is ready, one in conflict, and one that no operator has looked at; their statuses as it writes them."""
    assert definitions
    api = f"/apis/{GROUP}/{VERSION}/namespaces"
    made = {
        (SHOP, "orders"): READY,
        (SHOP, "audit"): {"conditions": [condition("Ready", "False", "ChannelConflict", CONFLICT)]},
        (BACK_OFFICE, "ledger"): None,
    }
    for namespace in (SHOP, BACK_OFFICE):
        kube.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    for (namespace, name), status in made.items():
        metadata = {"name": name, "labels": {"team": name}}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": metadata, "spec": {}}
        kube.create(f"{api}/{namespace}/buschannels", body)
        if status is not None:
            kube.patch(f"{api}/{namespace}/buschannels/{name}/status", {"status": status})
    yield
    for namespace, name in made:
        kube.delete(f"{api}/{namespace}/buschannels/{name}")


@pytest.fixture
def busctl(apiserver: Path, tmp_path: Path) -> Any:
    """Runs it on the cluster, whose context is `shop` with that namespace."""
    configuration = yaml.safe_load(apiserver.read_text())
    configuration["contexts"][0]["context"]["namespace"] = SHOP
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(configuration))

    def run(*arguments: str, code: int = 0, **environment: str) -> tuple[str, str]:
        done = busctl_program.run(*arguments, **({"KUBECONFIG": str(kubeconfig)} | environment))
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    return run


@pytest.mark.usefixtures("channels")
def test_tables(busctl: Any, apiserver: Path) -> None:
    shown, said = busctl("status", code=1)
    lines = shown.splitlines()
    assert lines[0].split() == [
        "NAME", "READY", "DATABASE", "PEERS", "BACKLOG", "OLDEST", "GENERATION", "REASON",
    ]  # fmt: skip
    assert lines[1].split() == ["audit", "False", "-", "-", "-", "-", "-", "ChannelConflict"]
    assert lines[2].split() == f"orders True {BACK_OFFICE}/main shard 2 3 12 40s 4 Ready".split()
    assert lines[3:] == ["", f"{SHOP}/audit: ChannelConflict: {CONFLICT}"]
    context = yaml.safe_load(apiserver.read_text())["current-context"]
    assert said.startswith("on cluster ")
    assert said.endswith(f"(context {context}), namespace {SHOP}\n")

    everywhere, _ = busctl("status", "-A", "-o", "wide", code=1)
    rows = [line.split() for line in everywhere.splitlines()]
    assert rows[0][:3] == ["NAMESPACE", "NAME", "CHANNEL"]
    assert rows[0][-4:] == ["DURABILITY", "DOORBELL/LISTEN/POLL", "VERIFIED", "AGE"]
    ours = [row for row in rows[1:] if row and row[0] in (SHOP, BACK_OFFICE)]
    assert [row[:4] for row in ours] == [
        [BACK_OFFICE, "ledger", "-", "Unknown"],
        [SHOP, "audit", "-", "False"],
        [SHOP, "orders", "busctl-shop.orders", "True"],
    ]
    assert ours[2][-4:-1] == ["Sync", "2/1/0", ours[2][-2]]

    assert busctl("status", "-l", "team=orders", "-o", "name")[0] == "buschannel.pgmqbus.dev/orders\n"
    assert busctl("status", "-l", "team=nobody") == (
        "",
        f"{said}there are no channels in namespace {SHOP}; busctl status -A shows those of all\n",
    )


@pytest.mark.usefixtures("channels")
def test_one_channel(busctl: Any) -> None:
    shown, _ = busctl("status", "orders")
    for line in (
        "BusChannel:   busctl-shop/orders",
        f"Database:     {BACK_OFFICE}/main shard 2",
        "Credentials:  generation 4",
        "Peers:        3 (woken: 2 by doorbell, 1 by listen)",
        "Backlog:      12, the oldest 40s old",
    ):
        assert line in shown.splitlines()
    assert "channel 'busctl-shop.orders' on db:5432/app_bus_2" in shown

    shown, _ = busctl("status", f"{BACK_OFFICE}/ledger", code=1)
    assert "NotReconciledYet: the operator has not looked at it yet: is it running?" in shown

    data = json.loads(busctl("status", "orders", "-o", "json")[0])
    assert data["conditions"] == READY["conditions"]
    for field in ("channel", "database", "shard", "peers", "wake", "backlog", "oldestMessageAge", "lastVerifiedTime"):
        assert data[field] == READY[field]
    assert (data["ready"], data["reason"]) == ("True", "Ready")
    assert [item["name"] for item in json.loads(busctl("status", "-o", "json", code=1)[0])["items"]] == [
        "audit", "orders",
    ]  # fmt: skip


@pytest.mark.usefixtures("channels")
def test_a_rotation_that_nobody_answers(busctl: Any) -> None:
    """Programs are told of it as well, and by the exit status that it has not been done."""
    channel = f"{SHOP}/audit"
    shown, said = busctl("rotate", channel, "--wait", "--timeout", "0", "-o", "json", code=1)
    rotated = json.loads(shown)
    assert rotated.pop("request")
    assert rotated == {
        "namespace": SHOP,
        "name": "audit",
        "channel": None,
        "replaced": False,
        "previousGeneration": None,
        "credentialGeneration": None,
        "binding": None,
    }
    assert f"error: BusChannel {channel}: not answered within 0 seconds; it will be, once it can" in said


@pytest.mark.usefixtures("channels")
def test_names_are_completed(apiserver: Path) -> None:
    def complete(line: str) -> list[str]:
        return busctl_program.complete(line, KUBECONFIG=str(apiserver))

    assert complete(f"busctl peers -n {SHOP} or") == ["orders"]
    assert complete(f"busctl rotate {BACK_OFFICE}/") == [f"{BACK_OFFICE}/ledger"]
    assert complete("busctl status -n nowhere o") == []


@pytest.mark.usefixtures("channels")
def test_kubectl_completes_its_plugin(monkeypatch: pytest.MonkeyPatch, apiserver: Path) -> None:
    """As a shell has kubectl do it."""
    monkeypatch.setenv("PATH", f"{busctl_program.BUSCTL.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(apiserver))
    monkeypatch.delenv("BUSCTL_DATABASE", raising=False)
    kubectl = cache_directory() / "bin" / "kubectl"

    def complete(*words: str) -> list[str]:
        done = subprocess.run(
            [kubectl, "__complete", "bus", *words], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.splitlines()

    assert complete("pe") == ["peers\tWho has joined, how far behind, and who is stalled.", ":4"]
    assert complete("peers", "-n", SHOP, "or") == ["orders", ":4"]


@pytest.mark.usefixtures("channels")
def test_refusals(busctl: Any, kube: KubeClient, apiserver: Path, tmp_path: Path) -> None:
    _, said = busctl("status", "missing", code=1)
    assert said.splitlines()[-1] == (
        "error: there is no BusChannel busctl-shop/missing: busctl status -A shows all [NotFound]"
    )
    configuration = yaml.safe_load(apiserver.read_text())
    accounts = f"/api/v1/namespaces/{SHOP}/serviceaccounts"
    kube.create(accounts, {"metadata": {"name": "visitor"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = kube.create(f"{accounts}/visitor/token", request)["status"]["token"]
    files = {
        "visitor": ("users", "user", {"token": token}),
        "stranger": ("users", "user", {"token": "nonsense"}),
        "elsewhere": ("clusters", "cluster", {"server": "https://127.0.0.1:1"}),
        "untrusted": ("clusters", "cluster", {"server": kube.server}),
    }
    for name, (section, key, content) in files.items():
        changed = {section: [configuration[section][0] | {key: content}]}
        (tmp_path / name).write_text(yaml.safe_dump(configuration | changed))

    def error(name: str) -> str:
        _, said = busctl("status", "-n", SHOP, code=1, KUBECONFIG=str(tmp_path / name))
        assert "Traceback" not in said
        return str(said.splitlines()[-1])

    assert error("visitor").startswith(f'error: buschannels.{GROUP} is forbidden: User "system:serviceaccount:{SHOP}:')
    assert error("stranger") == "error: the API server does not know who you are: Unauthorized [Unauthorized]"
    assert "cannot be reached at https://127.0.0.1:1: " in error("elsewhere")
    assert "certificate verify failed" in error("untrusted")


def test_a_certificate_for_another_name(busctl: Any, kube: KubeClient, apiserver: Path, tmp_path: Path) -> None:
    """As behind a port forward: the kubeconfig says what to look for."""
    configuration = yaml.safe_load(apiserver.read_text())
    cluster = configuration["clusters"][0]["cluster"]
    for name, code in (("kubernetes.default.svc", 0), ("other.example", 1)):
        cluster["tls-server-name"] = name
        path = tmp_path / "named"
        path.write_text(yaml.safe_dump(configuration))
        _, said = busctl("status", "-n", "kube-public", code=code, KUBECONFIG=str(path))
        assert ("Hostname mismatch" in said) == bool(code)
