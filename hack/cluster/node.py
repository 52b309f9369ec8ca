"""The machine as a node: containerd, kubelet and kube-proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import cgroups, network
from .api import Api
from .commands import find_program, run, succeeds
from .console import ClusterError
from .control_plane import kubeconfig
from .files import write
from .layout import CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, LOOPBACK, NODE_ADDRESS, POD_CIDR, Layout
from .packages import cni_directory
from .pki import NODE_NAME
from .process import Processes, Program, flags
from .state import State

READY_SECONDS = 60.0
SANDBOX_IMAGE = "localhost/pgmq-bus-pause:1"
CONTAINERD_NAMESPACE = "k8s.io"
EVICTION_SIGNALS = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")


class Containerd:
    """containerd with a configuration, a store and a socket of its own; never the system's."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._store = layout.cache / "containerd"
        self.socket = layout.runtime / "containerd.sock"

    def ensure(self, processes: Processes) -> None:
        """Have containerd run and answer."""
        config = self._layout.config / "containerd.toml"
        write(config, self._configuration())
        argv = [find_program("containerd") or "", "--config", str(config)]
        processes.ensure(Program("containerd", argv, [config]))
        processes.wait_until(self.answers, "containerd to answer", READY_SECONDS, needs=("containerd",))

    def answers(self) -> bool:
        """Return whether containerd answers."""
        return self.socket.exists() and succeeds(self._ctr("version"))

    def has(self, image: str) -> bool:
        """Return whether an image of this full name is in the store."""
        return bool(run(self._ctr("images", "ls", "-q", f"name=={image}")).strip())

    def images(self) -> list[str]:
        """Return the names of all images in the store."""
        return run(self._ctr("images", "ls", "-q")).split()

    def load(self, archive: Path) -> None:
        """Put the images of an archive (of `buildah push docker-archive:`) into the store."""
        run(self._ctr("images", "import", "--snapshotter", self._snapshotter(), str(archive)))

    def tag(self, image: str, name: str) -> None:
        """Give an image a further name, taken from whichever image has it."""
        run(self._ctr("images", "tag", "--force", image, name))

    def forget(self, images: list[str]) -> None:
        """Remove names of images; what running containers need stays."""
        if images:
            run(self._ctr("images", "rm", *images))

    def remove_containers(self) -> None:
        """Remove what containers there are, none of which runs any more."""
        for task in run(self._ctr("tasks", "ls", "-q")).split():
            run(self._ctr("tasks", "delete", "--force", task))
        if containers := run(self._ctr("containers", "ls", "-q")).split():
            run(self._ctr("containers", "delete", *containers))

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", CONTAINERD_NAMESPACE, *arguments]

    def _snapshotter(self) -> str:
        self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An overlay cannot lie upon an overlay, as this one would inside a container.
        file_system = run(["stat", "--file-system", "--format", "%T", str(self._store)]).strip()
        return "native" if file_system == "overlayfs" else "overlayfs"

    def _configuration(self) -> str:
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        return f"""\
version = 2
root = {json.dumps(str(self._store))}
state = {json.dumps(str(self._layout.runtime / "containerd"))}

[grpc]
address = {json.dumps(str(self.socket))}

{cri}]
sandbox_image = "{SANDBOX_IMAGE}"
# Inside a container the kernel may refuse to lower this, upon which runc fails with nothing but
# "can't get final child's PID from pipe: EOF".
restrict_oom_score_adj = true
# Below our own directory they are found again whatever happened.
netns_mounts_under_state_dir = true

{cri}.cni]
bin_dir = {json.dumps(str(cni_directory()))}
conf_dir = {json.dumps(str(self._layout.config / "cni"))}

{cri}.containerd]
snapshotter = "{self._snapshotter()}"
default_runtime_name = "runc"

{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

{cri}.containerd.runtimes.runc.options]
BinaryName = {json.dumps(find_program("runc"))}
"""


def ensure(layout: Layout, state: State, binary: Path, processes: Processes) -> None:
    """Have the daemons of the node run; containerd must run already and hold the sandbox image."""
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
