"""A real PgBouncer before a test's PostgreSQL: on loopback, unprivileged, ended with the test that started it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from postgres import SUPERUSER, Channel, Server, free_port

PROGRAM = Path("/usr/sbin/pgbouncer")

# Clients log in with SCRAM, and PgBouncer to the server with what it learns of them by that: it only has verifiers.
# server_login_retry: after a server's outage it would refuse for 15 s more.
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
server_login_retry = 1
auth_query = select usename, passwd from pg_catalog.pg_shadow where usename = $1
logfile = {directory}/log
pidfile = {directory}/pid
"""


@dataclass
class PgBouncer:
    """A pooler."""

    port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def uri(self, channel: Channel) -> str:
        """As the channel's login, through the pooler."""
        return channel.uri.replace(f":{channel.endpoint.port}/", f":{self.port}/")

    def redirect(self, bindings: Path, channel: Channel, name: str = "orders") -> None:
        """Makes a binding lead through the pooler."""
        (bindings / name / "uri").write_text(self.uri(channel))

    def start(self) -> None:
        """Returns when it accepts connections."""
        starts = self.log.count("process up")
        self.process = subprocess.Popen(
            [PROGRAM, "-q", self.directory / "pgbouncer.ini"],
            user=_unprivileged_user(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while self.log.count("process up") == starts:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PgBouncer did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM: at once. SIGKILL: without a word, its file `pid` stays."""
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(20)
        self.process = None
        (self.directory / "pid").unlink(missing_ok=True)


def _unprivileged_user() -> str | None:
    return "nobody" if os.geteuid() == 0 else None


@contextmanager
def pgbouncer(server: Server, mode: str, *, pool_size: int = 20, port: int | None = None) -> Iterator[PgBouncer]:
    """A pooler before `server`, or before what stands before it at `port`; `mode` is session or transaction."""
    if not PROGRAM.exists():
        raise RuntimeError("PgBouncer is missing: apt-get install pgbouncer")
    pooler = PgBouncer(free_port(), Path(tempfile.mkdtemp(prefix="pgmq-bus-pgbouncer-")))
    (pooler.directory / "pgbouncer.ini").write_text(
        CONFIG.format(
            server_port=port or server.port,
            port=pooler.port,
            mode=mode,
            pool_size=pool_size,
            directory=pooler.directory,
            superuser=SUPERUSER,
        )
    )
    (pooler.directory / "userlist.txt").write_text(f'"{SUPERUSER}" "{server.password}"\n')
    if (user := _unprivileged_user()) is not None:
        os.chown(pooler.directory, pwd.getpwnam(user).pw_uid, -1)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(pooler.directory, ignore_errors=True)
