"""A cluster of our own on this machine: a control plane, and unless it is an API server alone, a node."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from . import binaries, cgroups, control_plane, dns, network, node, packages, pki, remnants
from .api import Api
from .buildah import IMAGES, Buildah
from .console import ClusterError, say, step
from .containerd import SANDBOX_IMAGE, Containerd
from .layout import Layout
from .process import Processes, boot_id
from .recipes import Recipe
from .state import State, free_ports, lock, others

PROVIDER = "local"
CONTROL_PLANE_PORTS = ("kube-apiserver",)
NODE_PORTS = (*CONTROL_PLANE_PORTS, "kubelet", "kube-proxy-health", "kube-proxy-metrics", "coredns")
CONTROL_PLANE = ("etcd", "kube-apiserver")
NODE = (*CONTROL_PLANE, "kube-controller-manager", "kube-scheduler", "containerd", "kubelet", "kube-proxy", "coredns")
# containerd alone keeps something that is not deleted with the cluster; the others are not waited for.
GRACE_SECONDS = {"containerd": 10.0}


class LocalCluster:
    """See the module; every method may be called at any time, whatever was killed before.

    Args:
        layout: where it is.
        with_node: whether pods shall run in it.
    """

    def __init__(self, layout: Layout, with_node: bool = True) -> None:
        self._layout = layout
        self._with_node = with_node
        self._processes = Processes(layout.records, layout.logs)
        self._containerd = Containerd(layout)

    @property
    def kubeconfig(self) -> Path:
        """The file by which clients reach it."""
        return self._layout.kubeconfig

    def up(self) -> None:
        """Have every part of it run: start it, repair it, or find that there is nothing to do."""
        layout = self._layout
        if self._with_node and os.geteuid() != 0:
            raise ClusterError("running pods takes root: use sudo, or install Docker and kind")
        if self._with_node:
            packages.ensure_node_packages()
        else:
            packages.ensure({"openssl": "openssl"})
        with lock(layout, "_build"):
            binary = binaries.kubernetes_binary(layout)
        with lock(layout, layout.name):
            state, is_new = self._remember()
            pki.ensure(layout.pki)
            if self._with_node:
                network.ensure()
            with step("control plane"):
                api = control_plane.ensure(layout, state, binary, self._processes)
            pki.write_kubeconfig(layout.kubeconfig, layout.pki, "admin", control_plane.server(state), layout.name)
            if self._with_node:
                with step("node"):
                    self._start_node(state, binary, api, is_new)

    def down(self) -> None:
        """End all of it and remove what it left; images stay in the cache."""
        with lock(self._layout, self._layout.name):
            if self._layout.state.exists():
                with step(f"removing cluster {self._layout.name}"):
                    self._remove(State.load(self._layout))
            else:
                say(f"there is no cluster {self._layout.name}")

    def problems(self) -> list[str]:
        """Return what is wrong with it, nothing when all is well."""
        state = State.load(self._layout)
        if state is None:
            return [f"there is no cluster {self._layout.name}"]
        wanted = NODE if state.node else CONTROL_PLANE
        found = [f"{name} does not run" for name in wanted if not self._processes.running(name)]
        if not self._layout.kubeconfig.exists():
            return [*found, "it was never fully started"]
        api = Api(control_plane.server(state), self._layout.pki)
        if not api.ready():
            found.append("the API server does not serve")
        elif state.node and not node.is_ready(api):
            found.append("the node is not ready")
        return found

    def load(self, recipe: Recipe) -> str:
        """Build an image, put it on the node and return its full name."""
        buildah = Buildah(self._layout)
        # The first lock keeps the node from being taken away meanwhile, the second other clusters from the images.
        with lock(self._layout, self._layout.name), lock(self._layout, "_images"):
            if not self._containerd.answers():
                raise ClusterError(f"cluster {self._layout.name} has no running node: run `up` first")
            base = buildah.base()
            with step(f"building {recipe.moving}"):
                identifier = buildah.build(recipe.moving, recipe.context, recipe.dockerfile, {"BASE_IMAGE": base})
            reference = recipe.reference(identifier)
            if not self._containerd.has(reference):
                with step(f"loading {reference}"):
                    self._import(buildah, identifier, reference)
                self._containerd.forget_all_but(reference)
            self._containerd.tag(reference, recipe.moving)
        return reference

    def _remember(self) -> tuple[State, bool]:
        """Return the cluster's memory, and whether it has just been made."""
        layout = self._layout
        state = State.load(layout)
        if state is not None and state.boot_id != boot_id():
            say(f"cluster {layout.name} ended with the machine; making it anew")
            self._remove(state)
            state = None
        if state is not None:
            if state.node != self._with_node:
                kind = "has a node" if state.node else "is an API server alone"
                raise ClusterError(
                    f"cluster {layout.name} is there and {kind}: run `down` first, or give another --name"
                )
            return state, False
        with lock(layout, "_machine"):
            known = dict(others(layout))
            if self._with_node:
                self._require_sole_node(known)
            # Whatever is there without its memory was left by a removal that was cut short near its end.
            remnants.delete([layout.state, layout.runtime])
            taken = {port for other in known.values() for port in other.ports.values()}
            ports = free_ports(NODE_PORTS if self._with_node else CONTROL_PLANE_PORTS, taken)
            kernel = network.kernel_settings() if self._with_node else {}
            state = State(PROVIDER, boot_id(), self._with_node, ports, kernel)
            state.save(layout)
        return state, True

    def _require_sole_node(self, known: dict[str, State]) -> None:
        for name, other in known.items():
            if other.provider == PROVIDER and other.node and other.boot_id == boot_id():
                raise ClusterError(f"this machine is the node of cluster {name}: run `down --name {name}` first")
        if node.has_foreign_kubelet() or network.has_foreign_rules():
            raise ClusterError(
                "this machine is, or was, a node of another Kubernetes: its kubelet runs, or the packet filter holds "
                "kube-proxy's rules. Use that one (CLUSTER=current), or end it and run kube-proxy --cleanup"
            )

    def _start_node(self, state: State, binary: Path, api: Api, is_new: bool) -> None:
        self._containerd.ensure(self._processes)
        if is_new:
            self._containerd.remove_containers()
        if not self._containerd.has(SANDBOX_IMAGE):
            self._load_sandbox_image()
        node.ensure(self._layout, state, binary, self._processes)
        dns.ensure(self._layout, state, binary, self._processes, api)
        node.wait_until_ready(self._processes, api)

    def _load_sandbox_image(self) -> None:
        buildah = Buildah(self._layout)
        dockerfile = IMAGES / "pause" / "Dockerfile"
        with lock(self._layout, "_images"), tempfile.TemporaryDirectory() as directory:
            program = Path(directory) / "pause"
            program.write_bytes(binaries.pause_binary(self._layout).read_bytes())
            program.chmod(0o755)
            identifier = buildah.build(SANDBOX_IMAGE, Path(directory), dockerfile, {})
            self._import(buildah, identifier, SANDBOX_IMAGE)

    def _import(self, buildah: Buildah, identifier: str, reference: str) -> None:
        archive = self._layout.cache / "image.unfinished.tar"
        buildah.save(identifier, reference, archive)
        self._containerd.load(archive)
        archive.unlink()

    def _remove(self, state: State | None) -> None:
        layout = self._layout
        # First those that would bring back what is being removed.
        for name in ("kubelet", "kube-proxy", "coredns", "kube-controller-manager", "kube-scheduler"):
            self._processes.stop(name, 0)
        has_node = state is not None and state.node
        if has_node:
            cgroups.end_processes(cgroups.name_of(layout))
            if self._containerd.answers():
                self._containerd.remove_containers()
        for name in self._processes.names():
            self._processes.stop(name, GRACE_SECONDS.get(name, 0))
        if has_node:
            remnants.end_shims(self._containerd.socket, self._containerd.shim_sockets())
            cgroups.remove(cgroups.name_of(layout))
            remnants.unmount_below([layout.state, layout.runtime])
            network.remove()
            remnants.unlink_container_logs(layout)
            node.remove_device_plugins()
        if state is not None and state.boot_id == boot_id():
            network.restore_kernel_settings(state.kernel)
        remnants.delete([layout.state, layout.runtime])
