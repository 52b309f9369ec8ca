"""Installs the servers that the tests need, or `make bench`, where that can be done without asking."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack import postgres_servers

LIBFAKETIME = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "", "faketime", "libfaketime.so.1")
"""Preloaded, it gives one program a clock that can be set."""

POLICY = Path("/usr/sbin/policy-rc.d")

SERVERS = {
    "tests": {
        "postgresql-15": Path("/usr/lib/postgresql/15/bin/postgres"),
        "pgbouncer": Path("/usr/sbin/pgbouncer"),
        "prometheus": Path("/usr/bin/promtool"),
        "libfaketime": LIBFAKETIME,
        "e2fsprogs": Path("/usr/sbin/mkfs.ext4"),
        "iptables": Path("/usr/sbin/iptables"),
        "npm": Path("/usr/bin/npm"),
    },
    "bench": {"redis-server": Path("/usr/bin/redis-server"), "nats-server": Path("/usr/sbin/nats-server")},
}
"""For each use, the packages and a program of each."""


def main() -> None:
    """Does nothing when all are there; says what to install when it cannot do that itself."""
    use = sys.argv[1] if len(sys.argv) > 1 else "tests"
    more = use == "tests" and not postgres_servers.are_installed()
    missing = [package for package, program in SERVERS[use].items() if not is_there(program)]
    if missing:
        _install(missing)
    if more:
        print(f"installing PostgreSQL {' and '.join(map(str, postgres_servers.VERSIONS))}", flush=True)
        postgres_servers.install()


def _install(missing: list[str]) -> None:
    """From Debian. Ends the program where that needs somebody else."""
    packages = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"this needs {packages}: on Debian, apt-get install {packages}")
    print(f"installing {packages}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    with _no_services():
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )


def is_there(program: Path) -> bool:
    """Whether it is at its place in Debian's package, or, where it needs none, anywhere on the PATH."""
    return program.exists() or (program.parts[1:3] != ("usr", "lib") and shutil.which(program.name) is not None)


@contextmanager
def _no_services() -> Iterator[None]:
    """Programs are wanted, not services: packages ask this file whether they may start theirs (invoke-rc.d(8))."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
