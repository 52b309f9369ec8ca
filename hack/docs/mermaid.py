"""mermaid, which draws the pictures in the reader's browser: one file of its npm package, served by the site itself.

The theme would load it from elsewhere, which a reader without a way there, or one who is careful, does not get.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_VERSION = "11.12.2"
_INTEGRITY = "sha512-n34QPDPEKmaeCG4WDMGy0OT6PSyxKCfy2pJgShP+Qow2KLrvWjclwbc3yXfSIf4BanqWEhQEpngWwNp/XhZt6w=="
"""Digest of the package's archive, as a lock file of npm has it."""


def script() -> Path:
    """Where the file is, installed or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pgmq-bus" / f"mermaid-{_VERSION}.min.js"


def is_installed() -> bool:
    """Whether it is there."""
    return script().exists()


def install() -> None:
    """Puts it into the user's cache, as a whole or not at all. Needs npm."""
    if shutil.which("npm") is None:
        sys.exit("this needs npm: on Debian, apt-get install npm")
    script().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=script().parent) as made:
        subprocess.run(
            ["npm", "pack", "--silent", f"mermaid@{_VERSION}"], cwd=made, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(made).glob("*.tgz")
        if _integrity(archive) != _INTEGRITY:
            raise RuntimeError(f"{archive.name} is not the archive that was looked at: {_integrity(archive)}")
        with tarfile.open(archive) as package:
            package.extract("package/dist/mermaid.min.js", made, filter="data")
        (Path(made) / "package/dist/mermaid.min.js").rename(script())


def _integrity(archive: Path) -> str:
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"
