"""What each target of the Makefile needs of the machine. Only what cannot be installed without asking is missing."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from hack import test_servers
from hack.cluster import binaries, cgroups, current, kind, local, packages
from hack.cluster.commands import find_program, succeeds
from hack.cluster.layout import DEFAULT_NAME, Layout, cache_directory
from hack.cluster.providers import VARIABLE
from hack.cluster.state import State

ROOT = Path(__file__).resolve().parents[2]

GO = (1, 24)
GO_THAT_FETCHES = (1, 21)
"""From here on Go fetches a newer one of itself where that is needed, unless GOTOOLCHAIN=local."""

GIGABYTE = 10**9
ENVIRONMENT_BYTES = GIGABYTE
"""What .venv takes, measured: 0.9 GB."""
CLUSTER_BYTES = 4 * GIGABYTE
"""Images, layers and pods, measured: 3.4 GB."""
GO_BYTES = 4 * GIGABYTE
"""Modules and objects of the build of Kubernetes, measured: 3.9 GB."""
BUILD_MEMORY_BYTES = 3 * GIGABYTE
"""Linking Kubernetes takes most of it."""
CLUSTER_MEMORY_BYTES = 3 * GIGABYTE // 2

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
"""Bits of capabilities(7)."""


def missing(target: str) -> list[str]:
    """What `make TARGET` lacks, for people."""
    return [line for check in TARGETS[target] for line in check()]


def _setup() -> Iterator[str]:
    if not os.access(ROOT, os.W_OK):
        yield f"a checkout that can be written, for .venv and .cache: git clone {ROOT} ~/pgmq-bus && cd ~/pgmq-bus"
        return
    if (ROOT / ".venv" / ".complete").exists():
        return
    has_uv = shutil.which("uv") or (ROOT / ".cache" / "uv" / "bin" / "uv").exists()
    if not has_uv and not all(map(_is_module, ("venv", "ensurepip"))):
        yield f"venv and pip of {platform.python_version()}, which install everything else: {_install('python3-venv')}"
    yield from _room(ROOT, ENVIRONMENT_BYTES, "the development environment in .venv")


def _is_module(name: str) -> bool:
    """Debian has parts of the standard library in packages of their own."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def _servers() -> Iterator[str]:
    lacking = [name for name, program in test_servers.SERVERS["tests"].items() if not test_servers.is_there(program)]
    if lacking and not _may_install():
        yield f"{', '.join(lacking)}, which the tests start: {_install(*lacking)}"


def _cluster() -> Iterator[str]:
    """As hack.cluster chooses."""
    asked = os.environ.get(VARIABLE, "")
    if asked == current.PROVIDER:
        yield from _current()
    elif asked == kind.PROVIDER:
        yield from _kind()
    elif _provider(asked) == local.PROVIDER:
        yield from _local()


def _provider(asked: str) -> str:
    state = State.load(Layout.of(DEFAULT_NAME))
    if state is not None:
        return state.provider
    return asked or (kind.PROVIDER if kind.is_possible() else local.PROVIDER)


def _current() -> Iterator[str]:
    if find_program("kubectl") is None:
        yield "kubectl, by which CLUSTER=current is reached: https://kubernetes.io/docs/tasks/tools"
    elif not succeeds(["kubectl", "config", "current-context"]):
        yield (
            "a kubeconfig with a current context, for CLUSTER=current: kubectl config get-contexts, then kubectl config"
            " use-context NAME; or KUBECONFIG=FILE"
        )


def _image_of_ours() -> Iterator[str]:
    if os.environ.get(VARIABLE) == current.PROVIDER:
        yield (
            "a registry that both this machine and the cluster reach, for the image: push it yourself and go on with"
            " docs/quickstart.md; or leave CLUSTER=current out"
        )


def _kind() -> Iterator[str]:
    if find_program("kind") is None:
        yield "kind, which makes the cluster (CLUSTER=kind): https://kind.sigs.k8s.io/docs/user/quick-start#installation"
    if find_program("docker") is None:
        yield f"Docker, in which kind makes the cluster: {_install('docker.io')}"
    elif not succeeds(["docker", "info"]):
        yield "a Docker daemon that answers, for kind: sudo systemctl start docker; sudo usermod -aG docker $USER"


def _local() -> Iterator[str]:
    if platform.system() != "Linux":
        yield f"Linux, whose kernel pods need (this is {platform.system()}): install Docker and kind, which bring one"
        return
    if os.geteuid() != 0:
        yield from _root("a node runs pods", ", or install Docker and kind")
    else:
        yield from _rights()
    yield from _packages()
    yield from _go()
    to_build = not _is_built()
    yield from _room(cache_directory(), CLUSTER_BYTES if _is_new() else 0, "images and pods (XDG_CACHE_HOME moves it)")
    if to_build:
        yield from _room(Path.home(), GO_BYTES, "building Kubernetes, once")
    yield from _memory(BUILD_MEMORY_BYTES if to_build else CLUSTER_MEMORY_BYTES)


def _root(why: str = "tests make disks full and networks broken", otherwise: str = "") -> Iterator[str]:
    if os.geteuid() != 0:
        # sudo has a PATH of its own, on which Go seldom is.
        yield f'root, since {why}: sudo env "PATH=$PATH" make ...{otherwise}'


def _rights() -> Iterator[str]:
    """What a container that is not privileged has not."""
    status = Path("/proc/self/status").read_text()
    effective = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    remedy = "start this container with --privileged, or install Docker and kind"
    if not all(effective >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN)):
        yield f"the rights to mount and to make networks, for pods: {remedy}"
    elif not all(os.access(root, os.W_OK) for root in cgroups.roots(Path("/proc/self/mountinfo").read_text())):
        yield f"control groups that can be written (/sys/fs/cgroup), for pods: {remedy}"


def _packages() -> Iterator[str]:
    wanted = {**packages.NODE_PACKAGES, **packages.IMAGE_PACKAGES}
    lacking = [package for package, program in wanted.items() if find_program(program) is None]
    lacking += [] if packages.cni_directory() else [packages.CNI_PACKAGE]
    if lacking and not _may_install():
        yield f"{', '.join(lacking)}, of which a node is made: {_install(*lacking)}"
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian" and _is_new():
        yield f"Debian, of whose packages images are made (this is {system['NAME']}): install Docker and kind"


def _go() -> Iterator[str]:
    if _is_built():
        return
    wanted = ".".join(map(str, GO))
    remedy = f"install it from https://go.dev/dl and put its bin/ on PATH ({_go_package()}), or install Docker and kind"
    what = f"Go {wanted} or newer, which builds Kubernetes, once"
    found = find_program("go")
    if found is None:
        usual = Path("/usr/local/go/bin")
        if (usual / "go").exists():
            remedy = f'it is in {usual}, which is not on PATH: export PATH="$PATH:{usual}"'
        yield f"{what}: {remedy}"
        return
    said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"go(\d+)\.(\d+)", said)
    version = (int(number[1]), int(number[2])) if number else (0, 0)
    if version < (GO if os.environ.get("GOTOOLCHAIN") == "local" else GO_THAT_FETCHES):
        yield f"{what} ({found} is {version[0]}.{version[1]}): {remedy}"


def _go_package() -> str:
    """Where Debian's is new enough."""
    return "Debian 13 and newer: apt-get install golang-go" if platform.system() == "Linux" else "or a package manager"


def _room(place: Path, wanted: int, what: str) -> Iterator[str]:
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        yield (
            f"{wanted / GIGABYTE:.0f} GB of disk for {what}: {there} has {free / GIGABYTE:.1f} GB free. See what takes"
            f" it: du -xh -d1 {there} | sort -h"
        )


def _memory(wanted: int) -> Iterator[str]:
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    available = int(found[1]) * 1024 if found else wanted
    if available < wanted:
        yield (
            f"{wanted / GIGABYTE:.1f} GB of memory for Kubernetes and its pods: {available / GIGABYTE:.1f} GB are"
            " available. See what takes it: ps -eo rss,comm --sort=-rss | head"
        )


def _is_built() -> bool:
    layout = Layout.of(DEFAULT_NAME)
    return binaries.kubernetes_path(layout).exists() and binaries.pause_path(layout).exists()


def _is_new() -> bool:
    """Whether there are no images yet."""
    return not (cache_directory() / "buildah").exists()


def _may_install() -> bool:
    return os.geteuid() == 0 and find_program("apt-get") is not None


def _install(*names: str) -> str:
    words = " ".join(names)
    if find_program("apt-get") is None:
        return f"install them with this system's package manager (Debian's names: {words})"
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {words}"


Check = Callable[[], Iterator[str]]

TARGETS: dict[str, tuple[Check, ...]] = {
    "setup": (_setup,),
    "servers": (_servers,),
    "cluster": (_cluster,),
    "demo": (_setup, _image_of_ours, _cluster),
    "test": (_setup, _servers, _root, _cluster, _go),
}
