"""The system's programs that a node needs."""

from __future__ import annotations

import os
from pathlib import Path

from .commands import find_program, run
from .console import ClusterError, say, step

# Debian package -> a file or program that shows that it is there.
NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "iproute2": "ip",
    "openssl": "openssl",
}
IMAGE_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
CNI_PACKAGE = "containernetworking-plugins"
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback")


def cni_directory() -> Path | None:
    """Return the directory that holds the CNI plugins, None when none holds all that are needed."""
    return next((d for d in CNI_DIRECTORIES if all((d / p).exists() for p in CNI_PLUGINS)), None)


def ensure_node_packages() -> None:
    """Install what a node and its images need, where it is missing; see `ensure`."""
    ensure({**NODE_PACKAGES, **IMAGE_PACKAGES}, [] if cni_directory() else [CNI_PACKAGE])


def ensure(programs: dict[str, str], packages: list[str] | None = None) -> None:
    """Install Debian packages whose program is missing.

    Args:
        programs: the package of each program needed.
        packages: further packages to install, known to be missing.

    Raises:
        ClusterError: something is missing and cannot be installed from here.
    """
    missing = [package for package, program in programs.items() if find_program(program) is None]
    missing += packages or []
    if not missing:
        return
    by_hand = f"install them yourself (Debian's names): {' '.join(missing)}"
    if os.geteuid() != 0:
        raise ClusterError(f"programs are missing and only root may install them: {by_hand}")
    if find_program("apt-get") is None:
        raise ClusterError(f"programs are missing and there is no apt-get here: {by_hand}")
    say(f"installing Debian packages: {' '.join(missing)}")
    with step("installing packages", "20 seconds"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], env=quiet)
        run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], env=quiet)
