"""How the bundle of bus_runtime is made and judged, as far as no wheel is needed."""

import importlib.util
import json
import re
import struct
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from bus_operator import runtime_injection
from hack.runtime_bundle import PYTHONS
from hack.runtime_bundle.assemble import platforms
from hack.runtime_bundle.elf import loaded_part
from hack.runtime_bundle.lock import closure, requirements

ROOT = Path(__file__).parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CONTENTS = {
    "pythons": ["3.11", "3.12", "3.13", "3.14"],
    "architecture": "x86_64",
    "glibc": [2, 28],
    "packages": {},
    "needs": [
        {"by": "pgmq-bus", "package": "pydantic", "bounds": [[">=", "2.11"]]},
        {"by": "pydantic", "package": "pydantic-core", "bounds": [["==", "2.50.4"]]},
        {"by": "pydantic-core", "package": "typing-extensions", "bounds": [[">=", "4.14.1"], ["!=", "4.15"]]},
    ],
}


def bootstrap() -> Any:
    """The bootstrap's functions; under another name than bus_runtime it loads nothing."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "hack" / "runtime_bundle" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pythons_are_those_that_the_project_is_for() -> None:
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    assert tuple(match[1] for match in named if match) == PYTHONS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("version", PYTHONS)
def test_the_lock_has_a_wheel_of_everything_for_every_python(version: str, machine: str) -> None:
    python = tuple(map(int, version.split(".")))
    fitting: set[Tag] = {*cpython_tags(python, platforms=platforms(machine))}
    fitting |= {*compatible_tags(python, platforms=platforms(machine))}
    found = closure(LOCK, version)
    assert {"asyncpg", "cryptography", "orjson", "pydantic", "pydantic-core"} <= set(found)
    for name, package in found.items():
        wheels = [parse_wheel_filename(wheel["url"].rsplit("/", 1)[1])[3] for wheel in package["wheels"]]
        assert any(not tags.isdisjoint(fitting) for tags in wheels), f"{name} for {version} on {machine}"


def test_requirements_have_hashes_and_no_markers() -> None:
    for line in requirements(LOCK, "3.12"):
        assert re.fullmatch(r"[a-z-]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+", line)


def test_markers_are_judged_by_the_python_asked_for() -> None:
    old = {"name": "old", "version": "1", "wheels": []}
    new = {"name": "new", "version": "1", "wheels": [], "dependencies": [{"name": "old"}]}
    needs = [{"name": "old", "marker": "python_version < '3.12'"}, {"name": "new", "marker": "python_version > '3.13'"}]
    lock = {"package": [{"name": "pgmq-bus", "dependencies": needs}, old, new]}
    assert [set(closure(lock, version)) for version in PYTHONS] == [{"old"}, set(), set(), {"old", "new"}]


def test_two_versions_of_one_package_are_refused() -> None:
    twice = {"name": "twice", "wheels": []}
    lock = {"package": [{"name": "pgmq-bus", "dependencies": [{"name": "twice"}]}, twice, twice]}
    with pytest.raises(ValueError, match="has twice 2 times"):
        closure(lock, "3.11")


def elf(loaded: bytes, debugging: bytes) -> bytes:
    """A shared object of one segment."""
    start = 64 + 56
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, start + len(loaded) + 8, 0, 64, 56, 1, 64, 2, 1
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, start, start, start, len(loaded), len(loaded), 0x1000)
    return header + segment + loaded + debugging


def test_what_only_debuggers_read_is_cut_off() -> None:
    smaller = loaded_part(elf(b"code", b"names of functions"))
    assert smaller.endswith(b"code")
    assert len(smaller) == 64 + 56 + 4
    assert struct.unpack_from("<Q", smaller, 40) == (0,)
    assert struct.unpack_from("<HHH", smaller, 58) == (0, 0, 0)
    assert loaded_part(smaller) == smaller
    assert loaded_part(b"#!/bin/sh\n") == b"#!/bin/sh\n"


@pytest.mark.parametrize(
    ("name", "version", "abi", "glibc", "said"),
    [
        ("CPython", "3.12", "cpython-312-x86_64-linux-musl", None, "no glibc, so perhaps musl (Alpine)"),
        (
            "CPython",
            "3.10",
            "cpython-310-x86_64-linux-gnu",
            "2.36",
            "it is CPython 3.10 (cpython-310-x86_64-linux-gnu,",
        ),
        ("CPython", "3.15", "cpython-315-x86_64-linux-gnu", "2.41", "it is CPython 3.15"),
        ("CPython", "3.14", "cpython-314t-x86_64-linux-gnu", "2.41", "cpython-314t-x86_64-linux-gnu"),
        ("CPython", "3.13", "cpython-313-aarch64-linux-gnu", "2.41", "cpython-313-aarch64-linux-gnu"),
        ("CPython", "3.11", "cpython-311-x86_64-linux-gnu", "2.17", "glibc 2.17)"),
        ("PyPy", "3.11", "pypy311-pp73-x86_64-linux-gnu", "2.36", "it is PyPy 3.11"),
        ("CPython", "3.13", "", "2.36", "which loads no compiled modules"),
    ],
    ids=["musl", "older", "newer", "free-threaded", "architecture", "old glibc", "PyPy", "static"],
)
def test_another_python_is_told_why(name: str, version: str, abi: str, glibc: str | None, said: str) -> None:
    why = bootstrap().unsupported(CONTENTS, name, version, abi, glibc)
    assert said in why
    assert "is for CPython 3.11, 3.12, 3.13, 3.14 on x86_64 with glibc 2.28 or newer" in why
    # Where all that it needs comes as wheels: musl, another architecture, an older glibc.
    assert ("pip install . in a checkout of pgmq-bus" in why) == bool(re.match(r"cpython-31[1-4]-", abi))
    assert "python:3.14-slim" in why


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("glibc", ["2.28", "2.41", "3.0"])
def test_these_are_supported(version: str, glibc: str) -> None:
    abi = f"cpython-{version.replace('.', '')}-x86_64-linux-gnu"
    assert bootstrap().unsupported(CONTENTS, "CPython", version, abi, glibc) is None


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({}, []),
        ({"pydantic": "2.11", "pydantic-core": "2.33.2"}, []),
        ({"pydantic": "2.11.0rc1", "pydantic-core": "2.33.2"}, []),
        ({"pydantic": "1.10.2"}, ["pydantic 1.10.2 (pgmq-bus needs >=2.11)"]),
        ({"pydantic-core": "2.33.2"}, ["pydantic-core 2.33.2 (pydantic needs ==2.50.4)"]),
        ({"typing-extensions": "4.15.0"}, ["typing-extensions 4.15.0 (pydantic-core needs >=4.14.1,!=4.15)"]),
        ({"typing-extensions": "4.20"}, []),
        ({"typing-extensions": None}, []),
    ],
)
def test_what_the_image_has_must_go_together_with_the_rest(versions: dict[str, str], expected: list[str]) -> None:
    assert bootstrap().conflicts(json.loads(json.dumps(CONTENTS)), versions) == expected


def test_the_webhook_the_image_and_the_bundle_agree_on_the_places() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"{runtime_injection.SOURCE}/lib/bus_runtime\n" in dockerfile
    assert f"COPY --from=bundle {runtime_injection.SOURCE} {runtime_injection.SOURCE}\n" in dockerfile
    assert runtime_injection.PYTHON_PATH.endswith("/path")
