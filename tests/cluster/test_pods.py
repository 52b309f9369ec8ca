"""Injection into real pods, and what happens to them when the operator or the channel goes."""

import base64
import json
from typing import Any

import pytest
from demo_cluster import Cluster

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SHOW_BINDING = (
    "import json, os, pathlib; root = pathlib.Path(os.environ['SERVICE_BINDING_ROOT']);"
    "print(json.dumps({str(f.relative_to(root)): f.read_text() for f in sorted(root.glob('*/*')) if f.is_file()}))"
)
PING = """
import asyncio
from bus_runtime import BusSubscriber, BusTTSSpeakMessage, PgmqBus

class Echo(BusSubscriber):
    name = "echo"
    def __init__(self): self.got = asyncio.Event()
    async def on_bus_message(self, message): self.got.set()

async def main():
    bus, echo = PgmqBus.from_binding(), Echo()
    await bus.subscribe(echo)
    await bus.start()
    await bus.publish(BusTTSSpeakMessage(source="ping", text="hello"), raise_on_error=True)
    await asyncio.wait_for(echo.got.wait(), 60)
    await bus.stop()
    print("pong")

asyncio.run(main())
"""


def channel(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata, "spec": spec}


def container(image: str, code: str, name: str = "main", **extra: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "securityContext": RESTRICTED,
        **extra,
    }


def pod(namespace: str, name: str, channels: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"pgmqbus.dev/inject": "true"},
            "annotations": {"pgmqbus.dev/channels": channels},
        },
        "spec": {"restartPolicy": "Never", "containers": list(containers), **spec},
    }


def succeeded(cluster: Cluster, namespace: str, name: str) -> bool:
    phase = cluster.get("pod", name, "-n", namespace)["status"]["phase"]
    assert phase != "Failed", cluster.kubectl("logs", name, "-n", namespace, "--all-containers")
    return bool(phase == "Succeeded")


def ready(cluster: Cluster, namespace: str, *names: str) -> None:
    for name in names:
        cluster.kubectl("wait", "--for=condition=Ready", "-n", namespace, f"buschannel/{name}", "--timeout=90s")


def test_every_container_gets_every_channel_it_asked_for(cluster: Cluster, namespace: str, image: str) -> None:
    cluster.apply(channel(namespace, "one"), channel(namespace, "two"))
    ready(cluster, namespace, "one", "two")
    cluster.apply(
        pod(
            namespace,
            "worker",
            "one, two",
            container(image, SHOW_BINDING),
            container(image, SHOW_BINDING, "side"),
            initContainers=[container(image, SHOW_BINDING, "init")],
        )
    )
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "worker"))
    for name in ("init", "main", "side"):
        found = json.loads(cluster.kubectl("logs", "worker", "-n", namespace, "-c", name))
        for each in ("one", "two"):
            secret = cluster.get("secret", f"{each}-bus", "-n", namespace)["data"]
            expected = {f"{each}/{key}": base64.b64decode(value).decode() for key, value in secret.items()}
            assert {key: value for key, value in found.items() if key.startswith(f"{each}/")} == expected
        assert found["one/channel"] == f"{namespace}.one"


def test_a_pod_that_has_such_a_mount_already_is_left_right(cluster: Cluster, namespace: str, image: str) -> None:
    cluster.apply(channel(namespace, "orders"))
    ready(cluster, namespace, "orders")
    mounted = container(
        image,
        SHOW_BINDING,
        env=[{"name": "SERVICE_BINDING_ROOT", "value": "/my/bindings"}],
        volumeMounts=[{"name": "mine", "mountPath": "/my/bindings/orders"}],
    )
    own = {"name": "mine", "secret": {"secretName": "orders-bus"}}
    cluster.apply(pod(namespace, "worker", "orders", mounted, volumes=[own]))
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "worker"))
    mounts = cluster.get("pod", "worker", "-n", namespace)["spec"]["containers"][0]["volumeMounts"]
    assert [m["mountPath"] for m in mounts if "serviceaccount" not in m["mountPath"]] == ["/my/bindings/orders"]
    assert "orders/uri" in json.loads(cluster.kubectl("logs", "worker", "-n", namespace))


def test_a_pod_that_comes_before_its_channel_waits_for_it(cluster: Cluster, namespace: str, image: str) -> None:
    said = cluster.apply(pod(namespace, "early", "orders", container(image, PING)))
    assert f"no BusChannel 'orders' in namespace {namespace} yet" in said
    cluster.apply(channel(namespace, "orders"))
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "early"))
    assert cluster.kubectl("logs", "early", "-n", namespace) == "pong\n"


def test_pods_that_ask_for_nothing_are_not_touched(cluster: Cluster, namespace: str, image: str) -> None:
    manifest = pod(namespace, "plain", "orders", container(image, "print('hello')"))
    del manifest["metadata"]["labels"]
    cluster.apply(manifest)
    volumes = cluster.get("pod", "plain", "-n", namespace)["spec"]["volumes"]
    assert [volume["name"][:15] for volume in volumes] == ["kube-api-access"]


def test_a_pod_that_is_selected_never_waits_and_finds_the_files_later(
    cluster: Cluster, namespace: str, image: str
) -> None:
    """Its channel has no Secret for the time being, since its database does not exist yet."""
    selector = {"injection": {"podSelector": {"matchLabels": {"app": "worker"}}}}
    cluster.apply(channel(namespace, "orders", **selector, databaseRef={"name": "later"}))

    def selected() -> bool:
        webhooks = cluster.get("mutatingwebhookconfiguration", "pgmq-bus")["webhooks"]
        return any(namespace in json.dumps(webhook["namespaceSelector"]) for webhook in webhooks)

    cluster.wait_until("the API server shows such pods to the webhook", selected)
    worker = pod(namespace, "worker", "", container(image, PING), restartPolicy="OnFailure")
    worker["metadata"]["labels"], worker["metadata"]["annotations"] = {"app": "worker"}, {}
    cluster.apply(worker)
    assert cluster.get("pod", "worker", "-n", namespace)["metadata"]["annotations"]["pgmqbus.dev/injected"] == "orders"
    cluster.wait_until("it has been started without", lambda: restarts(cluster, namespace, "worker") > 0)
    cluster.kubectl("delete", "buschannel", "orders", "-n", namespace, "--timeout=90s")
    cluster.apply(channel(namespace, "orders", **selector))
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "worker"))


def restarts(cluster: Cluster, namespace: str, name: str) -> int:
    statuses = cluster.get("pod", name, "-n", namespace)["status"].get("containerStatuses", ())
    return sum(status["restartCount"] for status in statuses)


def test_a_deleted_channel_takes_its_secret_along_and_comes_back_with_a_new_one(
    cluster: Cluster, namespace: str, image: str
) -> None:
    cluster.apply(channel(namespace, "orders"))
    ready(cluster, namespace, "orders")
    before = cluster.get("secret", "orders-bus", "-n", namespace)["data"]["password"]
    cluster.kubectl("delete", "buschannel", "orders", "-n", namespace, "--timeout=90s")
    cluster.wait_until(
        "garbage collection of the Secret",
        lambda: "NotFound" in cluster.kubectl("get", "secret", "orders-bus", "-n", namespace, check=False),
    )
    cluster.apply(channel(namespace, "orders"))
    ready(cluster, namespace, "orders")
    assert cluster.get("secret", "orders-bus", "-n", namespace)["data"]["password"] != before
    cluster.apply(pod(namespace, "worker", "orders", container(image, PING)))
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "worker"))


def test_busctl_in_the_operators_pod(cluster: Cluster, namespace: str) -> None:
    """There every database can be reached, as the operator's service account may read what it takes."""
    cluster.apply(channel(namespace, "orders"))
    ready(cluster, namespace, "orders")
    busctl = ("exec", "-n", "pgmq-bus", "deploy/pgmq-bus", "--", "busctl")
    shown = cluster.kubectl(*busctl, "status", "orders", "-n", namespace)
    assert "Ready:        True (Ready)" in shown
    assert "are left out" not in shown
    assert "NAMESPACE" in cluster.kubectl(*busctl, "status", "-A")
    assert "BACKLOG" in cluster.kubectl(*busctl, "top", "--once", "--interval", "0.1", "-n", namespace)
    # What busctl says besides follows its output.
    said = cluster.kubectl(*busctl, "doctor", "orders", "-n", namespace, "-o", "json")
    found, _ = json.JSONDecoder().raw_decode(said)
    assert found["healthy"], said
    well = {check["title"] for item in found["items"] for check in item["checks"] if check["state"] == "ok"}
    assert {"connection", "rights", "schema", "drift", "ready", "readers"} <= well, said


def test_a_namespace_is_deleted_without_leaving_anything_stuck(cluster: Cluster, namespace: str, image: str) -> None:
    cluster.apply(*(channel(namespace, f"c{number}") for number in range(5)))
    ready(cluster, namespace, *(f"c{number}" for number in range(5)))
    cluster.kubectl("delete", "namespace", namespace, "--timeout=90s")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})


@pytest.mark.timeout(600)
def test_pods_go_on_while_the_operator_is_down_and_its_authority_survives(
    cluster: Cluster, namespace: str, image: str
) -> None:
    cluster.apply(channel(namespace, "orders"))
    ready(cluster, namespace, "orders")
    authority = cluster.get("mutatingwebhookconfiguration", "pgmq-bus")["webhooks"][0]["clientConfig"]["caBundle"]
    worker = pod(namespace, "worker", "orders", container(image, PING))
    cluster.apply(worker)
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "worker"))
    injected = cluster.get("pod", "worker", "-n", namespace)

    cluster.kubectl("scale", "deployment/pgmq-bus", "-n", "pgmq-bus", "--replicas=0")
    try:
        operator = ("pods", "-n", "pgmq-bus", "-l", "app.kubernetes.io/component=operator")
        cluster.wait_until("the operator to end", lambda: not cluster.get(*operator)["items"])
        # The webhook cannot answer, so nobody injects: this pod carries by itself what injection made of the first.
        (main,) = injected["spec"]["containers"]
        main["volumeMounts"] = [mount for mount in main["volumeMounts"] if mount["mountPath"].startswith("/bindings")]
        volumes = [volume for volume in injected["spec"]["volumes"] if "secret" in volume]
        again = pod(namespace, "again", "orders", main, volumes=volumes)
        cluster.apply(again)
        cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "again"))
    finally:
        cluster.kubectl("scale", "deployment/pgmq-bus", "-n", "pgmq-bus", "--replicas=2")
    cluster.kubectl("rollout", "status", "deployment/pgmq-bus", "-n", "pgmq-bus", "--timeout=90s")
    configuration = cluster.get("mutatingwebhookconfiguration", "pgmq-bus")
    assert configuration["webhooks"][0]["clientConfig"]["caBundle"] == authority
    cluster.apply(pod(namespace, "after", "orders", container(image, PING)))
    cluster.wait_until("the pod ends", lambda: succeeded(cluster, namespace, "after"))
