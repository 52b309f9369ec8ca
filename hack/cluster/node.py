"""The machine as a node: kubelet and kube-proxy."""

from __future__ import annotations

import contextlib
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from . import cgroups, network
from .api import Api
from .console import ClusterError
from .containerd import Containerd
from .control_plane import kubeconfig
from .files import write
from .layout import CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, LOOPBACK, NODE_ADDRESS, POD_CIDR, Layout
from .packages import cni_directory
from .pki import NODE_NAME
from .process import Processes, Program, flags
from .state import State

READY_SECONDS = 60.0
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
EVICTION_SIGNALS = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")


def ensure(layout: Layout, state: State, binary: Path, processes: Processes) -> None:
    """Have the kubelet and kube-proxy run; containerd must run already and hold the sandbox image."""
    write(layout.config / "cni" / "10-bridge.conflist", network.cni_configuration(layout.runtime / "cni"))
    cgroups.create(cgroups.name_of(layout))
    processes.ensure(_kubelet(layout, state, binary))
    processes.ensure(_proxy(layout, state, binary))


def wait_until_ready(processes: Processes, api: Api) -> None:
    """Wait until the node is ready for pods."""
    needs = ("containerd", "kubelet", "kube-proxy", "kube-controller-manager")
    processes.wait_until(lambda: is_ready(api), "the node to be ready", READY_SECONDS, needs)
    # The first pod is refused until the controllers have made what every pod is given.
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    processes.wait_until(lambda: api.get(account) is not None, "a service account", READY_SECONDS, needs)


def is_ready(api: Api) -> bool:
    """Return whether the node is there, says that it is ready, and is believed: pods are put on it."""
    found = api.get(f"/api/v1/nodes/{NODE_NAME}") or {}
    conditions = found.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not found["spec"].get("taints")


def has_foreign_kubelet() -> bool:
    """Return whether a kubelet runs; asked before ours does, it is another cluster's."""
    with closing(socket.socket(socket.AF_UNIX)) as attempt:
        return attempt.connect_ex(str(DEVICE_PLUGINS / "kubelet.sock")) == 0


def remove_device_plugins() -> None:
    """Remove the directory that the kubelet makes for device plugins; its place cannot be configured."""
    (DEVICE_PLUGINS / "kubelet.sock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is more in it, which is not ours
        DEVICE_PLUGINS.rmdir()
        DEVICE_PLUGINS.parent.rmdir()


def _write_config(layout: Layout, name: str, content: dict[str, Any]) -> Path:
    # JSON is YAML, which is what the daemons read.
    path = layout.config / f"{name}.yaml"
    write(path, json.dumps(content, indent=2) + "\n")
    return path


def _kubelet(layout: Layout, state: State, binary: Path) -> Program:
    if cni_directory() is None:
        raise ClusterError("the CNI plugins are missing: install Debian's containernetworking-plugins")
    config = _write_config(
        layout,
        "kubelet",
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "port": state.ports["kubelet"],
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},  # of the one client that can authenticate
            "containerRuntimeEndpoint": f"unix://{Containerd(layout).socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroups.name_of(layout)}",
            "enforceNodeAllocatable": [],
            "clusterDNS": [DNS_SERVICE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": "",
            "podLogsDir": str(layout.state / "pod-logs"),
            "volumePluginDir": str(layout.state / "volume-plugins"),
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "oomScoreAdj": 0,
            # A developer's disk may well be nearly full; that is no reason to evict pods or to lose images.
            "evictionHard": dict.fromkeys(EVICTION_SIGNALS, "0%"),
            "imageGCHighThresholdPercent": 100,
            "runtimeRequestTimeout": "1m",
        },
    )
    arguments = {
        "config": str(config),
        "kubeconfig": str(kubeconfig(layout, state, "kubelet")),
        "root-dir": str(layout.state / "kubelet"),
        "cert-dir": str(layout.state / "kubelet-pki"),
        "hostname-override": NODE_NAME,
        "node-ip": NODE_ADDRESS,
    }
    return Program("kubelet", [str(binary), "kubelet", *flags(arguments)], [config])


def _proxy(layout: Layout, state: State, binary: Path) -> Program:
    unchanged = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    config = _write_config(
        layout,
        "kube-proxy",
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": NODE_NAME,
            "clusterCIDR": POD_CIDR,
            "clientConnection": {"kubeconfig": str(kubeconfig(layout, state, "kube-proxy"))},
            "healthzBindAddress": f"{LOOPBACK}:{state.ports['kube-proxy-health']}",
            "metricsBindAddress": f"{LOOPBACK}:{state.ports['kube-proxy-metrics']}",
            "conntrack": unchanged,  # of the whole machine
            "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        },
    )
    return Program("kube-proxy", [str(binary), "kube-proxy", f"--config={config}"], [config])
