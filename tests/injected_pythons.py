"""The Pythons of this machine, to try the injected bus_runtime."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hack.runtime_bundle import PYTHONS


def interpreters() -> Iterator[tuple[str, str]]:
    """Version and path of each CPython of this machine: on the PATH, and where pyenv keeps them."""
    found = [shutil.which(f"python3.{minor}") for minor in range(6, 20)]
    found += [str(path) for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3"))]
    seen = set()
    for path in (sys.executable, *filter(None, found)):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        # pyenv's names of Pythons that are not chosen are there and fail.
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and version not in seen:
            seen.add(version)
            yield version, path


FOUND = dict(interpreters())
SUPPORTED = {version: path for version, path in FOUND.items() if version in PYTHONS}
OTHERS = {version: path for version, path in FOUND.items() if version not in PYTHONS}
