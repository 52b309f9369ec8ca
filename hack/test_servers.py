"""Installs the PostgreSQL that the tests need besides the one from PyPI, where that can be done without asking."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "postgresql-15"
PROGRAM = Path("/usr/lib/postgresql/15/bin/postgres")


def main() -> None:
    """Does nothing when it is there; says what to install when it cannot do that itself."""
    if PROGRAM.exists():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"the tests need {PROGRAM}: install PostgreSQL 15, on Debian with apt-get install {PACKAGE}")
    print(f"installing {PACKAGE}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-qq", "-y", PACKAGE], check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
