"""A real PgBouncer before a test's PostgreSQL: on loopback, unprivileged, ended with the test that started it."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postgres import SUPERUSER, Channel, Server, free_port

PROGRAM = Path("/usr/sbin/pgbouncer")

# Clients log in with SCRAM, and PgBouncer to the server with what it learns of them by that: it only has verifiers.
CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = {mode}
default_pool_size = {pool_size}
auth_type = scram-sha-256
auth_file = {directory}/userlist.txt
auth_user = {superuser}
auth_query = select usename, passwd from pg_catalog.pg_shadow where usename = $1
logfile = {directory}/log
pidfile = {directory}/pid
"""


@dataclass(frozen=True)
class PgBouncer:
    """A running pooler."""

    port: int
    directory: Path

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def uri(self, channel: Channel) -> str:
        """As the channel's login, through the pooler."""
        return channel.uri.replace(f":{channel.endpoint.port}/", f":{self.port}/")

    def redirect(self, bindings: Path, channel: Channel, name: str = "orders") -> None:
        """Makes a binding lead through the pooler."""
        (bindings / name / "uri").write_text(self.uri(channel))


@contextmanager
def pgbouncer(server: Server, mode: str, *, pool_size: int = 20) -> Iterator[PgBouncer]:
    """A pooler before `server`; `mode` is session or transaction."""
    if not PROGRAM.exists():
        raise RuntimeError("PgBouncer is missing: apt-get install pgbouncer")
    user = "nobody" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="pgmq-bus-pgbouncer-"))
    port = free_port()
    (directory / "pgbouncer.ini").write_text(
        CONFIG.format(
            server_port=server.port,
            port=port,
            mode=mode,
            pool_size=pool_size,
            directory=directory,
            superuser=SUPERUSER,
        )
    )
    (directory / "userlist.txt").write_text(f'"{SUPERUSER}" "{server.password}"\n')
    if user is not None:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    running = PgBouncer(port, directory)
    process = subprocess.Popen(
        [PROGRAM, "-q", directory / "pgbouncer.ini"], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while "process up" not in (running.log if (directory / "log").exists() else ""):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start:\n{running.log if (directory / 'log').exists() else ''}")
            time.sleep(0.02)
        yield running
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(directory, ignore_errors=True)
