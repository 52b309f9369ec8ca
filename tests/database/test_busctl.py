"""`busctl apply` as a user runs it: the program against a real server, manifests in files, bindings in directories."""

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import postgres
import pytest
import yaml

from bus_operator import sql

BUSCTL = Path(sys.executable).parent / "busctl"
PASSWORD = "hunter2-in-the-clear"
FILES = {
    "type", "provider", "host", "port", "database", "username", "password", "sslmode", "uri", "channel",
    "config.json", "generation",
}  # fmt: skip

# One version is enough: what differs between them is in the other tests.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

Result = subprocess.CompletedProcess[str]
Busctl = Callable[..., Result]


def manifest(name: str = "orders", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusChannel",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


def environment(uri: str | None) -> dict[str, str]:
    """The URI goes where others that list processes do not see it."""
    return os.environ | ({"BUSCTL_DATABASE": uri} if uri else {})


@pytest.fixture
def busctl(tmp_path: Path) -> Busctl:
    """Runs it in a directory of its own."""

    def run(*arguments: str, uri: str | None = None, stdin: str | None = None) -> Result:
        return subprocess.run(
            [BUSCTL, *arguments],
            cwd=tmp_path, env=environment(uri), input=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes manifests, or a text, into a file; returns its name."""

    def to_file(*documents: Any, name: str = "channels.yaml") -> str:
        text = documents[0] if isinstance(documents[0], str) else yaml.safe_dump_all(documents)
        (tmp_path / name).write_text(text)
        return name

    return to_file


def on(database: postgres.Database) -> str:
    """What it says before anything else."""
    return f"on database {database.name} on 127.0.0.1:{database.server.port}\n"


def read(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


async def test_first_and_second_run(
    server: postgres.Server, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """From an empty database to a binding; then everything is right already, and nothing is touched."""
    database = await postgres.create_database(server, "template1")
    where = f"127.0.0.1:{server.port}/{database.name}"
    arguments = ("apply", "-f", write(manifest(reader={"batchSize": 50})), "--bindings", "bindings")
    first = busctl(*arguments, uri=database.dsn)
    assert (first.returncode, first.stderr) == (0, on(database))
    done, channel, following = first.stdout.splitlines()
    # The roles are the server's and may be there already.
    version = await version_of(server)
    assert done.startswith(f"database {where}: ")
    assert done.endswith(f"install schema version {sql.schema_version()}, install functions (PostgreSQL {version})")
    assert channel == (
        "BusChannel shop/orders: create channel 'shop.orders', issue credential generation 1; wrote bindings/orders"
    )
    assert following == "next: SERVICE_BINDING_ROOT=bindings python worker.py"

    directory = tmp_path / "bindings" / "orders"
    binding = read(directory)
    assert binding.keys() == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert binding["uri"] == f"postgresql://{binding['username']}:{binding['password']}@{where}?sslmode=disable"
    assert (binding["channel"], binding["generation"]) == ("shop.orders", "1")
    assert json.loads(binding["config.json"])["reader"]["batchSize"] == 50
    connection = await asyncpg.connect(binding["uri"])
    assert await connection.fetchval("select public.bus_join('shop.orders')")
    await connection.close()

    times = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    second = busctl(*arguments, uri=database.dsn)
    assert (second.returncode, second.stderr) == (0, on(database))
    assert second.stdout.splitlines() == [
        f"database {where}: unchanged (PostgreSQL {version})",
        "BusChannel shop/orders: unchanged",
        following,
    ]
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == times
    await postgres.drop_database(database)


async def version_of(server: postgres.Server) -> str:
    connection = await server.connect()
    version: str = await connection.fetchval("show server_version")
    await connection.close()
    return version


async def test_programs_are_told_the_same(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str]
) -> None:
    """With -o: what was done, in the words of the plan, and what could not be."""
    where = f"127.0.0.1:{database.server.port}/{database.name}"
    arguments = ("-f", write(manifest()), "--bindings", "b", "-o", "json")
    planned = busctl("plan", *arguments, uri=database.dsn)
    expected = {item["subject"]: item["actions"] for item in json.loads(planned.stdout)["items"]}
    first = busctl("apply", *arguments, uri=database.dsn)
    assert (first.returncode, first.stderr) == (0, on(database))
    done = json.loads(first.stdout)
    assert {item["subject"]: item["actions"] for item in done["items"]} == expected
    assert done == {
        "changed": True,
        "items": [
            {"subject": f"database {where}", "database": None, "actions": [], "binding": None, "error": None},
            {
                "subject": "BusChannel shop/orders",
                "database": where,
                "actions": ["create channel 'shop.orders'", "issue credential generation 1", "write b/orders"],
                "binding": "b/orders",
                "error": None,
            },
        ],
    }
    again = json.loads(busctl("apply", *arguments, uri=database.dsn).stdout)
    assert (again["changed"], [item["actions"] for item in again["items"]]) == (False, [[], []])

    await database.create_channel("taken")
    write(manifest("audit", channel="taken"), manifest())
    refused = busctl("apply", "-f", "channels.yaml", "-o", "yaml", uri=database.dsn)
    assert (refused.returncode, refused.stderr) == (1, on(database))
    _, audit, orders = yaml.safe_load(refused.stdout)["items"]
    assert (audit["subject"], audit["actions"], audit["error"]["reason"]) == (
        "BusChannel shop/audit", [], "ChannelConflict",
    )  # fmt: skip
    assert audit["error"]["message"].startswith("channel 'taken' belongs to BusChannel test/test")
    assert (orders["error"], orders["binding"]) == (None, None)


def test_a_changed_manifest(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    apply = ("apply", "-f", "channels.yaml", "--bindings", "bindings")
    write(manifest())
    assert busctl(*apply, uri=database.dsn).returncode == 0
    before = read(tmp_path / "bindings" / "orders")
    write(manifest(limits={"maxConnections": 3}))
    done = busctl(*apply, uri=database.dsn)
    line = done.stdout.splitlines()[1]
    assert line == (
        f"BusChannel shop/orders: update channel 'shop.orders', update login {before['username']};"
        " wrote bindings/orders"
    )
    after = read(tmp_path / "bindings" / "orders")
    assert {key for key in FILES if before[key] != after[key]} == {"config.json"}
    assert json.loads(after["config.json"])["limits"]["maxConnections"] == 3


def test_several_channels_in_several_files(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """Also those of a List, as `kubectl get -o yaml` prints it; what is no BusChannel is said to be skipped."""
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker"}}
    one = write(manifest("orders"), None, deployment, manifest("audit"), name="one.yaml")
    other = write({"apiVersion": "v1", "kind": "List", "items": [manifest("billing")]}, name="other.yaml")
    done = busctl("apply", "-f", one, "-f", other, "--bindings", "b", uri=database.dsn)
    assert done.returncode == 0
    skipped = "skipped Deployment/worker in one.yaml: only BusChannels are applied, --database says where\n"
    assert done.stderr == on(database) + skipped
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[1:-1]] == [
        "BusChannel shop/orders",
        "BusChannel shop/audit",
        "BusChannel shop/billing",
    ]
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"orders", "audit", "billing"}


async def test_shards(database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path) -> None:
    """A BusDatabase among the manifests says how many; channels stay where they are, whoever knows of the shards."""
    spread = {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusDatabase",
        "metadata": {"name": "main"},
        "spec": {"connectionSecretRef": {"name": "admin"}, "shards": 2},
    }
    names = ["a", "b", "c"]
    file = write(spread, *(manifest(name) for name in names))
    first = busctl("apply", "-f", file, "--bindings", "b", uri=database.dsn)
    assert first.returncode == 0, first.stderr
    note = "of BusDatabase/main in channels.yaml only spec.shards is used: --database says where\n"
    assert first.stderr == on(database) + note
    where = [f"database 127.0.0.1:{database.server.port}/{name}" for name in (database.name, f"{database.name}_bus_1")]
    assert [line.split(": ")[0] for line in first.stdout.splitlines()[:2]] == where
    homes = {name: read(tmp_path / "b" / name)["database"] for name in names}
    assert list(homes.values()) == [database.name, f"{database.name}_bus_1", database.name]

    second = busctl("apply", "-f", file, "--bindings", "b", uri=database.dsn)
    assert second.stdout.count(": unchanged") == 5
    alone = busctl("apply", "-f", write(manifest("b"), manifest("d")), "--bindings", "other", uri=database.dsn)
    assert alone.returncode == 0, alone.stderr
    assert read(tmp_path / "other" / "b")["database"] == homes["b"]
    assert read(tmp_path / "other" / "d")["database"] == database.name
    connection = await asyncpg.connect(read(tmp_path / "other" / "b")["uri"])
    assert await connection.fetchval("select public.bus_join('shop.b')")
    await connection.close()


def test_standard_input_and_default_namespace(database: postgres.Database, busctl: Busctl, tmp_path: Path) -> None:
    text = "apiVersion: pgmqbus.dev/v1alpha1\nkind: BusChannel\nmetadata: {name: orders}\n"
    done = busctl("apply", "-f", "-", "-n", "kitchen", "--bindings", "b", uri=database.dsn, stdin=text)
    assert done.returncode == 0
    assert (tmp_path / "b" / "orders" / "channel").read_text() == "kitchen.orders"


async def test_without_bindings_no_credential_is_made(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str]
) -> None:
    done = busctl("apply", "-f", write(manifest()), uri=database.dsn)
    assert done.stdout.splitlines()[1:] == ["BusChannel shop/orders: create channel 'shop.orders'"]
    async with database.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.login") == 0


def test_a_damaged_binding_is_restored(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    apply = ("apply", "-f", write(manifest()), "--bindings", "b")
    busctl(*apply, uri=database.dsn)
    directory = tmp_path / "b" / "orders"

    def without_password() -> None:
        (directory / "password").unlink()

    def with_another_password() -> None:
        (directory / "password").write_text("edited")

    def gone() -> None:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()

    for generation, damage in enumerate((without_password, with_another_password, gone), start=2):
        before = read(directory)["password"]
        damage()
        done = busctl(*apply, uri=database.dsn).stdout.splitlines()[1]
        assert done.startswith(f"BusChannel shop/orders: issue credential generation {generation}")
        assert done.endswith("; wrote b/orders")
        assert read(directory).keys() == FILES
        assert read(directory)["password"] not in (before, "edited")
    assert "BusChannel shop/orders: unchanged" in busctl(*apply, uri=database.dsn).stdout


def test_writing_that_was_cut_short(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """The credential that is there is kept, the rest is written, and what the crash left goes away."""
    apply = ("apply", "-f", write(manifest()), "--bindings", "b")
    busctl(*apply, uri=database.dsn)
    directory = tmp_path / "b" / "orders"
    before = read(directory)
    (directory / "uri").unlink()
    (directory / ".busctl-abc").write_text("half")
    assert (
        busctl(*apply, uri=database.dsn).stdout.splitlines()[1] == "BusChannel shop/orders: unchanged; wrote b/orders"
    )
    assert read(directory) == before


def test_other_files_in_a_binding_directory_are_left_alone(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    directory = tmp_path / "b" / "orders"
    directory.mkdir(parents=True)
    (directory / "README").write_text("by hand")
    apply = ("apply", "-f", write(manifest()), "--bindings", "b")
    assert busctl(*apply, uri=database.dsn).returncode == 0
    assert "BusChannel shop/orders: unchanged" in busctl(*apply, uri=database.dsn).stdout
    assert (directory / "README").read_text() == "by hand"


def test_the_same_name_in_two_namespaces_is_fine_without_bindings(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str]
) -> None:
    done = busctl("apply", "-f", write(manifest(), manifest() | {"metadata": {"name": "orders"}}), uri=database.dsn)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3


def test_wrong_password(server: postgres.Server, busctl: Busctl, write: Callable[..., str]) -> None:
    done = busctl("apply", "-f", write(manifest()), uri=server.uri(password=PASSWORD))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"on database postgres on 127.0.0.1:{server.port}\n"
        f"error: 127.0.0.1:{server.port}/postgres refuses the administrator's credential: password authentication"
        ' failed for user "postgres". Check its user and password. [AuthenticationFailed]\n'
    )


async def test_no_rights(server: postgres.Server, busctl: Busctl, write: Callable[..., str]) -> None:
    """An application's user instead of an administrator."""
    empty = await postgres.create_database(server, "template1")
    async with empty.session() as session:
        await session.execute(f"CREATE ROLE app_of_busctl LOGIN PASSWORD '{PASSWORD}'")
    done = busctl("apply", "-f", write(manifest()), uri=server.uri(empty.name, "app_of_busctl", PASSWORD))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"{on(empty)}error: 127.0.0.1:{server.port}/{empty.name}: the administrator's credential lacks a right:"
        " permission denied"
    )
    assert done.stderr.endswith(
        " It needs CREATEROLE and INHERIT, must own the database, and from PostgreSQL 16 on needs the ADMIN OPTION"
        " on roles that another administrator made, or that are from an older server. [InsufficientPrivilege]\n"
    )
    assert len(done.stderr.splitlines()) == 2
    async with empty.session() as session:
        await session.execute("DROP ROLE app_of_busctl")
    await postgres.drop_database(empty)


async def test_one_that_fails_does_not_stop_the_others(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """Here its name belongs to a BusChannel of a cluster."""
    await database.create_channel("taken")
    file = write(manifest("orders", channel="taken"), manifest("audit"))
    done = busctl("apply", "-f", file, "--bindings", "b", uri=database.dsn)
    assert done.returncode == 1
    assert done.stderr == on(database) + (
        "BusChannel shop/orders: ChannelConflict: channel 'taken' belongs to BusChannel test/test: choose another"
        " spec.channel\n"
    )
    assert done.stdout.splitlines()[-1].startswith("BusChannel shop/audit: create channel")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"audit"}


def test_bindings_that_cannot_be_written(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "orders").write_text("a file where a directory should be")
    done = busctl("apply", "-f", write(manifest()), "--bindings", "b", uri=database.dsn)
    assert done.returncode == 1
    assert done.stderr == on(database) + (
        "BusChannel shop/orders: InvalidSpec: binding directory b/orders cannot be read: [Errno 20] Not a directory:"
        " 'b/orders'\n"
    )


def test_no_password_is_shown(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    apply = ("apply", "-f", write(manifest()), "--bindings", "b")
    shown = ""
    for _ in range(2):
        done = busctl(*apply, uri=database.dsn)
        shown += done.stdout + done.stderr
    assert database.server.password not in shown
    assert (tmp_path / "b" / "orders" / "password").read_text() not in shown
    # Nor is it in a statement, which servers may log: this one logs all of them.
    assert (tmp_path / "b" / "orders" / "password").read_text() not in database.server.log


async def test_interrupted(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """Ctrl-C in the middle: what was said to be done is done, nothing is half-made, and the same command goes on."""
    count = 60
    file = write(*(manifest(f"channel-{number}") for number in range(count)))
    arguments = ("apply", "-f", file, "--bindings", "b")
    # What a shell runs in the background ignores SIGINT, and so would what the tests start.
    command = ["env", "--default-signal=INT", BUSCTL, *arguments]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(database.dsn) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    # It holds some thirty lines: busctl waits for us, however slow we are.
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    lines = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    # Below the terminal's ^C.
    assert errors == on(database) + "\ninterrupted; run the same command again to go on\n"
    done = {line.partition(":")[0].rpartition("/")[2] for line in "".join([*lines[1:], rest]).splitlines()}
    assert 3 <= len(done) < count
    directories = {path.name: read(path) for path in (tmp_path / "b").iterdir()}
    assert done == directories.keys()
    assert all(binding.keys() == FILES for binding in directories.values())
    async with database.session() as session:
        # The session that was interrupted is over, and at most one channel was made and not said to be.
        await until_alone(session)
        made = {row["name"] for row in await session.fetch("select name from pgmq_bus.channel")}
    assert len(made - {f"shop.{name}" for name in done}) <= 1

    again = busctl(*arguments, uri=database.dsn)
    assert (again.returncode, again.stderr) == (0, on(database))
    assert again.stdout.count(": unchanged\n") == len(done)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {f"channel-{number}" for number in range(count)}
    for number in (0, count - 1):
        connection = await asyncpg.connect((tmp_path / "b" / f"channel-{number}" / "uri").read_text())
        await connection.close()


async def until_alone(session: asyncpg.Connection) -> None:
    deadline = time.monotonic() + 10
    while await session.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and application_name = 'pgmq-bus-operator'"
    ):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


WORKER = """
import asyncio, sys
from bus_runtime import BusDataMessage, BusSubscriber, PgmqBus

class Worker(BusSubscriber):
    def __init__(self, name):
        self._name = name
        self.heard = asyncio.Event()

    @property
    def name(self):
        return self._name

    async def on_bus_message(self, message):
        if message.source != self._name:
            print(self._name, "heard", message.source, flush=True)
            self.heard.set()

async def main(name):
    worker, bus = Worker(name), PgmqBus.from_binding()
    await bus.subscribe(worker)
    await bus.start()
    print(name, "joined", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await bus.send(BusDataMessage(source=name))
    await asyncio.wait_for(worker.heard.wait(), 20)
    await bus.stop()

asyncio.run(main(sys.argv[1]))
"""


async def test_two_processes_talk_over_what_it_wrote(
    database: postgres.Database, busctl: Busctl, write: Callable[..., str], tmp_path: Path
) -> None:
    """The line that it prints at the end, as a user would run it."""
    done = busctl("apply", "-f", write(manifest()), "--bindings", "bindings", uri=database.dsn)
    setting, python, script = done.stdout.splitlines()[-1].removeprefix("next: ").split()
    assert (python, script) == ("python", "worker.py")
    (tmp_path / script).write_text(WORKER)
    workers = [
        subprocess.Popen(
            [sys.executable, script, name], cwd=tmp_path, env=os.environ | dict([setting.split("=")]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("alice", "bob")
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline().endswith("joined\n")
        outputs = []
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            output, errors = worker.communicate(timeout=30)
            assert worker.returncode == 0, errors
            outputs.append(output)
        assert outputs == ["alice heard bob\n", "bob heard alice\n"]
    finally:
        for worker in workers:
            worker.kill()
