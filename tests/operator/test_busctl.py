"""busctl on a cluster with an operator and a database: what only the database knows, rotation, plans."""

import json
from pathlib import Path
from typing import Any

import busctl_program
import pytest
import yaml
from control_plane import GROUP, VERSION, KubeClient
from operator_world import Namespace, World


@pytest.fixture
def busctl(apiserver: Path, namespace: Namespace, tmp_path: Path) -> Any:
    """Runs it as the administrator, in the namespace."""

    def run(*arguments: str, code: int = 0, kubeconfig: Path = apiserver) -> tuple[str, str]:
        within = ("-n", namespace.name)
        done = busctl_program.run(arguments[0], *within, *arguments[1:], directory=tmp_path, KUBECONFIG=str(kubeconfig))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    return run


async def test_peers_come_from_the_database(
    world: World, namespace: Namespace, busctl: Any, kube: KubeClient, apiserver: Path, tmp_path: Path
) -> None:
    database = await world.postgres()
    namespace.database(database.dsn)
    namespace.channel().wait_ready()
    async with namespace.login() as login:
        peer = await login.join("billing", host="billing-0")
        await login.publish(peer, 1, 2)
        shown, _ = busctl("peers", "orders")
        assert shown.splitlines()[1].split()[:4] == ["billing-0", "billing", "Ok", "2"]
        assert "billing-0   billing" in busctl("status", "orders")[0]
        (item,) = json.loads(busctl("top", "--interval", "0.1", "-o", "json")[0])["items"]
        assert (item["namespace"], item["name"], item["peers"], item["backlog"]) == (namespace.name, "orders", 1, 2)

    # Who may read BusChannels and not the administrator's Secret sees the rest, and what is missing.
    account = f"/api/v1/namespaces/{namespace.name}/serviceaccounts"
    kube.create(account, {"metadata": {"name": "viewer"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = kube.create(f"{account}/viewer/token", request)["status"]["token"]
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}"
    rules = [{"apiGroups": [GROUP], "resources": ["buschannels", "busdatabases"], "verbs": ["get", "list"]}]
    kube.create(f"{roles}/roles", {"metadata": {"name": "viewer"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "viewer", "namespace": namespace.name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"}
    kube.create(f"{roles}/rolebindings", {"metadata": {"name": "viewer"}, "subjects": [subject], "roleRef": reference})
    configuration = yaml.safe_load(apiserver.read_text())
    configuration["users"][0]["user"] = {"token": token}
    viewer = tmp_path / "viewer"
    viewer.write_text(yaml.safe_dump(configuration))
    shown, said = busctl("status", "orders", kubeconfig=viewer)
    assert "Ready:        True (Ready)" in shown
    user = f"system:serviceaccount:{namespace.name}:viewer"
    assert f'peers are left out: Forbidden: secrets "main-admin" is forbidden: User "{user}" cannot get' in said
    assert "the operator can: kubectl exec -n NAMESPACE deploy/pgmq-bus -- busctl ..." in said
    assert busctl("peers", "orders", kubeconfig=viewer, code=1)[0] == ""

    # What does not answer from here is said with where it would.
    namespace.put_secret("main-admin", {"uri": f"postgresql://u:hunter2@127.0.0.1:1/{database.name}"})
    _, said = busctl("peers", "orders", code=1)
    assert "peers are left out: ConnectionFailed: 127.0.0.1:1/" in said
    assert "If it cannot be reached from here: kubectl exec -n " in said
    assert "hunter2" not in said


async def test_rotation(world: World, namespace: Namespace, busctl: Any) -> None:
    database = await world.postgres()
    namespace.database(database.dsn)
    channel = namespace.channel()
    channel.wait_ready()
    before = namespace.secret("orders-bus")
    shown, _ = busctl("rotate", "orders", "--wait", "--timeout", "30")
    assert shown.startswith(f"BusChannel {namespace.name}/orders: generation 2 in Secret orders-bus")
    after = namespace.secret("orders-bus")
    assert before is not None
    assert after is not None
    assert before["password"] != after["password"]
    shown, _ = busctl("rotate", "orders")
    assert "asked for other credentials than generation 2" in shown
    assert "there is no BusChannel" in busctl("rotate", "missing", code=1)[1]


async def test_a_plan_is_what_the_operator_does(
    world: World, namespace: Namespace, busctl: Any, tmp_path: Path, kube: KubeClient
) -> None:
    database = await world.postgres()
    namespace.database(database.dsn)

    def write(**spec: Any) -> None:
        metadata = {"name": "orders"}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "BusChannel", "metadata": metadata, "spec": spec}
        (tmp_path / "bus.yaml").write_text(yaml.safe_dump(body | {"spec": {"databaseRef": {"name": "main"}} | spec}))

    write()
    shown, said = busctl("plan", "-f", "bus.yaml", code=3)
    for line in (
        f"  + create channel '{namespace.name}.orders'",
        "  + issue credential generation 1",
        f"  + create BusChannel {namespace.name}/orders",
        f"  + create Secret {namespace.name}/orders-bus",
    ):
        assert line in shown.splitlines()
    assert said.endswith("nothing was changed\n")
    assert kube.get(f"/apis/{GROUP}/{VERSION}/namespaces/{namespace.name}/buschannels/orders") is None

    namespace.channel().wait_ready()
    assert "would change" in busctl("plan", "-f", "bus.yaml")[1]
    write(retention={"maxMessages": 9})
    data = json.loads(busctl("plan", "-f", "bus.yaml", "-o", "json", code=3)[0])
    (planned,) = [item for item in data["items"] if item["subject"].startswith("BusChannel")]
    assert planned["actions"] == [
        "change spec.retention.maxMessages from nothing to 9",
        f"update channel '{namespace.name}.orders'",
    ]
    write(channel="another")
    shown, _ = busctl("plan", "-f", "bus.yaml", code=1)
    assert "  ! ApiRefused: " in shown
