"""SQL, Python and `busctl apply` of README and docs are executed, on a server of their own."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import asyncpg
import pgbouncer
import postgres
import pytest
from snippets import Snippet, commands, snippets

from bus_operator import provision
from bus_operator.actions import DesiredChannel
from bus_operator.database import connect
from bus_operator.errors import ChannelConflictError
from bus_operator.model import ChannelSpec, Uid
from hack.docs.pages import ROOT

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent

LESSER = "as a role that may create roles and databases"

_URI = re.compile(r"postgresql://[^\s'\"]+")
_PROGRAM = re.compile(r"^asyncio\.run\(", re.MULTILINE)
_GIVEN = """
import asyncio
from bus_runtime import BusDataMessage, BusSubscriber, find_binding

class Worker(BusSubscriber):
    name = "worker"

    async def on_bus_message(self, message):
        print("received", message)

my_worker, message = Worker(), BusDataMessage(source="docs")
uri, channel = find_binding().uri, find_binding().channel

async def main():
{fragments}
    await asyncio.sleep(0)
    if "bus" in locals():
        await bus.stop()
    print("done")

asyncio.run(main())
"""
"""What the fragments of a page are put into, one after the other, and the names that they take for granted."""


_OBJECTS = """
select nspname from pg_namespace where nspname ~ 'bus|pgmq'
union all select proname from pg_proc where pronamespace = 'public'::regnamespace
union all select rolname from pg_roles where rolname ~ 'bus' and rolname <> current_user
"""
"""Schemas, functions in public and roles of the bus, in a database and on a server where nothing else is."""


@dataclass(frozen=True)
class World:
    """A server on which the pages' database `bus` is, and a directory with the pages' files and the bindings."""

    server: postgres.Server
    directory: Path

    @contextmanager
    def started(self, line: str) -> Iterator[IO[str]]:
        """A line of shell that runs meanwhile; what it prints."""
        environment = os.environ | {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
        }
        with subprocess.Popen(
            ["bash", "-c", line], cwd=self.directory, env=environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            yield process.stdout
            if re.search(r"python \w+\.py", line):  # which do not end by themselves
                os.killpg(process.pid, signal.SIGTERM)
            else:
                assert process.wait(60) == 0, line

    def run(self, line: str) -> str:
        """A line of shell; what it prints, all of it or, of what does not end by itself, the first line."""
        with self.started(line) as output:
            return output.readline() if re.search(r"python \w+\.py", line) else output.read()

    def with_files(self, page: str) -> None:
        """Puts the files that a page names where its commands look for them."""
        everywhere = [
            snippet
            for snippet in snippets()
            if snippet.file and snippet.page in ("docs/quickstart.md", "docs/runtime.md")
        ]
        of_the_page = [snippet for snippet in snippets() if snippet.file and snippet.page == page]
        for snippet in [*everywhere, *of_the_page]:
            (self.directory / str(snippet.file)).write_text(snippet.text)


def _statements(snippet: Snippet) -> list[str]:
    """CREATE DATABASE stands alone, or it is refused. No session has the id that stands for what users find out."""
    text = re.sub(r"\bPID\b", "0", snippet.text)
    return [one for one in text.split(";\n") if one.strip()] if "CREATE DATABASE" in text else [text]


def _offline() -> list[Snippet]:
    """Blocks that do without a cluster."""
    return [
        snippet
        for snippet in snippets("sh")
        if snippet.is_run and commands(snippet.text)[0][:2] == ["busctl", "apply"] and "--database" in snippet.text
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With the administrator and the database that docs/postgresql.md makes, and the quickstart's channel in it."""
    with postgres.running_server(18) as server:
        made = World(server, tmp_path_factory.mktemp("snippets"))
        asyncio.run(_execute(made, "docs/postgresql.md", "postgres"))
        made.with_files("docs/quickstart.md")
        uri = server.uri("bus")
        made.run(f"busctl apply -f channels.yaml --database '{uri}' --bindings bindings")
        yield made


async def _execute(world: World, page: str, database: str) -> None:
    """As a superuser, unless the page says otherwise."""
    connection = await world.server.connect(database)
    try:
        for snippet in snippets("sql"):
            if snippet.page != page:
                continue
            if snippet.note == LESSER:
                await connection.execute("CREATE ROLE lesser CREATEROLE CREATEDB; SET SESSION AUTHORIZATION lesser")
            for statement in _statements(snippet):
                await connection.execute(statement)
            await connection.execute("RESET SESSION AUTHORIZATION")
    finally:
        await connection.close()


ELSEWHERE = {"docs/postgresql.md", "docs/how-to/pgbouncer.md", "docs/how-to/backup.md", "docs/uninstalling.md"}
"""Their SQL is executed by the fixture, and by tests that look at what it is good for."""


@pytest.mark.parametrize("page", sorted({snippet.page for snippet in snippets("sql")} - ELSEWHERE))
def test_sql_is_executed(world: World, page: str) -> None:
    asyncio.run(_execute(world, page, "bus"))


@pytest.mark.parametrize("snippet", _offline(), ids=str)
def test_what_needs_no_cluster_is_run(world: World, snippet: Snippet) -> None:
    """As it is written, but for where the database is."""
    world.with_files(snippet.page)
    for line in re.sub(r"\\\n\s*", " ", snippet.text).splitlines():
        if line.strip() and not line.startswith("#"):
            assert "Traceback" not in world.run(_URI.sub(f"'{world.server.uri('bus')}'", line))


@pytest.mark.parametrize("snippet", [one for one in snippets("python") if _PROGRAM.search(one.text)], ids=str)
def test_programs_run(world: World, snippet: Snippet) -> None:
    world.with_files(snippet.page)
    (world.directory / "program.py").write_text(snippet.text)
    assert "Traceback" not in world.run("SERVICE_BINDING_ROOT=./bindings python program.py")


def test_the_quickstart_brings_a_message(world: World) -> None:
    """From one of its programs to the other."""
    world.with_files("docs/quickstart.md")
    with world.started("SERVICE_BINDING_ROOT=./bindings python subscriber.py") as subscriber:
        assert subscriber.readline() == "waiting for orders\n"
        assert world.run("SERVICE_BINDING_ROOT=./bindings python publisher.py") == "published A-1\n"
        assert subscriber.readline() == "to bill: A-1\n"


@pytest.mark.parametrize(
    "page", sorted({one.page for one in snippets("python") if not _PROGRAM.search(one.text) and not one.file})
)
def test_fragments_run(world: World, page: str) -> None:
    """Those of a page after each other: a later one may use what an earlier one made."""
    fragments = [
        textwrap.indent(snippet.text, "    ")
        for snippet in snippets("python")
        if snippet.page == page and snippet.is_run and not snippet.file and not _PROGRAM.search(snippet.text)
    ]
    (world.directory / "fragments.py").write_text(_GIVEN.format(fragments="\n".join(fragments)))
    environment = {**os.environ, "SERVICE_BINDING_ROOT": str(world.directory / "bindings"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "fragments.py"],
        cwd=world.directory, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.endswith("done\n"), done.stderr


async def test_pgbouncer_asks_for_passwords(world: World) -> None:
    """As its page configures it: a channel's login, which no list of users has, gets through in either mode."""
    await _execute(world, "docs/how-to/pgbouncer.md", "bus")
    (snippet,) = snippets("ini")
    port = postgres.free_port()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        directory.chmod(0o777)
        (directory / "userlist.txt").write_text('"pgbouncer" "secret"\n')
        replaced = {
            "host=postgres.databases.svc port=5432": f"host=127.0.0.1 port={world.server.port}",
            "listen_addr = *": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {port}",
            "/etc/pgbouncer/userlist.txt": str(directory / "userlist.txt"),
        }
        text = snippet.text
        for before, after in replaced.items():
            assert before in text
            text = text.replace(before, after)
        (directory / "pgbouncer.ini").write_text(
            f"{text}unix_socket_dir =\nlogfile = {directory}/log\npidfile = {directory}/pid\n"
        )
        pooler = pgbouncer.PgBouncer(port, directory)
        pooler.start()
        try:
            binding = world.directory / "bindings" / "orders"
            uri = (binding / "uri").read_text().replace(f":{world.server.port}/", f":{port}/")
            connection = await asyncpg.connect(uri, statement_cache_size=0)
            assert await connection.fetchval("SELECT session_user") == (binding / "username").read_text()
            await connection.close()
        finally:
            pooler.stop()


@pytest.mark.parametrize("version", [15, 18])
def test_nothing_is_left_in_a_server(version: int, tmp_path: Path) -> None:
    """After what the page on uninstalling says, by the administrator that the operator has."""
    # Without the template, whose roles are another's.
    server = postgres.start_server(version)
    try:
        world = World(server, tmp_path)
        asyncio.run(_execute(world, "docs/postgresql.md", "postgres"))
        world.with_files("docs/quickstart.md")
        administrator = server.uri("bus", "bus_admin", "...")
        world.run(f"busctl apply -f channels.yaml --database '{administrator}' --bindings bindings")
        asyncio.run(_remove(administrator))
    finally:
        server.remove()


async def _remove(administrator: str) -> None:
    connection = await asyncpg.connect(administrator)
    assert len(await connection.fetch(_OBJECTS)) == 4 + 5 + 4
    for snippet in snippets("sql"):
        if snippet.page == "docs/uninstalling.md":
            await connection.execute(snippet.text)
    assert await connection.fetch(_OBJECTS) == []
    await connection.close()


async def test_bringing_a_postgresql(tmp_path: Path) -> None:
    """After what its page says, another administrator does everything, and pg_hba.conf lets in whom it should."""
    server = postgres.start_server(18)
    try:
        world = World(server, tmp_path)
        await _execute(world, "docs/postgresql.md", "postgres")
        world.with_files("README.md")
        apply = "busctl apply -f channels.yaml --bindings bindings --database "
        world.run(f"{apply}'{server.uri('bus', 'bus_admin', '...')}'")
        await _execute(world, "docs/how-to/databases.md", "bus")

        rules = server.directory / "data" / "pg_hba.conf"
        (lines,) = [one.text for one in snippets("text") if one.page == "docs/how-to/databases.md"]
        # Without TLS, and the administrator is the one who took over.
        for before, after in {"hostssl": "host", "10.0.0.0/8": "127.0.0.1/32", "bus_admin": "bus_successor"}.items():
            assert before in lines
            lines = lines.replace(before, after)
        rules.write_text(lines)
        server.stop()
        server.start()

        successor = server.uri("bus", "bus_successor", "secret")
        assert "unchanged" in world.run(f"{apply}'{successor}'")
        world.run(f"busctl rotate default/orders --bindings bindings --database '{successor}'")
        connection = await asyncpg.connect((tmp_path / "bindings" / "orders" / "uri").read_text())
        await connection.close()
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(server.uri("bus"))
    finally:
        server.remove()


@pytest.mark.parametrize(("name", "maker"), [("moved", "shop/moved@11111111"), ("tried", "shop/tried")])
async def test_another_cluster_takes_over(world: World, name: str, maker: str) -> None:
    """After what the page on backups says, and not before: from a cluster, and from busctl, which has none."""
    spec = ChannelSpec.model_validate({"channel": name})
    former = DesiredChannel.from_spec(spec, namespace="shop", name=name, uid=Uid("former"))
    successor = replace(former, owner_uid=Uid("successor"), owner_reference=f"shop/{name}@00000000")
    async with connect(world.server.admin("bus")) as connection:
        await provision.provision(connection, replace(former, owner_reference=maker), held=None)
        with pytest.raises(ChannelConflictError):
            await provision.provision(connection, successor, held=None)
        await _execute(world, "docs/how-to/backup.md", "bus")
        await provision.provision(connection, successor, held=None)
        owner = await connection.fetchval("SELECT owner_uid FROM pgmq_bus.channel WHERE name = $1", name)
    assert owner == "successor"
