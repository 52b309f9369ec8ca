"""What runs the containers of pods."""

from __future__ import annotations

import json
import time
from pathlib import Path

from .commands import find_program, run, succeeds
from .console import ClusterError
from .files import write
from .layout import Layout
from .packages import cni_directory
from .process import Processes, Program

READY_SECONDS = 60.0
REMOVE_SECONDS = 20.0
SANDBOX_IMAGE = "localhost/pgmq-bus-pause:1"
NAMESPACE = "k8s.io"


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

    def load(self, archive: Path) -> None:
        """Put the images of an archive (of `buildah push docker-archive:`) into the store."""
        run(self._ctr("images", "import", "--snapshotter", self._snapshotter(), str(archive)))

    def tag(self, image: str, name: str) -> None:
        """Give an image a further name, taken from whichever image has it."""
        run(self._ctr("images", "tag", "--force", image, name))

    def forget_all_but(self, image: str) -> None:
        """Remove the earlier builds of an image: other tags of its name. What running containers need stays."""
        repository = image.rpartition(":")[0]
        digests = {line.split()[0]: line.split()[2] for line in run(self._ctr("images", "ls")).splitlines()[1:]}
        earlier = {n for n in digests if n.rpartition(":")[0] == repository and digests[n] != digests[image]}
        # Beside each name Kubernetes keeps one made of the image's identifier, which alone would keep the image.
        kept = {digests[name] for name in digests if not name.startswith("sha256:") and name not in earlier}
        earlier |= {name for name, digest in digests.items() if name.startswith("sha256:") and digest not in kept}
        if earlier:
            run(self._ctr("images", "rm", *sorted(earlier)))

    def remove_containers(self) -> None:
        """Remove all containers, whose processes have been ended.

        Raises:
            ClusterError: some remain.
        """
        for kind, options in (("tasks", ["--force"]), ("containers", [])):
            deadline = time.monotonic() + REMOVE_SECONDS
            while remaining := run(self._ctr(kind, "ls", "-q")).split():
                if time.monotonic() > deadline:
                    raise ClusterError(f"containerd keeps {kind}: {', '.join(remaining)}")
                # containerd itself removes what has ended: one that is gone already is no failure.
                for name in remaining:
                    succeeds(self._ctr(kind, "delete", *options, name))

    def shim_sockets(self) -> list[Path]:
        """Return the sockets of the processes that containerd keeps beside each pod; they lie where all shims' do."""
        notes = (self._layout.runtime / "containerd").glob("io.containerd.runtime.v2.task/*/*/address")
        return [Path(note.read_text().removeprefix("unix://")) for note in notes]

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", NAMESPACE, *arguments]

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

[plugins."io.containerd.internal.v1.opt"]
path = {json.dumps(str(self._store / "opt"))}

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
Root = {json.dumps(str(self._layout.runtime / "runc"))}
"""
