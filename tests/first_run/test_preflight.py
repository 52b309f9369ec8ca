"""README's two commands on a machine that lacks something: a line each, with what helps. For real, in namespaces."""

import ast
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEW_CACHE = "/nonexistent/cache"
"""Nothing is built yet."""

Try = Callable[..., list[str]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh one, as far as make and the checks look, in a directory with a space in its name."""
    directory = tmp_path_factory.mktemp("first run") / "a checkout"
    directory.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, directory)
    shutil.copytree(ROOT / "hack", directory / "hack", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


@pytest.fixture
def attempt(checkout: Path) -> Try:
    """Asks what is missing for a target, after `lose` has taken something away in a mount namespace of its own."""

    def run(target: str, *, lose: str = "", drop: str = "", **environment: str) -> list[str]:
        command = f"{drop} {shlex.join([sys.executable, '-m', 'hack.preflight', *target.split()])}"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CLUSTER", "KUBECONFIG", "GOTOOLCHAIN") and "PROXY" not in name.upper()
        }
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-euc", f"{lose}\nexec {command}"],
            cwd=checkout, env=inherited | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        lines = done.stderr.splitlines()
        assert done.returncode == bool(lines), done.stderr
        assert all(line.startswith("missing: ") for line in lines), done.stderr
        return [line.removeprefix("missing: ") for line in lines]

    return run


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., str]:
    """A PATH on which there is nothing but these."""

    def only(*names: str) -> str:
        directory = tmp_path / "programs"
        directory.mkdir()
        for name in names:
            found = shutil.which(name)
            assert found is not None, name
            (directory / name).symlink_to(found)
        return str(directory)

    return only


def one(lines: list[str], beginning: str) -> str:
    (found,) = (line for line in lines if line.startswith(beginning))
    return found


@pytest.mark.parametrize("target", ["setup", "servers", "cluster", "demo", "test"])
def test_nothing_is_missing_here(attempt: Try, target: str) -> None:
    assert attempt(target) == []


def test_the_program_runs_on_any_python_3() -> None:
    text = (ROOT / "hack" / "preflight" / "__main__.py").read_text()
    ast.parse(text, feature_version=(3, 4))
    assert not re.search(r"\bf[\"']", text)


def test_an_old_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hack.preflight import __main__ as preflight

    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert preflight.main() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"missing: Python 3.11 or newer ({sys.executable} is 3.9.2): ")
    assert "make PYTHON=python3." in said


def test_no_python(checkout: Path, programs: Callable[..., str]) -> None:
    done = subprocess.run(
        [shutil.which("make") or "make", "setup"],
        cwd=checkout, env={"PATH": programs("awk")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("missing: python3, by which everything here runs (3.11 or newer): apt-get install")


def test_no_venv(attempt: Try, tmp_path: Path) -> None:
    library = Path(os.__file__).parent / "ensurepip"
    (empty := tmp_path / "empty").mkdir()
    found = attempt(
        "setup", lose=f"mount --bind {empty} {library}", PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin"
    )
    assert "apt-get install python3-venv" in one(found, "venv and pip")


def test_a_checkout_that_cannot_be_written(attempt: Try) -> None:
    found = attempt("setup", lose='mount --bind "$PWD" "$PWD"; mount -o remount,bind,ro "$PWD"; cd "$PWD"')
    assert "git clone" in one(found, "a checkout that can be written")


def test_no_room(attempt: Try, tmp_path: Path) -> None:
    lose = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    found = attempt("demo", lose=lose, XDG_CACHE_HOME=str(tmp_path))
    assert "has 0.0 GB free. See what takes it: du" in one(found, "4 GB of disk for images and pods")
    found = attempt(
        "setup", lose=f'cp -r . {tmp_path}/; mount -t tmpfs -o size=2m tmpfs "$PWD"; cd "$PWD"; cp -r {tmp_path}/. .'
    )
    assert "has 0.0 GB free" in one(found, "1 GB of disk for the development environment")


def test_little_memory(attempt: Try, tmp_path: Path) -> None:
    (little := tmp_path / "meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable:     500000 kB\n")
    found = attempt("demo", lose=f"mount --bind {little} /proc/meminfo")
    assert "0.5 GB are available" in one(found, "1.5 GB of memory")


def test_no_go(attempt: Try, programs: Callable[..., str]) -> None:
    path = programs("bash", "mount", "unshare", "apt-get")
    found = attempt("demo", PATH=path, lose="mount -t tmpfs tmpfs /usr/local", XDG_CACHE_HOME=NEW_CACHE)
    assert "https://go.dev/dl" in one(found, "Go 1.24 or newer, which builds Kubernetes, once")


def test_go_that_is_not_on_the_path(attempt: Try, programs: Callable[..., str]) -> None:
    path = programs("bash", "mount", "unshare", "apt-get", "mkdir", "touch")
    lose = "mount -t tmpfs tmpfs /usr/local; mkdir -p /usr/local/go/bin; touch /usr/local/go/bin/go"
    found = attempt("demo", PATH=path, lose=lose, XDG_CACHE_HOME=NEW_CACHE)
    assert 'export PATH="$PATH:/usr/local/go/bin"' in one(found, "Go 1.24 or newer")


def test_an_old_go(attempt: Try, tmp_path: Path) -> None:
    """As in Debian 12. From 1.21 on it fetches a newer one of itself, unless it was told not to."""
    program = tmp_path / "go"
    path = f"{tmp_path}:{os.environ['PATH']}"
    for said, settings, is_enough in (
        ("1.19.8", {}, False), ("1.22.1", {}, True), ("1.22.1", {"GOTOOLCHAIN": "local"}, False), ("1.25.0", {}, True),
    ):  # fmt: skip
        program.write_text(f"#!/bin/sh\necho go version go{said} linux/amd64\n")
        program.chmod(0o755)
        found = attempt("demo", PATH=path, XDG_CACHE_HOME=NEW_CACHE, **settings)
        assert any(line.startswith("Go 1.24 or newer") for line in found) is not is_enough
        if not is_enough:
            assert f"({program} is {said.rpartition('.')[0]})" in one(found, "Go 1.24")


NOBODY = (
    "setpriv --reuid 65534 --inh-caps +dac_read_search,+dac_override --ambient-caps +dac_read_search,+dac_override --"
)


def test_no_root(attempt: Try) -> None:
    found = attempt("demo", drop=NOBODY)
    assert 'sudo env "PATH=$PATH" make' in one(found, "root, since a node runs pods")


def test_no_root_and_no_packages(attempt: Try) -> None:
    found = attempt("test", drop=NOBODY, lose="mount -t tmpfs tmpfs /usr/sbin")
    said = "\n".join(found)
    assert re.search("iptables.*, of which a node is made: sudo apt-get install .*iptables", said)
    assert re.search("pgbouncer.*, which the tests start: sudo apt-get install .*pgbouncer", said)


def test_no_debian(attempt: Try, programs: Callable[..., str], tmp_path: Path) -> None:
    """Packages must be installed by hand, and images cannot be made."""
    (release := tmp_path / "os-release").write_text('NAME="Fedora Linux"\nID=fedora\n')
    path = programs("bash", "mount", "unshare", "go", "readlink")
    lose = f'mount --bind {release} "$(readlink -f /etc/os-release)"; mount -t tmpfs tmpfs /usr/sbin'
    found = attempt("demo", PATH=path, lose=lose, XDG_CACHE_HOME=NEW_CACHE)
    assert "(Debian's names: containerd runc" in one(found, "containerd, runc")
    assert "(this is Fedora Linux): install Docker and kind" in one(found, "Debian, of whose packages")


def test_a_container_without_privileges(attempt: Try) -> None:
    unprivileged = "setpriv --bounding-set -sys_admin,-net_admin --inh-caps -sys_admin,-net_admin --"
    assert "--privileged" in one(attempt("demo", drop=unprivileged), "the rights to mount and to make networks")


def test_control_groups_that_cannot_be_written(attempt: Try) -> None:
    lose = "for each in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $each; done"
    assert "--privileged" in one(attempt("demo", lose=lose), "control groups that can be written")


def test_kind_that_is_asked_for_and_not_there(attempt: Try, programs: Callable[..., str], tmp_path: Path) -> None:
    path = programs("bash", "unshare")
    found = attempt("demo", PATH=path, XDG_CACHE_HOME=str(tmp_path), CLUSTER="kind")
    assert "https://kind.sigs.k8s.io" in one(found, "kind, which makes the cluster")
    assert "docker.io" in one(found, "Docker, in which kind")


def test_a_cluster_of_ones_own(attempt: Try, programs: Callable[..., str], tmp_path: Path) -> None:
    """Which cannot be for the demo, since nobody knows where it takes images from."""
    found = attempt("cluster", PATH=programs("bash", "unshare"), CLUSTER="current")
    assert "https://kubernetes.io" in one(found, "kubectl, by which")
    found = attempt("cluster", CLUSTER="current", KUBECONFIG=str(tmp_path / "none"))
    assert "kubectl config use-context" in one(found, "a kubeconfig with a current context")
    assert "docs/quickstart.md" in one(attempt("demo", CLUSTER="current"), "a registry that both")


def test_no_network(attempt: Try) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        assert attempt("--after python", UV_DEFAULT_INDEX=there) == []
        assert attempt("--after go", HTTPS_PROXY=there) == []
    found = attempt("--after python", UV_DEFAULT_INDEX=there)
    assert "export HTTPS_PROXY" in one(found, "a network that reaches 127.0.0.1 ([Errno 111] Connection refused)")
    assert "GOPROXY" in one(attempt("--after go", GOPROXY=there), "a network that reaches 127.0.0.1")
