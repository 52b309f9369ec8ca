"""What the tests of the whole cluster share: a demo that ran, and a client of what it left."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.layout import DEFAULT_NAME, Layout
from hack.cluster.providers import choose
from hack.cluster.recipes import Recipe

TIMEOUT = 90.0


@dataclass(frozen=True)
class Demo:
    """A demo that ran: its exit status and what it printed."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Cluster:
    """The cluster with the demo installed."""

    kubeconfig: Path

    @property
    def program(self) -> str:
        """kubectl, as installed or as the cluster brings it."""
        return shutil.which("kubectl") or str(Layout.of(DEFAULT_NAME).kubectl)

    def load(self, recipe: Recipe) -> str:
        """Builds an image and puts it on the nodes; its full name."""
        return choose(Layout.of(DEFAULT_NAME)).load(recipe)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [self.program, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=TIMEOUT + 30,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *manifests: dict[str, Any]) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def wait_until(self, what: str, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + TIMEOUT
        while not (result := holds()):
            assert time.monotonic() < deadline, f"waited {TIMEOUT:.0f} s in vain: {what}"
            time.sleep(0.2)
        return result
