"""Freezes former versions for the tests: `python hack/former.py` writes tests/former/schema-<n>.zip.

Each holds the operator and the runtime as they were at the last commit with that schema version, out of the
repository's own history: no network. With the archive on PYTHONPATH they run as they did. To add one when the schema
version grows, name the commit before the migration landed. Running it again makes the same files, byte for byte.
"""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

COMMITS = {
    2: "b54e22b5635d9bc89803f219cff091eb9efd73e9",
    3: "d532b2a15c795fee2d71062ff8ccd336a3d816e2",
}
"""The last commit of each schema version that was in use. Version 1 never was: the first operator installed 2."""

FOLDERS = {"bus_runtime": "", "operator/bus_operator": "operator/"}
"""What goes in, and what of its path is left out."""

_KUBERNETES = """
cli/ certificate serving_certificates channel_reconciler controller database_reconciler handlers health injection
inventory kube logs main reconcile reporting selection settings webhook workqueue
"""
UNUSED = tuple(f"bus_operator/{name}" for name in _KUBERNETES.split())
"""Left out: what speaks with Kubernetes."""

EPOCH = (1980, 1, 1, 0, 0, 0)


def freeze(version: int, commit: str) -> Path:
    """Writes the archive of one version."""
    done = subprocess.run(["git", "archive", commit, *FOLDERS], cwd=ROOT, check=True, capture_output=True)
    target = ROOT / "tests" / "former" / f"schema-{version}.zip"
    target.parent.mkdir(exist_ok=True)
    with (
        tarfile.open(fileobj=io.BytesIO(done.stdout)) as source,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            folder = next((folder for folder in FOLDERS if member.name.startswith(f"{folder}/")), None)
            content = source.extractfile(member) if member.isfile() else None
            if folder is None or content is None:
                continue
            name = member.name.removeprefix(FOLDERS[folder])
            if not name.startswith(UNUSED):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content.read(), zipfile.ZIP_DEFLATED, 9)
    return target


if __name__ == "__main__":
    for number, commit in COMMITS.items():
        written = freeze(number, commit)
        print(f"{written.relative_to(ROOT)}: {written.stat().st_size:,} bytes")
