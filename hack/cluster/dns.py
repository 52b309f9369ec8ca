"""Names of Services for pods: CoreDNS as a daemon of the node, behind the Service that it is behind everywhere."""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from .api import Api
from .control_plane import kubeconfig
from .files import write
from .layout import CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, NODE_ADDRESS, Layout
from .process import Processes, Program
from .state import State

READY_SECONDS = 30.0
ROLE = "system:coredns"


def ensure(layout: Layout, state: State, binary: Path, processes: Processes, api: Api) -> None:
    """Have cluster DNS run and answer."""
    port = state.ports["coredns"]
    for path, manifest in _manifests(port):
        api.apply(path, manifest)
    corefile = layout.config / "Corefile"
    write(corefile, _corefile(kubeconfig(layout, state, "coredns"), port))
    processes.ensure(Program("coredns", [str(binary), "coredns", "-conf", str(corefile)], [corefile]))
    name = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
    processes.wait_until(
        lambda: resolves(name, NODE_ADDRESS, port), "cluster DNS to answer", READY_SECONDS, needs=("coredns",)
    )


def resolves(name: str, server: str, port: int) -> bool:
    """Return whether a DNS server knows an IPv4 address of a name (RFC 1035, section 4)."""
    recursion_desired, internet, host_address = 0x0100, 1, 1
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">6H", 1, recursion_desired, 1, 0, 0, 0) + labels + b"\0"
    query += struct.pack(">2H", host_address, internet)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(1.0)
        try:
            client.connect((server, port))
            client.send(query)
            answer = client.recv(512)
        except OSError:
            return False
    _, status, _, answers = struct.unpack(">4H", answer[:8])
    return bool(status & 0xF == 0 and answers > 0)


def _corefile(kubeconfig_path: Path, port: int) -> str:
    lines = [
        f".:{port} {{",
        f"  bind {NODE_ADDRESS}",
        "  errors",
        f"  kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{",
        f"    kubeconfig {kubeconfig_path}",
        "  }",
    ]
    # CoreDNS refuses to start with nowhere to forward to.
    resolver = Path("/etc/resolv.conf")
    if resolver.exists() and any(line.startswith("nameserver") for line in resolver.read_text().splitlines()):
        lines.append(f"  forward . {resolver}")
    return "\n".join([*lines, "}", ""])


def _manifests(port: int) -> list[tuple[str, dict[str, Any]]]:
    rbac = "rbac.authorization.k8s.io"
    listed = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    protocols = [("dns", "UDP"), ("dns-tcp", "TCP")]
    return [
        (
            f"/apis/{rbac}/v1/clusterroles/{ROLE}",
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": ROLE}, "rules": listed},
        ),
        (
            f"/apis/{rbac}/v1/clusterrolebindings/{ROLE}",
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": ROLE},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ROLE},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": ROLE}],
            },
        ),
        (
            "/api/v1/namespaces/kube-system/services/kube-dns",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {
                    "clusterIP": DNS_SERVICE_ADDRESS,
                    "ports": [{"name": n, "protocol": p, "port": 53, "targetPort": port} for n, p in protocols],
                },
            },
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv4",
                "ports": [{"name": n, "protocol": p, "port": port} for n, p in protocols],
                "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            },
        ),
    ]
