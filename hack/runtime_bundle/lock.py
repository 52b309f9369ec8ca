"""What uv.lock says that bus_runtime needs, for one version of Python: requirements with hashes, as pip reads them.

Read from the lock itself: `uv export` leaves markers in its answer, which `pip install --python-version` judges by the
Python that runs it and not by the one that is asked for.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.markers import Marker, default_environment

PROJECT = "pgmq-bus"


def requirements(lock: Mapping[str, Any], version: str) -> list[str]:
    """Lines of `name==version --hash=...` for all that the project needs without extras, itself left out.

    Args:
        lock: uv.lock, parsed.
        version: The Python, such as `3.13`.
    """
    return [f"{name}=={locked['version']} {hashes(locked)}" for name, locked in sorted(closure(lock, version).items())]


def closure(lock: Mapping[str, Any], version: str) -> dict[str, Mapping[str, Any]]:
    """What the project needs, itself left out, by name.

    Raises ValueError if the lock has two versions of one package: nothing here chooses between them.
    """
    environment = environment_of(version)
    found: dict[str, Mapping[str, Any]] = {}
    waiting = list(_needed(_locked(lock, PROJECT), environment))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _locked(lock, name)
            waiting += _needed(found[name], environment)
    return found


def _locked(lock: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = [package for package in lock["package"] if package["name"] == name]
    if len(found) != 1:
        raise ValueError(f"uv.lock has {name} {len(found)} times")
    return dict(found[0])


def environment_of(version: str) -> dict[str, str]:
    """What markers are judged by: CPython on Linux, on a machine as this one."""
    return {name: str(value) for name, value in default_environment().items()} | {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }


def hashes(locked: Mapping[str, Any]) -> str:
    """The options by which pip knows a package's wheels."""
    return " ".join(f"--hash={wheel['hash']}" for wheel in locked["wheels"])


def _needed(package: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    for dependency in package.get("dependencies", ()):
        marker = dependency.get("marker")
        if marker is None or Marker(marker).evaluate(dict(environment)):
            yield dependency["name"]
