"""Building the Kubernetes binary and the pod sandbox's, once for each version of their source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from .commands import find_program, run
from .console import ClusterError, step
from .layout import REPOSITORY, Layout

SOURCE = REPOSITORY / "hack" / "cluster" / "kubeallinone"
# Kubernetes' own build sets these; clients cannot parse the version of a server without.
VERSION_VARIABLES = ("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion")


def digest(files: Iterable[Path], *words: str) -> str:
    """Return 12 hexadecimal digits that change with the name or content of any of the files, and with the words."""
    total = hashlib.sha256("\0".join(words).encode())
    for file in sorted(files):
        total.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def kubernetes_version() -> str:
    """Return the version of Kubernetes that go.mod asks for, as `v1.34.4`."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v[\w.-]+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{SOURCE / 'go.mod'} names no version of k8s.io/kubernetes")
    return found[1]


def kubernetes_path(layout: Layout) -> Path:
    """Return where the binary that holds all programs of Kubernetes is, once it is built."""
    key = digest([*SOURCE.glob("*.go"), SOURCE / "go.mod", SOURCE / "go.sum"])
    return layout.cache / "bin" / f"kubernetes-{kubernetes_version()}-{key}"


def pause_path(layout: Layout) -> Path:
    """Return where the static program of a pod's sandbox is, once it is built."""
    return layout.cache / "bin" / f"pause-{digest((SOURCE / 'pause').glob('*.go'))}"


def kubernetes_binary(layout: Layout) -> Path:
    """Return the path of the binary that holds all programs of Kubernetes, built first where it is missing.

    Raises:
        ClusterError: it is missing and there is no Go, or the build fails.
    """
    version = kubernetes_version()
    binary = kubernetes_path(layout)
    if not binary.exists():
        with step(f"building Kubernetes {version} from its Go modules", "6 to 10 minutes on two cores, once"):
            settings = " ".join(f"-X {variable}={version}" for variable in VERSION_VARIABLES)
            _go_build(SOURCE, binary, f"-s -w {settings}")
    link = layout.kubectl
    if not link.is_symlink() or link.readlink() != Path(binary.name):
        unfinished = link.with_name(f"{link.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(binary.name)
        unfinished.replace(link)
    return binary


def pause_binary(layout: Layout) -> Path:
    """Return the path of the static program of a pod's sandbox, built first where it is missing."""
    binary = pause_path(layout)
    if not binary.exists():
        with step("building the pod sandbox's program"):
            _go_build(SOURCE / "pause", binary, "-s -w")
    return binary


def _go_build(source: Path, binary: Path, link_flags: str) -> None:
    if find_program("go") is None:
        raise ClusterError(
            "Go is not installed, and the Kubernetes binary is not built yet: install Go 1.24 or newer "
            "(https://go.dev/dl), or choose another cluster: kind with Docker, or CLUSTER=current"
        )
    binary.parent.mkdir(parents=True, exist_ok=True)
    unfinished = binary.with_name(f"{binary.name}.unfinished")
    # No C compiler is needed, and what is built runs on any Linux of this architecture.
    options = ["-buildvcs=false", "-trimpath", "-mod=readonly", "-ldflags", link_flags, "-o", str(unfinished)]
    run(["go", "build", *options, "."], env={"CGO_ENABLED": "0"}, cwd=source)
    unfinished.replace(binary)
