"""etcd, the API server, the controllers and the scheduler."""

from __future__ import annotations

from pathlib import Path

from . import pki
from .api import Api
from .layout import CLUSTER_DOMAIN, LOOPBACK, NODE_ADDRESS, SERVICE_CIDR, Layout
from .process import Processes, Program, flags
from .state import State

READY_SECONDS = 60.0


def address(state: State) -> str:
    """Return the address that the API server listens on: reachable from pods where there are pods."""
    return NODE_ADDRESS if state.node else LOOPBACK


def server(state: State) -> str:
    """Return the URL of the API server."""
    return f"https://{address(state)}:{state.ports['kube-apiserver']}"


def kubeconfig(layout: Layout, state: State, client: str) -> Path:
    """Write and return the file by which one of the cluster's own daemons reaches the API server."""
    path = layout.config / f"{client}.kubeconfig"
    pki.write_kubeconfig(path, layout.pki, client, server(state), layout.name)
    return path


def ensure(layout: Layout, state: State, binary: Path, processes: Processes) -> Api:
    """Have the control plane run, and return the API server once it serves."""
    layout.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    processes.ensure(_etcd(layout, binary))
    processes.ensure(_api_server(layout, state, binary))
    api = Api(server(state), layout.pki)
    processes.wait_until(api.ready, "the API server to serve", READY_SECONDS, needs=("etcd", "kube-apiserver"))
    if state.node:
        processes.ensure(_controller_manager(layout, state, binary))
        processes.ensure(_scheduler(layout, state, binary))
    return api


def _etcd(layout: Layout, binary: Path) -> Program:
    socket = f"unix://{layout.runtime}/etcd.sock"
    # No other member will ever call, nor will a client ask for addresses, but etcd insists on such.
    nowhere = f"http://{LOOPBACK}:0"
    arguments = {
        "name": "default",
        "data-dir": f"{layout.state}/etcd",
        "listen-client-urls": socket,
        "advertise-client-urls": nowhere,
        "listen-peer-urls": nowhere,
        "initial-advertise-peer-urls": nowhere,
        "initial-cluster": f"default={nowhere}",
        # A cluster does not outlive the boot: what a process has written, the next one reads, synced or not.
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    return Program("etcd", [str(binary), "etcd", *flags(arguments)])


def _api_server(layout: Layout, state: State, binary: Path) -> Program:
    arguments = {
        "etcd-servers": f"unix://{layout.runtime}/etcd.sock",
        "bind-address": address(state),
        "advertise-address": address(state),
        "secure-port": str(state.ports["kube-apiserver"]),
        "cert-dir": str(layout.config),
        "tls-cert-file": str(layout.pki / "apiserver.crt"),
        "tls-private-key-file": str(layout.pki / "apiserver.key"),
        "token-auth-file": str(layout.pki / "tokens.csv"),
        "service-account-issuer": f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        "service-account-key-file": str(layout.pki / "service-account.pub"),
        "service-account-signing-key-file": str(layout.pki / "service-account.key"),
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "profiling": "false",
    }
    if state.node:
        arguments |= {
            "enable-admission-plugins": "NodeRestriction",
            "kubelet-client-certificate": str(layout.pki / "apiserver-kubelet.crt"),
            "kubelet-client-key": str(layout.pki / "apiserver-kubelet.key"),
            "kubelet-preferred-address-types": "InternalIP",
        }
    else:
        # Without controllers no namespace has the service account that this would insist on; and a loopback
        # address cannot be published as the endpoint of the `kubernetes` Service.
        arguments |= {"disable-admission-plugins": "ServiceAccount", "endpoint-reconciler-type": "none"}
    return Program("kube-apiserver", [str(binary), "kube-apiserver", *flags(arguments)])


def _controller_manager(layout: Layout, state: State, binary: Path) -> Program:
    arguments = {
        "kubeconfig": str(kubeconfig(layout, state, "kube-controller-manager")),
        "leader-elect": "false",
        "secure-port": "0",
        # Its own user may do next to nothing: each controller acts under an account of its own.
        "use-service-account-credentials": "true",
        "service-account-private-key-file": str(layout.pki / "service-account.key"),
        "root-ca-file": str(layout.pki / "ca.crt"),
        "kube-api-qps": "100",
        "kube-api-burst": "200",
    }
    return Program("kube-controller-manager", [str(binary), "kube-controller-manager", *flags(arguments)])


def _scheduler(layout: Layout, state: State, binary: Path) -> Program:
    arguments = {
        "kubeconfig": str(kubeconfig(layout, state, "kube-scheduler")),
        "leader-elect": "false",
        "secure-port": "0",
    }
    return Program("kube-scheduler", [str(binary), "kube-scheduler", *flags(arguments)])
