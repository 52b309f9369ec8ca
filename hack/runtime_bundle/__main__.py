"""`python -m hack.runtime_bundle`: the steps of the Dockerfile, each a layer of its own.

requirements  uv.lock -> requirements-<version>.txt for each Python
install       requirements-<version>.txt -> wheels, unpacked, for each Python
assemble      those -> the bundle, without bus_runtime itself
"""

import argparse
import platform
import shutil
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hack.runtime_bundle import PYTHONS
from hack.runtime_bundle.assemble import BundleError, assemble, install, write_contents
from hack.runtime_bundle.lock import requirements

HERE = Path(__file__).parent


def write_requirements(lock: Path, output: Path) -> None:
    """Writes a file for each Python. Their times are always the same: some builders go by these as well."""
    parsed = tomllib.loads(lock.read_text())
    output.mkdir(parents=True, exist_ok=True)
    for version in PYTHONS:
        (output / _file(version)).write_text("\n".join(requirements(parsed, version)) + "\n")


def install_all(wanted: Path, output: Path) -> None:
    """Installs for all of them, at the same time: they mostly wait for the index."""
    machine = platform.machine()
    with ThreadPoolExecutor(len(PYTHONS)) as pool:
        jobs = [
            pool.submit(install, wanted / _file(version), version, output / version, machine) for version in PYTHONS
        ]
    for job in jobs:
        job.result()


def make(installed: Path, project: Path, output: Path) -> None:
    """Makes the bundle, into whose `lib` bus_runtime is still to be copied."""
    assemble(installed, output / "lib")
    write_contents(output / "lib", project, output)
    package = output / "path" / "bus_runtime"
    package.mkdir(parents=True)
    shutil.copyfile(HERE / "bootstrap.py", package / "__init__.py")


def _file(version: str) -> str:
    return f"requirements-{version}.txt"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.runtime_bundle", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("requirements", "install", "assemble"):
        command = commands.add_parser(name)
        command.add_argument("source", type=Path)
        command.add_argument("output", type=Path)
    commands.choices["assemble"].add_argument("--project", type=Path, default=Path("pyproject.toml"))
    options = parser.parse_args()
    try:
        if options.command == "requirements":
            write_requirements(options.source, options.output)
        elif options.command == "install":
            install_all(options.source, options.output)
        else:
            make(options.source, options.project, options.output)
    except BundleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
