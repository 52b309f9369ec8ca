"""What is released, and the programs that it takes."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.commands import find_program

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = Path("build", "release")
CHART = Path("charts", "pgmq-bus")
NAME = "pgmq-bus"

PROGRAMS = {
    "git": "apt-get install git",
    "uv": "make setup, which puts it into .cache/uv",
    "helm": "make setup, which puts it into .venv, or https://helm.sh/docs/intro/install",
    "buildah": "apt-get install buildah",
    "cosign": "https://docs.sigstore.dev/cosign/system_config/installation, or"
    " go install github.com/sigstore/cosign/v2/cmd/cosign@latest",
}
"""What a release takes, and how one gets it."""


class ReleaseError(Exception):
    """What is in the way, and what to do."""


@dataclass(frozen=True)
class Plan:
    """What is released, and where to."""

    root: Path
    version: str
    registry: str
    key: str | None
    """cosign's private key; None: keyless, by the identity that cosign asks for."""
    base: str | None = None
    """The image's base; None: the Dockerfile's. `local`: of this machine's packages, as in the tests' cluster."""
    with_image: bool = True

    @property
    def output(self) -> Path:
        """Where everything is built."""
        return self.root / OUTPUT

    @property
    def image(self) -> str:
        """The image without a tag."""
        return f"{self.registry}/{NAME}"

    @property
    def charts(self) -> str:
        """The chart's parent: its last part is the chart's name."""
        return f"{self.registry}/charts"


def find(program: str) -> str | None:
    """Where a program is: beside this Python, in uv's directory of `make setup`, or on the PATH."""
    beside = [Path(sys.executable).parent / program, ROOT / ".cache" / "uv" / "bin" / program]
    return next((str(path) for path in beside if path.exists()), None) or find_program(program)


def run(root: Path, program: str, *arguments: str) -> str:
    """The standard output. Raises ReleaseError with how to get the program, or with what it said."""
    found = find(program)
    if found is None:
        raise ReleaseError(f"{program} is missing: {PROGRAMS[program]}")
    done = subprocess.run([found, *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{program} {shlex.join(arguments)} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def missing_programs() -> list[str]:
    """What a release would not find, each with how to get it."""
    return [f"{program}: {remedy}" for program, remedy in PROGRAMS.items() if find(program) is None]
