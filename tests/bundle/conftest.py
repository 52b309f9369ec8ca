"""The bundle of bus_runtime, made of real wheels as the Dockerfile makes it."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.cluster.layout import cache_directory
from hack.runtime_bundle.__main__ import install_all, make, write_requirements

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip installs for each Python: a download of 40 MB, kept until the lock changes."""
    wanted = tmp_path_factory.mktemp("requirements")
    write_requirements(ROOT / "uv.lock", wanted)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(wanted.iterdir()))).hexdigest()[:12]
    kept = cache_directory() / f"bundle-{digest}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for former in kept.parent.glob("bundle-*"):
                shutil.rmtree(former)
            unfinished = kept.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            install_all(wanted, unfinished)
            unfinished.rename(kept)
    return kept


@pytest.fixture(scope="session")
def bundle(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a pod has it mounted."""
    output = tmp_path_factory.mktemp("bundle")
    make(wheels, ROOT / "pyproject.toml", output)
    shutil.copytree(ROOT / "bus_runtime", output / "lib" / "bus_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return output


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A Python without any package, as in an image that has only that."""
    made: dict[str, Path] = {}

    def of(path: str) -> Path:
        if path not in made:
            directory = tmp_path_factory.mktemp("python")
            subprocess.run([path, "-m", "venv", "--without-pip", str(directory)], check=True)
            made[path] = directory / "bin" / "python"
        return made[path]

    return of
