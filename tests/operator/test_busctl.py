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
    elsewhere = f"kubectl exec -n NAMESPACE deploy/pgmq-bus -- busctl status orders -n {namespace.name}"
    assert f"the operator can: {elsewhere} (NAMESPACE: the operator's)" in said
    assert busctl("peers", "orders", kubeconfig=viewer, code=1)[0] == ""

    # What does not answer from here is said with where it would.
    namespace.put_secret("main-admin", {"uri": f"postgresql://u:hunter2@127.0.0.1:1/{database.name}"})
    _, said = busctl("peers", "orders", code=1)
    assert "peers are left out: ConnectionFailed: 127.0.0.1:1/" in said
    assert "let it be reached? If it cannot be reached from here: kubectl exec -n " in said
    assert "hunter2" not in said


async def test_the_doctor_of_a_pod_in_the_operators_pod(
    world: World, namespace: Namespace, busctl: Any, kube: KubeClient
) -> None:
    """With the operator's account, which may list pods and get none."""
    namespace.database((await world.postgres()).dsn)
    namespace.channel().wait_ready()
    kube.create(f"/api/v1/namespaces/{namespace.name}/serviceaccounts", {"metadata": {"name": "default"}})
    kube.create_asking_pod(namespace.name, "billing-0")
    shown, _ = busctl("doctor", "pod/billing-0", code=1, kubeconfig=world.operator.kubeconfig)
    assert f"Pod {namespace.name}/billing-0" in shown
    assert "BindingMissing" in shown
    # What it asks for is looked into as well, with the administrator's Secret.
    assert f"✓ BusDatabase {namespace.name}/main" in shown
    assert f"✓ BusChannel {namespace.name}/orders" in shown


Findings = dict[str, dict[str, str]]


def findings(busctl: Any, *arguments: str, code: int = 1) -> Findings:
    """What the doctor finds: the codes and what is said with them, by the object concerned."""
    found: Findings = {}
    for item in json.loads(busctl("doctor", *arguments, "-o", "json", code=code)[0])["items"]:
        for check in item["checks"]:
            for finding in check["findings"]:
                name = "/".join(filter(None, (item["namespace"], item["name"])))
                found.setdefault(f"{item['kind']} {name}", {})[finding["code"]] = finding["message"]
    return found


async def test_the_doctor_on_what_the_operator_refuses(world: World, namespace: Namespace, busctl: Any) -> None:
    """A wire name that two want, and a database that does not let another namespace in."""
    other = world.namespace()
    namespace.database((await world.postgres()).dsn)
    first = namespace.channel("first", channel="shared")
    first.wait_ready()
    world.wait_for_the_next_second(namespace, first)
    namespace.channel("second", channel="shared").wait_for("ChannelConflict")
    other.channel("orders", database=f"{namespace.name}/main").wait_for("NamespaceNotAllowed")
    found = findings(busctl)
    assert f"BusChannel {namespace.name}/first" not in found
    said = found[f"BusChannel {namespace.name}/second"]["ChannelConflict"]
    assert f"{namespace.name}/first" in said
    assert "spec.channel" in said
    # The last --namespace counts.
    said = findings(busctl, "-n", other.name)[f"BusChannel {other.name}/orders"]["NamespaceNotAllowed"]
    assert f"{namespace.name}/main" in said
    assert "allowedNamespaces" in said


async def test_the_doctor_on_a_pod_without_a_binding_and_a_replaced_credential(
    world: World, namespace: Namespace, busctl: Any, kube: KubeClient
) -> None:
    """Here the API server cannot reach the webhook's Service, as where a NetworkPolicy is in the way."""
    namespace.database((await world.postgres()).dsn)
    namespace.channel().wait_ready()
    kube.create(f"/api/v1/namespaces/{namespace.name}/serviceaccounts", {"metadata": {"name": "default"}})
    kube.create_asking_pod(namespace.name, "billing-0")
    async with namespace.login() as login:
        await login.join("billing", host="billing-0")
        busctl("rotate", "orders", "--wait", "--timeout", "60")
        found = findings(busctl, "orders")
    assert (
        "does a NetworkPolicy let the API server's machines reach them"
        in found["Injection webhook"]["WebhookUnreachable"]
    )
    pod = found[f"Pod {namespace.name}/billing-0"]
    assert "kubectl rollout restart" in pod["BindingMissing"]
    said = found[f"BusChannel {namespace.name}/orders"]["CredentialStillUsed"]
    assert "pod billing-0, durable peer 'billing' uses generation 1" in said
    assert "restart it before" in said


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


async def test_programs_are_told_of_a_rotation(world: World, namespace: Namespace, busctl: Any) -> None:
    namespace.database((await world.postgres()).dsn)
    namespace.channel().wait_ready()
    rotated = json.loads(busctl("rotate", "orders", "--wait", "--timeout", "30", "-o", "json")[0])
    assert rotated.pop("request").startswith("20")
    wanted = {
        "namespace": namespace.name,
        "name": "orders",
        "channel": f"{namespace.name}.orders",
        "replaced": True,
        "previousGeneration": 1,
        "credentialGeneration": 2,
        "binding": None,
    }
    assert rotated == wanted
    asked = yaml.safe_load(busctl("rotate", "orders", "-o", "yaml")[0])
    del asked["request"]
    assert asked == wanted | {"replaced": False, "previousGeneration": 2}


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
