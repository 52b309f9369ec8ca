"""A database that goes to another server, by what docs/how-to/backup.md and docs/upgrading.md say."""

import os
import subprocess
from pathlib import Path

import asyncpg
import postgres
import pytest
from snippets import snippets

from bus_operator import provision, shards
from bus_operator.actions import DesiredChannel
from bus_operator.database import AdminConnection, connect
from bus_operator.drift import DriftReport
from bus_operator.errors import InsufficientPrivilegeError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential

DESIRED = DesiredChannel.from_spec(
    ChannelSpec.model_validate({"channel": "orders"}), namespace="shop", name="orders", uid=Uid("uid")
)


async def _publish(server: postgres.Server, held: HeldCredential) -> int:
    """The message's id."""
    connection = await asyncpg.connect(server.uri("bus", held.username, held.password))
    try:
        queue = await connection.fetchval("select public.bus_join('orders')")
        (number,) = await connection.fetchval("select public.bus_publish('orders', $1, '{}')", queue)
        return int(number)
    finally:
        await connection.close()


def _copy(old: postgres.Server, new: postgres.Server, directory: Path) -> None:
    (snippet,) = [one for one in snippets("sh") if one.page == "docs/how-to/backup.md" and "pg_dump" in one.text]
    text = snippet.text
    for name, server in (("OLD", old), ("NEW", new)):
        assert f"--host={name}" in text
        text = text.replace(f"--host={name}", f"--host=127.0.0.1 --port={server.port} --username=postgres")
    path = f"{new.programs}{os.pathsep}{os.environ['PATH']}"
    for line in text.splitlines():
        # The superuser's password comes with the roles.
        server = new if "roles.sql" in line and line.startswith("psql") else old
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=directory, env=os.environ | {"PATH": path, "PGPASSWORD": server.password},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


async def _execute(page: str, server: postgres.Server, *, containing: str) -> None:
    (snippet,) = [one for one in snippets("sql") if one.page == page and containing in one.text]
    connection = await server.connect("bus")
    await connection.execute(snippet.text)
    await connection.close()


async def _rotate(admin: AdminConnection) -> None:
    async with connect(admin) as session:
        await shards.install(session, admin, 1)
        await provision.provision(session, DESIRED, None)


@pytest.mark.parametrize("version", [15, 18])
async def test_a_dump_brings_it_to_another_server(version: int, tmp_path: Path) -> None:
    """Credentials open it there, ids go on higher, and the administrator can do everything after what the page says."""
    old, new = postgres.start_server(version), postgres.start_server(18)
    try:
        connection = await old.connect()
        await connection.execute("create role bus_admin login createrole inherit password 'secret'")
        await connection.execute("create database bus owner bus_admin")
        await connection.close()
        async with connect(old.admin("bus", "bus_admin", "secret")) as session:
            await provision.install(session)
            issued = (await provision.provision(session, DESIRED, None)).issued
        assert issued is not None
        held = HeldCredential(issued.username, issued.password)
        assert await _publish(old, held) == 1

        _copy(old, new, tmp_path)
        new.password = old.password
        assert await _publish(new, held) > 1_000_000
        admin = new.admin("bus", "bus_admin", "secret")
        async with connect(admin) as session:
            await shards.install(session, admin, 1)
            assert (await provision.provision(session, DESIRED, held)).actions == ()
        if version == 15:
            with pytest.raises(InsufficientPrivilegeError, match="from an older server"):
                await _rotate(admin)
            await _execute("docs/upgrading.md", new, containing="ADMIN OPTION")
        await _rotate(admin)
        async with connect(admin) as session:
            assert (await shards.install(session, admin, 1)).drift == DriftReport()
            assert await provision.deprovision(session, "orders", Uid("uid"), "Delete")
    finally:
        old.remove()
        new.remove()
