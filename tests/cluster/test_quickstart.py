"""docs/quickstart.md and the README's first message on a cluster: files saved, commands run one after the other."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_cluster import Cluster, Demo
from snippets import Snippet, snippets

from hack.cluster.recipes import RECIPES

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo"
PAGE = "docs/quickstart.md"
TIMEOUT = 300

IMAGE = "pgmq-bus:0.1.0"
"""What the page has Docker build, and kind load. Here what the cluster offers for that does it."""
INSTALL = "helm install pgmq-bus charts/pgmq-bus "
FOLLOW = "kubectl logs subscriber --follow"
OF_HELLO = "kubectl logs deployment/hello --follow"


@pytest.fixture
def programs(bare_cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has kubectl and helm, and whose current context is the cluster."""
    (tmp_path / "bin").mkdir()
    for program in (bare_cluster.program, str(Path(sys.executable).with_name("helm"))):
        (tmp_path / "bin" / Path(program).name).symlink_to(program)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "KUBECONFIG": str(bare_cluster.kubeconfig)}


@pytest.fixture
def checkout(bare_cluster: Cluster, programs: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """Where the page is followed. What a demo left on the cluster is gone, and so is afterwards what the page made."""
    where = tmp_path / "checkout"
    where.mkdir()
    for name in ("charts", "crds"):
        (where / name).symlink_to(ROOT / name)

    def clear() -> None:
        for file in ("publisher", "subscriber", "buschannel", "busdatabase"):
            bare_cluster.kubectl("delete", "-f", str(DEMO / f"{file}.yaml"), "--ignore-not-found", check=False)
        run("helm uninstall pgmq-bus --namespace pgmq-bus --ignore-not-found --wait", where, programs)

    clear()
    yield where
    if bare_cluster.kubectl("get", "deployment", "-n", "pgmq-bus", "pgmq-bus", "--ignore-not-found"):
        # It was not followed to its end.
        bare_cluster.kubectl("delete", "pod/publisher", "pod/subscriber", "configmap/hello", "--ignore-not-found")
        clear()


def run(script: str, where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=where, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def followed(page: str, begin: str, end: str) -> list[Snippet]:
    """What the reader saves and runs between two headings."""
    lines = (ROOT / page).read_text().splitlines()
    part = range(lines.index(begin), lines.index(end))
    return [snippet for snippet in snippets() if snippet.page == page and snippet.line in part]


def save(part: list[Snippet], where: Path, image: str = IMAGE) -> None:
    for snippet in part:
        if snippet.file is not None:
            (where / snippet.file).write_text(snippet.text.replace(IMAGE, image))


@pytest.mark.timeout(1800)
def test_from_nothing_to_messages_and_back(bare_cluster: Cluster, checkout: Path, programs: dict[str, str]) -> None:
    image, postgres = (bare_cluster.load(RECIPES[name]) for name in ("project", "postgres"))
    repository, _, tag = image.rpartition(":")
    settings = f"--set-string image.repository={repository},image.tag={tag},devPostgres.image={postgres} "

    # Down to where the page goes on with what is there already.
    part = followed(PAGE, "# Quickstart", "## On the cluster of `make demo`")
    save(part, checkout, image)
    built, *commands = [snippet.text for snippet in part if snippet.language == "sh"]
    assert f"docker build --tag {IMAGE} ." in built
    script = "\n".join(commands)
    assert INSTALL in script
    assert FOLLOW in script
    # A reader stops it.
    script = script.replace(FOLLOW, f"timeout 60 {FOLLOW} | grep --max-count=3 'to bill'")
    printed = run(script.replace(INSTALL, INSTALL + settings), checkout, programs)
    orders = [int(number) for number in re.findall(r"^to bill: A-(\d+)$", printed, re.MULTILINE)]
    assert orders == [orders[0], orders[0] + 1, orders[0] + 2], printed
    assert 'release "pgmq-bus" uninstalled' in printed


@pytest.mark.timeout(1800)
def test_the_readme_from_the_demo_to_messages_of_ones_own(cluster: Cluster, demo: Demo, tmp_path: Path) -> None:
    part = followed("README.md", "## Your first message", "## Install")
    save(part, tmp_path)
    exports = [line for line in demo.output.splitlines() if line.startswith("  export ")]
    assert len(exports) == 2
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    begin, change, end = [snippet.text for snippet in part if snippet.language == "sh"]
    assert begin.endswith(f"{OF_HELLO}\n")

    def running() -> set[str]:
        return {pod["metadata"]["name"] for pod in cluster.get("pods", "-l", "app=hello")["items"]}

    def heard(what: str = "hello from") -> set[str]:
        """From whom the pod heard whose log is shown."""
        log = run("\n".join([*exports, OF_HELLO.removesuffix(" --follow")]), tmp_path, environment)
        return set(re.findall(rf"^{what} (\S+) at ", log, re.MULTILINE))

    try:
        run("\n".join([*exports, begin.removesuffix(f"{OF_HELLO}\n")]), tmp_path, environment)
        pods = running()
        assert len(pods) == 2
        cluster.wait_until("greetings of both pods in the log of one", lambda: heard() == pods)
        program = tmp_path / "hello.py"
        program.write_text(program.read_text().replace("hello from", "hello again from"))
        run("\n".join([*exports, change]), tmp_path, environment)
        # Those that were there before are heard as well, while they are replaced.
        new = running() - pods
        assert len(new) == 2
        cluster.wait_until("what was changed", lambda: heard("hello again from") >= new)
        run("\n".join([*exports, end]), tmp_path, environment)
        assert not cluster.kubectl("get", "deployment,buschannel,configmap", "hello", "--ignore-not-found")
    finally:
        mine = ("deployment/hello", "buschannel/hello", "configmap/hello")
        cluster.kubectl("delete", *mine, "--ignore-not-found", check=False)
