"""What `make demo` tells people to type works on a machine that has nothing but what the demo needs."""

import shutil
import sys
from pathlib import Path

import pytest

from hack.demo import programs

CACHED = Path("/cache/bin/kubectl")


def test_busctl_and_helm_are_found_first() -> None:
    assert programs(CACHED).split(":")[0] == str(Path(sys.executable).parent)


def test_kubectl_is_the_clusters_own_only_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", {"kubectl": "/usr/bin/kubectl"}.get)
    assert "/cache/bin" not in programs(CACHED).split(":")
    monkeypatch.setattr(shutil, "which", {}.get)
    assert programs(CACHED).split(":")[-1] == "/cache/bin"
