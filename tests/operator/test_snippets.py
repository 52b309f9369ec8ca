"""What docs/busctl.md has users type, line by line, on a cluster with an operator and on a database without one."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from busctl_run import BUSCTL, busctl_run
from control_plane import KubeClient
from operator_world import Namespace, World
from snippets import commands, snippets

PAGE = "docs/busctl.md"

ELSEWHERE = {"pip", "kubectl", "helm"}
"""What needs pods is done by tests/cluster."""

LASTS = re.compile(r"busctl (tail|publish)")
"""What goes on for long, or until it is ended."""

MANIFEST = "{apiVersion: pgmqbus.dev/v1alpha1, kind: BusChannel, metadata: {name: orders, namespace: shop}}"

SHOWN = '{"order": "A-1", "total": 1000}'
"""What the filters on the page let through."""


def lines() -> list[str]:
    found = [line for snippet in snippets("sh") if snippet.page == PAGE for line in snippet.text.splitlines()]
    return [line for line in found if commands(line)[0][0] not in ELSEWHERE]


@pytest.fixture
def shell(apiserver: Path, namespace: Namespace, tmp_path: Path) -> Callable[[str], str]:
    """Runs a line; what it prints to standard output: all of it, or the first line of what lasts."""
    configuration = yaml.safe_load(apiserver.read_text())
    configuration["contexts"][0]["context"]["namespace"] = namespace.name
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(configuration))
    (tmp_path / "channels.yaml").write_text(MANIFEST)
    inherited = {name: value for name, value in os.environ.items() if name != "BUSCTL_DATABASE"}
    environment = inherited | {
        "PATH": f"{BUSCTL.parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
    }

    def run(line: str) -> str:
        with subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            if LASTS.search(line):
                found = process.stdout.readline()
                os.killpg(process.pid, signal.SIGTERM)
                return found
            found = process.stdout.read()
            assert process.wait(60) == 0, f"{line}\n{found}"
            return found

    return run


async def test_each_line_does_what_the_page_says(
    webhook: World, namespace: Namespace, kube: KubeClient, shell: Callable[[str], str], tmp_path: Path
) -> None:
    """As it stands there, but for the namespace's name and where the database is."""
    namespace.database((await webhook.postgres()).dsn, default=True)
    for name in ("orders", "audit"):
        namespace.channel(name).wait_ready()
    create_pod(kube, namespace, "worker-7d9f")
    alone = f"'{(await webhook.postgres(installed=False)).dsn}'"

    def here(line: str) -> str:
        return line.replace("-n shop", f"-n {namespace.name}").replace("postgresql://postgres@localhost/app", alone)

    typed = lines()
    assert len(typed) > 12
    # The page has made the channel before it gives it other credentials, and not the other way round.
    shell(here(next(line for line in typed if line.startswith("busctl apply"))))
    meanwhile = ("publish", "orders", "--type", "shop.messages.OrderPlaced", "--from", "shop-api", "--rate", "20")
    kubeconfig = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    for line in typed:
        publishing = busctl_run(tmp_path, *meanwhile, "--count", "100000", SHOWN, environment=kubeconfig)
        with publishing if "busctl tail" in line else nullcontext():
            assert shell(here(line)) or "eval" in line, line


def create_pod(kube: KubeClient, namespace: Namespace, name: str) -> None:
    kube.create(f"/api/v1/namespaces/{namespace.name}/serviceaccounts", {"metadata": {"name": "default"}})
    metadata = {
        "name": name,
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": "orders"},
    }
    spec = {"containers": [{"name": "main", "image": "none"}]}
    kube.create(f"/api/v1/namespaces/{namespace.name}/pods", {"metadata": metadata, "spec": spec})
