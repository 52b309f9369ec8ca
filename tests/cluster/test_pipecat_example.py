"""The example for users of pipecat, on a node: its image, with unmodified pipecat and no bus_runtime; its manifests."""

import re
from typing import Any

import pipecat_example
import pytest
import yaml
from demo_cluster import Cluster

from hack.cluster.recipes import Recipe

LOGGED = re.compile(r"\d{4}-\d\d-\d\d ")
"""What pipecat logs, to where the kubelet keeps what programs print."""


@pytest.fixture(scope="module")
def pipecat_image(cluster: Cluster) -> str:
    folder = pipecat_example.FOLDER
    return cluster.load(Recipe("pgmq-bus-pipecat", folder, folder / "Dockerfile"))


def manifests(image: str) -> list[dict[str, Any]]:
    """What the page's `kubectl apply` applies, with the name that the image has on this node."""
    files = [pipecat_example.FOLDER / name for name in ("buschannel.yaml", "workers.yaml")]
    text = "---\n".join(file.read_text() for file in files)
    assert text.count("pgmq-bus-pipecat:dev") == len(pipecat_example.WORKERS)
    return list(yaml.safe_load_all(text.replace("pgmq-bus-pipecat:dev", image)))


def test_a_call_is_handed_over_and_back(cluster: Cluster, namespace: str, pipecat_image: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline", "--overwrite")
    here = ("-n", namespace)
    cluster.kubectl("apply", *here, "-f", "-", stdin=yaml.safe_dump_all(manifests(pipecat_image)))

    def logs() -> dict[str, str]:
        return {
            name: cluster.kubectl("logs", f"job/{name}", "-c", "worker", *here, check=False)
            for name in pipecat_example.WORKERS
        }

    def succeeded() -> bool:
        statuses = {name: cluster.get("job", name, *here)["status"] for name in pipecat_example.WORKERS}
        assert not any(status.get("failed") for status in statuses.values()), f"{statuses}\n{logs()}"
        return all(status.get("succeeded") for status in statuses.values())

    cluster.wait_until("the call has ended", succeeded)
    lines = {name: [line.strip() for line in text.splitlines()] for name, text in logs().items()}
    logged = [line for each in lines.values() for line in each if LOGGED.match(line)]
    assert not [line for line in logged if re.search("WARNING|ERROR", line)]
    pipecat_example.check({name: [line for line in each if not LOGGED.match(line)] for name, each in lines.items()})
