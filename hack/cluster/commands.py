"""Running other programs to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .console import ClusterError

# Debian keeps these out of the path of a plain user, and out of that of `su`.
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
ERROR_LINES = 25


def search_path() -> str:
    """Return PATH with the directories for system programs added."""
    present = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*present, *(d for d in SYSTEM_DIRECTORIES if d not in present)])


def find_program(name: str) -> str | None:
    """Return the path of an installed program, or None."""
    return shutil.which(name, path=search_path())


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with `search_path` and `extra`."""
    return {**os.environ, "PATH": search_path(), **(extra or {})}


def run(
    argv: list[str], *, stdin: str | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Run a program to its end and return its standard output.

    Raises:
        ClusterError: it is not installed or failed; the text carries the end of its standard error.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, env=environment(env), cwd=cwd, text=True, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise ClusterError(f"{argv[0]} is not installed, or not on PATH") from None
    if done.returncode != 0:
        complaint = "\n".join((done.stderr or done.stdout).strip().splitlines()[-ERROR_LINES:])
        raise ClusterError(f"`{' '.join(argv)}` failed with status {done.returncode}:\n{complaint}")
    return done.stdout


def succeeds(argv: list[str]) -> bool:
    """Return whether a program is installed and ends with status 0."""
    try:
        return subprocess.run(argv, env=environment(), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
