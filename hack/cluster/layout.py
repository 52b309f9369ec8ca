"""Where things are: the directories of a cluster and its addresses.

What costs time to make (the Kubernetes binary, images) is shared by all clusters and kept in the user's cache
directory; what belongs to one cluster is below `state` and `runtime` and vanishes with it.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .console import ClusterError

DEFAULT_NAME = "pgmq-bus"
REPOSITORY = Path(__file__).resolve().parents[2]

# The defaults of kubeadm and kind. The node is the pods' gateway: an address that no change of network takes away.
POD_CIDR = "10.244.0.0/24"
NODE_ADDRESS = "10.244.0.1"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
BRIDGE = "pgmqbus0"
LOOPBACK = "127.0.0.1"


def cache_directory() -> Path:
    """Return the directory of everything that this program keeps."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgmq-bus"


def _runtime_directory() -> Path:
    """Return a directory that does not survive a boot, short enough for the names of Unix sockets (108 bytes)."""
    if os.geteuid() == 0:
        return Path("/run/pgmq-bus")
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "pgmq-bus"
    return Path(tempfile.gettempdir()) / f"pgmq-bus-{os.geteuid()}"


@dataclass(frozen=True)
class Layout:
    """The directories of one cluster."""

    name: str
    cache: Path
    runtime: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """Return the directories of the cluster of this name.

        Raises:
            ClusterError: the name is not a DNS label.
        """
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
            raise ClusterError(f"{name!r} cannot name a cluster: at most 32 lower-case letters, digits and hyphens")
        cache = cache_directory()
        # Clusters of one name may be kept in several caches: what is not kept must not be shared either.
        key = hashlib.sha256(os.fsencode(cache)).hexdigest()[:8]
        return cls(name, cache, _runtime_directory() / key / name)

    @property
    def clusters(self) -> Path:
        """The directory of the states of all clusters."""
        return self.cache / "clusters"

    @property
    def state(self) -> Path:
        """This cluster's own directory."""
        return self.clusters / self.name

    @property
    def kubeconfig(self) -> Path:
        """The file that tells clients how to reach the cluster as its administrator."""
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        """The directory of keys, certificates and tokens."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """The directory of the daemons' configuration files."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """The directory of the daemons' output."""
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """The directory of the daemons' records (`process.Processes`)."""
        return self.state / "processes"

    @property
    def kubectl(self) -> Path:
        """A kubectl of the cluster's own version, as `binaries` makes it."""
        return self.cache / "bin" / "kubectl"
