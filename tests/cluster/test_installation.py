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
    said = [line.strip() for line in done.stdout.splitlines()]
    for check in ("definitions", "leader", "webhook", "metrics"):
        assert said.count(f"✓ {check}") == 1, done.stdout
