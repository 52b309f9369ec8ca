"""The artefacts of a release, into build/release/."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.buildah import Buildah
from hack.cluster.console import ClusterError
from hack.cluster.layout import DEFAULT_NAME, Layout
from hack.release.checks import changelog
from hack.release.plan import CHART, NAME, Plan, ReleaseError, run


def build(plan: Plan) -> None:
    """Makes all artefacts anew. Raises ReleaseError."""
    shutil.rmtree(plan.output, ignore_errors=True)
    plan.output.mkdir(parents=True)
    for what, make in BUILDS.items():
        if what == "image" and not plan.with_image:
            print("==> image: left out (--no-image)", flush=True)
            continue
        print(f"==> {what}", flush=True)
        make(plan)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in artefacts(plan)]
    (plan.output / "checksums.txt").write_text("\n".join(lines) + "\n")


def artefacts(plan: Plan) -> list[Path]:
    """The files that are published, without their checksums."""
    return sorted(path for path in plan.output.iterdir() if path.suffix in (".whl", ".gz", ".tgz", ".json"))


def _distributions(plan: Plan) -> None:
    """Wheel and sdist. What is in them must not depend on when they are made: the time is the commit's."""
    epoch = run(plan.root, "git", "log", "-1", "--format=%ct").strip()
    os.environ["SOURCE_DATE_EPOCH"] = epoch
    run(plan.root, "uv", "build", "--quiet", "--out-dir", str(plan.output))
    (plan.output / ".gitignore").unlink(missing_ok=True)
    (wheel,) = plan.output.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for needed in (
        "bus_runtime/py.typed",
        "bus_operator/sql/schema.sql",
        "bus_operator/crds/buschannels.yaml",
        "bus_operator/errors.md",
    ):
        if needed not in names:
            raise ReleaseError(f"{wheel.name} lacks {needed}")


def _chart(plan: Plan) -> None:
    """As the repository has it, with where its image is and what is new."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, NAME)
        shutil.copytree(plan.root / CHART, copy)
        _replace(copy / "values.yaml", f"repository: {NAME}\n", f"repository: {plan.image}\n")
        _replace(copy / "README.md", f'`"{NAME}"`', f'`"{plan.image}"`')
        described = yaml.safe_load((copy / "Chart.yaml").read_text())
        described["annotations"] |= annotations(plan)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(described, sort_keys=False, width=120, allow_unicode=True))
        run(plan.root, "helm", "lint", "--strict", str(copy))
        run(plan.root, "helm", "package", str(copy), "--destination", str(plan.output))


def annotations(plan: Plan) -> dict[str, str]:
    """What Artifact Hub is told of this one release."""
    entries = changelog(plan.root, plan.version)
    changes = [{"kind": kind.lower(), "description": text} for kind, text in entries]
    images = [{"name": NAME, "image": f"{plan.image}:{plan.version}"}]
    return {
        "artifacthub.io/changes": yaml.safe_dump(changes, sort_keys=False, allow_unicode=True),
        "artifacthub.io/containsSecurityUpdates": json.dumps(any(kind == "Security" for kind, _ in entries)),
        "artifacthub.io/images": yaml.safe_dump(images, sort_keys=False),
        "artifacthub.io/prerelease": json.dumps("-" in plan.version),
    }


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if text.count(old) != 1:
        raise ReleaseError(f"{path.name} has {old.strip()!r} {text.count(old)} times, once was expected")
    path.write_text(text.replace(old, new))


def _bill_of_materials(plan: Plan) -> None:
    """What the image and an installation with [operator] hold, as uv.lock says."""
    options = ["--frozen", "--quiet", "--no-default-groups", "--extra", "operator", "--extra", "direct"]
    text = run(plan.root, "uv", "export", *options, "--format", "cyclonedx1.5", "--preview")
    bill = json.loads(text)
    if complaints := list(bill_problems(bill, plan.version)):
        raise ReleaseError("the bill of materials is not whole: " + "; ".join(complaints))
    (plan.output / f"{NAME}-{plan.version}.cdx.json").write_text(text)


def bill_problems(bill: dict[str, Any], release: str) -> Iterator[str]:
    """What is wrong with a CycloneDX document: of the project, each part once, none left over."""
    if bill.get("bomFormat") != "CycloneDX":
        yield "it is not CycloneDX"
        return
    subject = bill["metadata"]["component"]
    if (subject["name"], subject.get("version")) != (NAME, release):
        yield f"it is of {subject['name']} {subject.get('version')}, not of {NAME} {release}"
    references = [part["bom-ref"] for part in [subject, *bill["components"]]]
    if len(set(references)) != len(references):
        yield "a component is there twice"
    for part in bill["components"]:
        expected = f"pkg:pypi/{part['name']}@{part['version']}"
        if not part.get("purl", "").startswith(expected):
            yield f"{part['name']} has no package URL {expected}"
    for relation in bill["dependencies"]:
        if unknown := {relation["ref"], *relation.get("dependsOn", ())} - set(references):
            yield f"{', '.join(sorted(unknown))}: no such component"


def _image(plan: Plan) -> None:
    """By buildah, from the Dockerfile, into the store of the tests' images."""
    buildah = Buildah(Layout.of(DEFAULT_NAME))
    try:
        base = buildah.base() if plan.base == "local" else plan.base
        arguments = {"BASE_IMAGE": base} if base else {}
        buildah.build(f"{plan.image}:{plan.version}", plan.root, plan.root / "Dockerfile", arguments)
    except ClusterError as exc:
        raise ReleaseError(f"the image cannot be built: {exc}") from exc


BUILDS: dict[str, Callable[[Plan], None]] = {
    "wheel and sdist": _distributions,
    "chart": _chart,
    "bill of materials": _bill_of_materials,
    "image": _image,
}
