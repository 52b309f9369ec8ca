"""`helm test` on what `make demo` installed."""

import subprocess
import sys
from pathlib import Path

from demo_cluster import Cluster

HELM = Path(sys.executable).parent / "helm"


def test_helm_test(cluster: Cluster) -> None:
    done = subprocess.run(
        [HELM, "test", "pgmq-bus", "--namespace", "pgmq-bus", "--logs", "--kubeconfig", cluster.kubeconfig],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Phase:          Succeeded" in done.stdout
    said = [line.split() for line in done.stdout.splitlines()]
    for check in ("definitions", "leader", "webhook", "metrics"):
        assert ["✓", check] in said, done.stdout
    # Of the rights of its pod nothing is left.
    kinds = "serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings"
    assert "pgmq-bus-test" not in cluster.kubectl("get", kinds, "-n", "pgmq-bus", "-o", "name")
