"""What a cluster must remember from one command to the next."""

from __future__ import annotations

import errno
import fcntl
import json
import socket
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field

from .console import ClusterError, say
from .files import write
from .layout import Layout

# Below the range from which systems take the ports of outgoing connections (32768 on), above what services use.
FIRST_PORT, LAST_PORT = 20100, 29999


@dataclass
class State:
    """A cluster's memory.

    Attributes:
        provider: which kind of cluster it is (a key of `providers.PROVIDERS`).
        boot_id: the boot it was started in; what a machine's end leaves of a cluster is not worth keeping.
        node: whether pods run in it, or it is an API server alone.
        ports: the port of each server.
        kernel: the kernel settings that running a node changes, as they were before.
    """

    provider: str
    boot_id: str = ""
    node: bool = True
    ports: dict[str, int] = field(default_factory=dict)
    kernel: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, layout: Layout) -> State | None:
        """Return the cluster's memory, None when there is no such cluster."""
        try:
            return cls(**json.loads((layout.state / "cluster.json").read_text()))
        except FileNotFoundError:
            return None

    def save(self, layout: Layout) -> None:
        """Write it down."""
        write(layout.state / "cluster.json", json.dumps(asdict(self), indent=2) + "\n")


def others(layout: Layout) -> Iterator[tuple[str, State]]:
    """Yield the name and memory of every other cluster."""
    for path in layout.clusters.glob("*/cluster.json"):
        other = Layout.of(path.parent.name)
        if other.name != layout.name and (state := State.load(other)) is not None:
            yield other.name, state


def free_ports(names: Collection[str], taken: Collection[int]) -> dict[str, int]:
    """Return a port for each name that nothing listens on and that is not `taken` by another cluster."""
    ports: dict[str, int] = {}
    candidates = iter(range(FIRST_PORT, LAST_PORT + 1))
    for name in names:
        port = next((p for p in candidates if p not in taken and _is_free(p)), None)
        if port is None:
            raise ClusterError(f"no free port between {FIRST_PORT} and {LAST_PORT}")
        ports[name] = port
    return ports


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(socket.socket(socket.AF_INET, kind)) as attempt:
            try:
                attempt.bind(("", port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True


@contextmanager
def lock(layout: Layout, name: str) -> Iterator[None]:
    """Hold a lock that one command on this machine holds at a time, and that ends with its holder."""
    layout.clusters.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (layout.clusters / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command on {name} to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
