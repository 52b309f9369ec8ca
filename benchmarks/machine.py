"""What the figures depend on: processors, versions, and how long a flush to the disk takes."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.statistics import percentile

_PACKAGES = ("asyncpg", "cryptography", "nats-py", "orjson", "pgmq", "pipecat-ai", "redis")
_BLOCK = 8192
_FLUSHES = 300
_FLUSH_SECONDS = 5.0
_REPOSITORY = Path(__file__).resolve().parent.parent


def flush_milliseconds(directory: Path) -> dict[str, float]:
    """How long fdatasync takes after overwriting 8 KiB of a file, as PostgreSQL does with its log; median and p99."""
    path = directory / "flush"
    block = os.urandom(_BLOCK)
    times = []
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, bytes(_BLOCK * 2048), 0)
        os.fsync(file)
        deadline = time.monotonic() + _FLUSH_SECONDS
        for number in range(_FLUSHES):
            os.pwrite(file, block, number * _BLOCK)
            began = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - began) * 1000)
            if time.monotonic() > deadline:
                break
    finally:
        os.close(file)
        path.unlink()
    times.sort()
    return {"p50": round(percentile(times, 0.5), 3), "p99": round(percentile(times, 0.99), 3)}


def file_system(directory: Path) -> str:
    """The type of the file system that holds the directory, from proc(5)."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The checkout's commit, marked when files differ from it; `unknown` outside of a checkout."""
    git = ["git", "-C", str(_REPOSITORY)]
    found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def describe(directory: Path, packages: Iterable[str] = _PACKAGES) -> dict[str, Any]:
    """The machine, the versions of `packages`, and the disk that holds `directory`."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "file_system": file_system(directory),
        "flush_ms": flush_milliseconds(directory),
    }
