"""Whether a tree can be released: it is clean, all places agree on the version, and upgrades to it are tested."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from hack import former
from hack.release.plan import CHART, NAME, run

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""Sections of the changelog; in lower case they are Artifact Hub's kinds of changes."""


def version(root: Path) -> str:
    """The project's, which all other places must have too."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def problems(root: Path) -> Iterator[str]:
    """Why this tree cannot be released."""
    expected = version(root)
    if changed := run(root, "git", "status", "--porcelain"):
        yield f"the tree is not clean: commit or stash {len(changed.splitlines())} files (git status)"
    for place, found in _versions(root):
        if found != expected:
            yield f"{place} has {found}, pyproject.toml {expected}: they must agree"
    for path in sorted((root / "crds").glob("*.yaml")):
        if path.read_text() != (root / CHART / "crds" / path.name).read_text():
            yield f"crds/{path.name} is not what the chart has: cp crds/*.yaml {CHART}/crds/"
    if not changelog(root, expected):
        yield f"CHANGELOG.md has no entries under '## [{expected}] - DATE': rename [Unreleased], and begin another one"
    yield from _former_problems(root)
    tag = f"v{expected}"
    tagged = run(root, "git", "tag", "--list", tag, "--format", "%(objectname) %(*objectname)").split()
    if tagged and run(root, "git", "rev-parse", "HEAD").strip() not in tagged:
        yield f"tag {tag} is another commit: give this release a new version"


def _versions(root: Path) -> Iterator[tuple[str, str]]:
    chart = yaml.safe_load((root / CHART / "Chart.yaml").read_text())
    yield f"{CHART}/Chart.yaml: version", str(chart["version"])
    yield f"{CHART}/Chart.yaml: appVersion", str(chart["appVersion"])
    for path in sorted((root / "crds").glob("*.yaml")):
        annotations = yaml.safe_load(path.read_text())["metadata"]["annotations"]
        yield f"crds/{path.name}: annotation pgmqbus.dev/version", str(annotations["pgmqbus.dev/version"])
    text = (root / "bus_runtime" / "_version.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    yield "bus_runtime/_version.py", found[1] if found else "none"
    locked = tomllib.loads((root / "uv.lock").read_text())["package"]
    yield "uv.lock", next(str(package["version"]) for package in locked if package["name"] == NAME)


def _former_problems(root: Path) -> Iterator[str]:
    """Each schema version that a release had is tested for upgrades: hack/former.py freezes it."""
    frozen = {int(path.stem.partition("-")[2]) for path in (root / "tests" / "former").glob("schema-*.zip")}
    for number in sorted(former.COMMITS.keys() - frozen):
        yield f"tests/former/schema-{number}.zip is missing: run python hack/former.py"
    present = max(int(path.name[:4]) for path in (root / "operator/bus_operator/sql/migrations").glob("*.sql"))
    for tag in run(root, "git", "tag", "--list", "v*").split():
        listed = run(root, "git", "ls-tree", "--name-only", tag, "operator/bus_operator/sql/migrations/").split()
        released = max((int(Path(name).name[:4]) for name in listed), default=present)
        if released != present and released not in former.COMMITS:
            yield (
                f"{tag} has schema version {released}, and hack/former.py knows no commit of it: add it to COMMITS and"
                " run python hack/former.py, so that upgrades from it are tested"
            )


def changelog(root: Path, release: str) -> list[tuple[str, str]]:
    """Kind and text of each entry of a release."""
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[{re.escape(release)}\].*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    entries: list[tuple[str, str]] = []
    kind = ""
    for line in (found[1] if found else "").splitlines():
        if line.startswith("### "):
            kind = line.removeprefix("### ").strip()
        elif line.startswith("- ") and kind in KINDS:
            entries.append((kind, line.removeprefix("- ")))
        elif line.startswith("  ") and entries:
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
    return entries
