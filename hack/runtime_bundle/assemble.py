"""Installs wheels for each Python and puts them into one directory, with a table of contents for the bootstrap."""

import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hack.runtime_bundle import GLIBC, PYTHONS
from hack.runtime_bundle.elf import loaded_part
from hack.runtime_bundle.lock import PROJECT, environment_of

CONTENTS = "contents.json"
OPERATORS = (">=", "==", "<", "!=")
"""What the bootstrap compares versions by."""

_USELESS_SUFFIXES = (".pyi", ".pyx", ".pxd", ".c", ".h", ".pyc")
_USELESS = frozenset({"RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json", "sboms"})
"""Of a wheel's own directory: what differs from Python to Python and nothing asks for at run time. Licences stay."""
_OLDEST_TAG = 17
"""No wheel of today is for a glibc before 2.17."""


class BundleError(Exception):
    """The bundle cannot be made as it should be; the text says why."""


def platforms(machine: str) -> list[str]:
    """The tags of wheels that fit, oldest glibc first, so that pip prefers what runs in most places."""
    major, newest = GLIBC
    return [*(f"manylinux_{major}_{minor}_{machine}" for minor in range(_OLDEST_TAG, newest + 1))]


def install(requirements: Path, version: str, target: Path, machine: str) -> None:
    """Has pip put the wheels for a version of Python into a directory; it need not be the Python that runs.

    Args:
        requirements: A file of requirements with hashes.
        version: Such as `3.13`.
        target: The directory, which is made.
        machine: As `platform.machine()` says it, of wheels for glibc.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--only-binary=:all:", "--requirement", str(requirements)]
    command += ["--python-version", version, "--implementation", "cp"]
    for name in platforms(machine):
        command += ["--platform", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(f"pip finds no wheels for Python {version} on {machine}:\n{done.stdout}{done.stderr}")


def assemble(installed: Path, library: Path) -> None:
    """Puts what was installed for each version (`installed/3.11`, ...) into `library`.

    Raises BundleError where two Pythons would have to have different files of one name.
    """
    for version in PYTHONS:
        for source in _useful(installed / version):
            target = library / source.relative_to(installed / version)
            content = source.read_bytes()
            if source.suffix == ".so":
                content = loaded_part(content)
            if target.exists() and target.read_bytes() != content:
                raise BundleError(f"{target.name} for Python {version} is not that of a Python before it: {source}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def contents(library: Path, project: Path, machine: str | None = None) -> dict[str, Any]:
    """What the bootstrap has to know of the bundle.

    Args:
        library: The assembled packages.
        project: pyproject.toml, for what bus_runtime needs itself.
        machine: That of the wheels; None: this one's.
    """
    found = {canonicalize_name(each.metadata["Name"]): each for each in distributions(path=[str(library)])}
    wanted = tomllib.loads(project.read_text())["project"]["dependencies"]
    needs = [*_needs(PROJECT, wanted)]
    for name, each in sorted(found.items()):
        needs += _needs(name, each.requires or ())
    return {
        "pythons": PYTHONS,
        "architecture": machine or platform.machine(),
        "glibc": GLIBC,
        "packages": {name: {"version": each.version, "module": _module(each)} for name, each in sorted(found.items())},
        "needs": [need for need in needs if need["package"] in found],
    }


def write_contents(library: Path, project: Path, output: Path) -> None:
    """Writes them beside the packages."""
    (output / CONTENTS).write_text(json.dumps(contents(library, project), indent=1) + "\n")


def _useful(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory).parts
        useless = inside[0] == "bin" or path.suffix in _USELESS_SUFFIXES
        if inside[0].endswith(".dist-info"):
            useless = useless or not _USELESS.isdisjoint(inside)
        if path.is_file() and not useless:
            yield path


def _needs(who: str, requirements: Sequence[str]) -> Iterator[dict[str, Any]]:
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({**environment_of(PYTHONS[0]), "extra": ""}):
            continue
        bounds = [(bound.operator, bound.version) for bound in requirement.specifier]
        if odd := [operator for operator, _ in bounds if operator not in OPERATORS]:
            raise BundleError(f"{who} needs {text}: the bootstrap does not know what {odd[0]} means")
        yield {"by": who, "package": canonicalize_name(requirement.name), "bounds": bounds}


def _module(distribution: Distribution) -> str:
    """What a package is imported as: the bootstrap looks whether an image has it."""
    name = str(distribution.metadata["Name"]).replace("-", "_")
    directory = Path(str(distribution.locate_file("")))
    if not (directory / name).is_dir() and not (directory / f"{name}.py").is_file():
        raise BundleError(f"{name} is not imported by its own name")
    return name
