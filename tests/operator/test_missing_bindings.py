"""Pods that asked for a binding and did not get it: in these tests no webhook can be reached, as while it is down."""

from typing import Any

from control_plane import wait_until
from operator_world import Namespace, World


def create_pod(world: World, namespace: Namespace, name: str, channels: str, **annotations: str) -> None:
    account = f"/api/v1/namespaces/{namespace.name}/serviceaccounts"
    if world.kube.get(f"{account}/default") is None:
        world.kube.create(account, {"metadata": {"name": "default"}})
    metadata = {
        "name": name,
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": channels} | annotations,
    }
    spec = {"containers": [{"name": "main", "image": "none"}]}
    world.kube.create(f"/api/v1/namespaces/{namespace.name}/pods", {"metadata": metadata, "spec": spec})


def pod_events(world: World, namespace: Namespace, name: str) -> list[Any]:
    events = world.kube.get(f"/api/v1/namespaces/{namespace.name}/events")["items"]
    return [item for item in events if item["involvedObject"]["name"] == name]


async def test_pod_and_channel_are_told_once(world: World, namespace: Namespace) -> None:
    namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready()
    create_pod(world, namespace, "complete", "orders", **{"pgmqbus.dev/injected": "orders"})
    create_pod(world, namespace, "without", "orders")
    create_pod(world, namespace, "wrong", "Orders")

    (event,) = wait_until(lambda: pod_events(world, namespace, "without"), "the Event about the pod")
    assert (event["type"], event["reason"]) == ("Warning", "BindingMissing")
    assert event["involvedObject"]["kind"] == "Pod"
    assert "recreate the pod" in event["message"]
    wait_until(lambda: pod_events(world, namespace, "wrong"), "the Event about the other pod")
    expected = ("Warning", "BindingMissing", "pod without was created without this binding: recreate the pod")
    wait_until(lambda: expected in channel.events(), "the Event about the channel")
    # Neither the next looks nor a restart say it again: this pod is named by a look that is later than all of that.
    world.operator.kill()
    world.operator.start()
    create_pod(world, namespace, "later", "orders")
    wait_until(lambda: pod_events(world, namespace, "later"), "the Event about the last pod")
    assert len(pod_events(world, namespace, "without")) == 1
    assert channel.events().count(expected) == 1
    assert pod_events(world, namespace, "complete") == []
