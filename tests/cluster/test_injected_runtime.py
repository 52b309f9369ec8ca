"""Pods whose image has a Python and nothing else, and that ask for bus_runtime."""

import json
from pathlib import Path
from typing import Any

import pytest
from demo_cluster import Cluster

from hack.cluster.recipes import Recipe

BARE = Path(__file__).parent / "python"

HELLO = """
import asyncio, os, sys
from bus_runtime import BusSubscriber, BusTTSSpeakMessage, PgmqBus

class Greeter(BusSubscriber):
    name = "greeter"
    def __init__(self): self.heard = asyncio.Event()
    async def on_bus_message(self, message):
        if message.source != me: self.heard.set()

async def main():
    bus, greeter = PgmqBus.from_binding(), Greeter()
    await bus.subscribe(greeter)
    await bus.start()
    # Until the other one has been heard, and once more for it: it may have come later.
    while not greeter.heard.is_set():
        await bus.publish(BusTTSSpeakMessage(source=me, text="hello"), raise_on_error=True)
        await asyncio.sleep(0.5)
    await bus.publish(BusTTSSpeakMessage(source=me, text="hello"), raise_on_error=True)
    await bus.stop()
    print("heard the other one", flush=True)

me = sys.argv[1]
asyncio.run(main())
"""
WHERE = "import bus_runtime; print(bus_runtime.__file__)"


@pytest.fixture(scope="module")
def bare_image(cluster: Cluster) -> str:
    return cluster.load(Recipe("pgmq-bus-test-python", BARE, BARE / "Dockerfile"))


def container(image: str, name: str, *command: str, **extra: Any) -> dict[str, Any]:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {"name": name, "image": image, "command": list(command), "securityContext": security, **extra}


def test_an_image_with_only_python_exchanges_messages(cluster: Cluster, namespace: str, bare_image: str) -> None:
    orders = {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "spec": {}}
    said = cluster.apply(
        {**orders, "metadata": {"name": "orders", "namespace": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "bare",
                "namespace": namespace,
                "labels": {"pgmqbus.dev/inject": "true"},
                "annotations": {"pgmqbus.dev/channels": "orders", "pgmqbus.dev/inject-runtime": "true"},
            },
            "spec": {
                "restartPolicy": "Never",
                # What runs before the program may import it, too.
                "initContainers": [container(bare_image, "where", "python3", "-c", WHERE)],
                "containers": [
                    container(bare_image, "one", "python3", "-c", HELLO, "one"),
                    container(
                        bare_image, "two", "python3", "-c", HELLO, "two", env=[{"name": "PYTHONPATH", "value": "/app"}]
                    ),
                ],
            },
        },
    )
    assert "bus_runtime" not in said

    def succeeded() -> bool:
        pod = cluster.get("pod", "bare", "-n", namespace)
        logs = cluster.kubectl("logs", "bare", "-n", namespace, "--all-containers", check=False)
        assert pod["status"]["phase"] != "Failed", f"{json.dumps(pod['status'])}\n{logs}"
        return bool(pod["status"]["phase"] == "Succeeded")

    cluster.wait_until("both have heard each other", succeeded)
    where = cluster.kubectl("logs", "bare", "-n", namespace, "-c", "where").strip()
    assert where == "/pgmq-bus-runtime/lib/bus_runtime/__init__.py"
    for name in ("one", "two"):
        assert cluster.kubectl("logs", "bare", "-n", namespace, "-c", name) == "heard the other one\n"
    pod = cluster.get("pod", "bare", "-n", namespace)
    first, *_ = pod["spec"]["initContainers"]
    assert first["name"] == "pgmq-bus-runtime"
    assert pod["metadata"]["annotations"]["pgmqbus.dev/injected-runtime"]
