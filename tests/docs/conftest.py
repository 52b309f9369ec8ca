"""The site, built once."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from hack.docs.pages import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """As `make docs` builds it: a warning is an error. Processes that share the tests share it, too."""
    temporary = tmp_path_factory.getbasetemp()
    directory = (temporary if worker_id == "master" else temporary.parent) / "site"
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            command = [sys.executable, "-m", "hack.docs", str(directory)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert not done.stderr, done.stderr
    return directory
