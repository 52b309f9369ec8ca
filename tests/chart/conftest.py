"""Renders the chart with the real Helm."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "pgmq-bus"
HELM = Path(sys.executable).parent / "helm"

Manifest = dict[str, Any]
Values = dict[str, Any]


class HelmError(Exception):
    """Helm refused; the message is what it wrote to standard error."""


class Manifests(list[Manifest]):
    """Rendered manifests, looked up by kind and name."""

    def of(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self if manifest["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        (manifest,) = (manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name)
        return manifest


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def helm() -> Callable[..., str]:
    """Run helm with arguments and standard input, and return its standard output."""

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(HELM), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., str]) -> Callable[..., Manifests]:
    """Render the chart with values, by default as release `bus` in namespace `bus-system`."""

    def run(values: Values | None = None, release: str = "bus", namespace: str = "bus-system") -> Manifests:
        arguments = ["template", release, str(CHART), "--namespace", namespace, "--values", "-"]
        output = helm(*arguments, stdin=json.dumps(values or {}))
        return Manifests(manifest for manifest in yaml.safe_load_all(output) if manifest)

    return run


@pytest.fixture(scope="session")
def refusal(render: Callable[..., Manifests]) -> Callable[[Values], str]:
    """Render the chart with values that Helm must refuse, and return what it says."""

    def run(values: Values) -> str:
        with pytest.raises(HelmError) as refused:
            render(values)
        return str(refused.value)

    return run
