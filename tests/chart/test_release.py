"""`make release` in a copy of the repository: everything is built for real, nothing is published."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hack.release import building, checks, publishing
from hack.release.plan import Plan, ReleaseError

ROOT = Path(__file__).parents[2]
VERSION = checks.version(ROOT)
REGISTRY = "registry.example.com/bus"


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is here, committed, with a changelog that has a section for the version."""
    directory = tmp_path_factory.mktemp("release")
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name, follow_symlinks=False)
    changelog = directory / "CHANGELOG.md"
    changelog.write_text(
        changelog.read_text().replace("## [Unreleased]", f"## [Unreleased]\n\n## [{VERSION}] - 2026-01-02")
    )
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "release")
    return directory


def make_release(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = [ROOT / ".cache" / "uv" / "bin", os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(map(str, places)), "PYTHONPATH": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "hack.release", *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(copy: Path) -> tuple[Path, str]:
    """Where the artefacts are, and what was said."""
    done = make_release(copy, "--no-image", "--registry", REGISTRY)
    assert "problem:" not in done.stderr, done.stderr
    assert "nothing was published" in done.stdout, done.stdout + done.stderr
    # cosign is in no package of Debian, Python or npm: where it is missing, that is said, with the remedy.
    missing = [line for line in done.stderr.splitlines() if line.startswith("missing: ")]
    assert all("https://" in line or "install" in line for line in missing)
    assert done.returncode == bool(missing)
    return copy / "build" / "release", done.stdout


def test_what_is_built(built: tuple[Path, str]) -> None:
    directory, _ = built
    names = {path.name for path in directory.iterdir()}
    assert names == {
        f"pgmq_bus-{VERSION}-py3-none-any.whl",
        f"pgmq_bus-{VERSION}.tar.gz",
        f"pgmq-bus-{VERSION}.tgz",
        f"pgmq-bus-{VERSION}.cdx.json",
        "checksums.txt",
    }
    for line in (directory / "checksums.txt").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest
        names.remove(name)
    assert names == {"checksums.txt"}


def test_the_wheel_is_whole(built: tuple[Path, str]) -> None:
    (wheel,) = built[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"pgmq_bus-{VERSION}.dist-info/METADATA").decode()
        scripts = archive.read(f"pgmq_bus-{VERSION}.dist-info/entry_points.txt").decode()
        names = archive.namelist()
    assert len(set(names)) == len(names)
    assert {
        f"pgmq_bus-{VERSION}.dist-info/licenses/LICENSE",
        "bus_operator/crds/buschannels.yaml",
        "bus_operator/errors.md",
    } <= set(names)
    assert f"\nVersion: {VERSION}\n" in metadata
    # By the names that kubectl looks for.
    for line in (
        "kubectl-bus = bus_operator.cli:main",
        "kubectl_complete-bus = bus_operator.cli.kubectl_completion:main",
    ):
        assert line in scripts.splitlines()


def test_the_chart_leads_to_the_image_and_says_what_is_new(
    built: tuple[Path, str], helm: Callable[..., str], copy: Path
) -> None:
    package = built[0] / f"pgmq-bus-{VERSION}.tgz"
    manifests = yaml.safe_load_all(helm("template", "bus", str(package)))
    images = {
        container["image"]
        for manifest in manifests if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
    }  # fmt: skip
    assert images == {f"{REGISTRY}/pgmq-bus:{VERSION}"}
    with tarfile.open(package) as archive:
        file = archive.extractfile("pgmq-bus/Chart.yaml")
        assert file is not None
        annotations = yaml.safe_load(file)["annotations"]
    changes = yaml.safe_load(annotations["artifacthub.io/changes"])
    assert len(changes) == len(checks.changelog(copy, VERSION)) > 5
    assert {change["kind"] for change in changes} <= {kind.lower() for kind in checks.KINDS}
    (image,) = yaml.safe_load(annotations["artifacthub.io/images"])
    assert {image["image"]} == images


def test_the_bill_of_materials_has_what_the_lock_says(built: tuple[Path, str]) -> None:
    bill = json.loads((built[0] / f"pgmq-bus-{VERSION}.cdx.json").read_text())
    assert list(building.bill_problems(bill, VERSION)) == []
    locked = {one["name"]: one["version"] for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    listed = {part["name"]: part["version"] for part in bill["components"]}
    assert {"asyncpg", "kopf", "kubernetes", "pgmq", "pydantic-core"} <= listed.keys()
    assert not {"pytest", "ruff", "pipecat-ai"} & listed.keys()
    assert listed.items() <= locked.items()


def test_each_step_is_shown(built: tuple[Path, str]) -> None:
    _, said = built
    image, chart = f"{REGISTRY}/pgmq-bus@", f"{REGISTRY}/charts/pgmq-bus@"
    parts = (
        f"oci://{REGISTRY}/charts",
        f"cosign sign --yes {image}",
        f"cosign sign --yes {chart}",
        "cosign attest",
        "cosign sign-blob",
        f"git tag --annotate v{VERSION}",
        "uv publish",
    )
    assert [part for part in parts if part not in said] == []


@pytest.fixture
def changed(copy: Path) -> Iterator[Path]:
    yield copy
    git(copy, "reset", "--quiet", "--hard")
    git(copy, "clean", "--quiet", "-fd")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("charts/pgmq-bus/Chart.yaml", f"appVersion: {VERSION}", "appVersion: 9.9.9", "appVersion has 9.9.9"),
        ("bus_runtime/_version.py", VERSION, "9.9.9", "bus_runtime/_version.py has 9.9.9"),
        ("crds/buschannels.yaml", f"version: {VERSION}", "version: 9.9.9", "is not what the chart has"),
        ("CHANGELOG.md", f"## [{VERSION}]", "## [9.9.9]", f"no entries under '## [{VERSION}]"),
        ("README.md", "pgmq-bus", "bus", "the tree is not clean"),
    ],
)
def test_what_is_refused(changed: Path, file: str, old: str, new: str, said: str) -> None:
    path = changed / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = list(checks.problems(changed))
    assert any(said in problem for problem in found), found


def test_a_schema_that_was_released_must_be_frozen(changed: Path) -> None:
    """As hack/former.py does it: upgrades from it are tested then."""
    assert list(checks.problems(changed)) == []
    git(changed, "tag", "v0.0.1")
    git(changed, "mv", "operator/bus_operator/sql/migrations/0006_silence.sql",
        "operator/bus_operator/sql/migrations/0099_silence.sql")  # fmt: skip
    try:
        (found,) = (problem for problem in checks.problems(changed) if "COMMITS" in problem)
        assert "v0.0.1 has schema version 6" in found
    finally:
        git(changed, "tag", "--delete", "v0.0.1")


def test_a_publication_goes_on_where_it_was(copy: Path, tmp_path: Path) -> None:
    class Elsewhere(Plan):
        @property
        def output(self) -> Path:
            return tmp_path

    plan = Elsewhere(copy, VERSION, REGISTRY, "cosign.key")
    commands = [step.command for step in publishing.steps(plan)]
    tried: list[list[str]] = []

    def execute(command: list[str]) -> int:
        tried.append(command)
        return int(len(tried) == 3)

    with pytest.raises(ReleaseError, match="attest bill of materials failed with status 1"):
        publishing.publish(plan, execute)
    assert tried == commands[:3]
    publishing.publish(plan, execute)
    assert tried == [*commands[:3], *commands[2:]]
    with pytest.raises(ReleaseError, match="another registry"):
        publishing.publish(Elsewhere(copy, VERSION, "another.example.com", "cosign.key"), execute)


def test_nothing_is_published_by_mistake(copy: Path) -> None:
    done = make_release(copy, "--publish")
    assert done.returncode == 2
    assert "--publish takes --registry" in done.stderr
