"""`busctl status` on a database: what its registry says, of all channels or of one."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import busctl_program
import postgres
import pytest
import yaml
from wire import Peer

# One version is enough: the statements are the survey's and the operator's, which other tests run on all.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

Join = Callable[..., Awaitable[Peer]]


def status(database: postgres.Database, *arguments: str, code: int = 0) -> str:
    done = busctl_program.run("status", *arguments, BUSCTL_DATABASE=database.dsn)
    assert done.returncode == code, done.stderr
    assert f"on database {database.name} on 127.0.0.1:{database.server.port}\n" in done.stderr
    assert database.server.password not in done.stdout + done.stderr
    return done.stdout


async def test_all_channels_and_one(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("shop.orders")
    async with database.session() as session:
        await session.execute("update pgmq_bus.channel set owner_reference = 'shop/orders@cluster1'")
    await database.create_channel("shop.audit", durability="Unlogged")
    publisher, reader = await join(orders), await join(orders, peer="billing", address="10.0.0.7:9000")
    await publisher.publish(1, 2, 3)
    await publisher.read(acknowledge=3)

    header, audit, first = status(database).splitlines()
    assert header.split() == [
        "CHANNEL", "READY", "DATABASE", "PEERS", "BACKLOG", "OLDEST", "GENERATION", "REASON",
    ]  # fmt: skip
    assert audit.split() == ["shop.audit", "True", database.name, "0", "0", "-", "1", "Ready"]
    assert first.split()[:5] == ["shop.orders", "True", database.name, "2", "3"]

    wide = status(database, "-o", "wide").splitlines()
    assert wide[0].split()[-4:] == ["DURABILITY", "DOORBELL/LISTEN/POLL", "VERIFIED", "AGE"]
    assert wide[2].split()[-4:] == ["Sync", "1/0/1", "-", "-"]

    listed: Any = json.loads(status(database, "-o", "json"))
    one = json.loads(status(database, "shop/orders", "-o", "json"))
    assert [item["channel"] for item in listed["items"]] == ["shop.audit", "shop.orders"]
    ages = {one.pop("oldestMessageAge"), listed["items"][1].pop("oldestMessageAge")}
    assert all(age.endswith("s") for age in ages)
    assert len(one.pop("peerDetails")) == 2
    assert one == listed["items"][1]
    assert one["wake"] == {"doorbell": 1, "listen": 0, "poll": 1}
    assert (one["namespace"], one["name"], one["database"]) == ("shop", "orders", {"name": database.name})
    assert yaml.safe_load(status(database, "shop.orders", "-o", "yaml"))["backlog"] == 3
    assert status(database, "-o", "name").splitlines() == ["shop.audit", "shop.orders"]
    assert busctl_program.complete("busctl status shop.o", BUSCTL_DATABASE=database.dsn) == ["shop.orders"]

    text = status(database, "shop.orders")
    assert "BusChannel:   shop/orders\n" in text
    assert "Ready:        True (Ready)\n" in text
    assert "Peers:        2 (woken: 1 by doorbell, 1 by poll)\n" in text
    assert "Credentials:  generation 1, " in text
    await reader.leave()


async def test_what_is_not_as_it_was_made(database: postgres.Database) -> None:
    channel = await database.create_channel("shop.orders")
    async with database.session() as session:
        await session.execute(f"alter role {channel.username} connection limit 0 nologin")
    shown = status(database, code=1)
    assert f"test/test: DriftRemains: login {channel.username} was changed: the operator, or busctl apply," in shown
    assert json.loads(status(database, "shop.orders", "-o", "json", code=1))["ready"] == "False"


async def test_a_retained_channel_is_no_failure(database: postgres.Database) -> None:
    await database.create_channel("shop.orders")
    async with database.session() as session:
        await session.execute("update pgmq_bus.channel set owner_uid = null")
    assert "Unknown" in status(database)
    assert "Retained" in status(database, "shop.orders")


async def test_shards_are_read_as_well(database: postgres.Database) -> None:
    await database.create_channel("shop.orders")
    shard = postgres.Database(database.server, f"{database.name}_bus_1")
    async with database.session() as session:
        await session.execute(f"create database {shard.name} template bus_template")
    await shard.create_channel("shop.audit")
    assert [line.split()[:4] for line in status(database).splitlines()[1:]] == [
        ["shop.audit", "True", shard.name, "shard"],
        ["shop.orders", "True", database.name, "0"],
    ]


async def test_what_cannot_be_read_says_why(server: postgres.Server, database: postgres.Database) -> None:
    def error(*arguments: str, uri: str) -> str:
        done = busctl_program.run("status", *arguments, BUSCTL_DATABASE=uri)
        assert (done.returncode, done.stdout) == (1, "")
        assert server.password not in done.stderr
        return done.stderr.splitlines()[-1]

    where = f"127.0.0.1:{server.port}"
    empty = await postgres.create_database(server, "template1")
    assert error(uri=empty.dsn) == (
        f"error: there is no message bus in {where}/{empty.name}: busctl apply installs one; or is it elsewhere?"
        " [NotInstalled]"
    )
    assert error("orders", uri=database.dsn) == (
        f"error: {where}/{database.name} holds no channel 'orders': busctl status --database URI shows all [NotFound]"
    )
    await postgres.drop_database(empty)
    async with database.session() as session:
        await session.execute("create role busctl_visitor login password 'hunter2'")
        try:
            visitor = server.uri(database.name, "busctl_visitor", "hunter2")
            assert error(uri=visitor) == (
                f"error: busctl_visitor may not read the bus in {where}/{database.name}: as its administrator run"
                ' GRANT pgmq_bus_owner TO "busctl_visitor" [InsufficientPrivilege]'
            )
        finally:
            await session.execute("drop role busctl_visitor")
        await session.execute("update pgmq_bus.installation set schema_version = 1")
        await session.execute("alter table pgmq_bus.channel_state rename column dropped_lost to other")
    assert f"{database.name} has schema version 1, this busctl needs " in error(uri=database.dsn)


async def test_reading_writes_nothing(database: postgres.Database) -> None:
    """The server itself would refuse."""
    from bus_operator.database import connect_to_read

    async with connect_to_read(database.admin) as session:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await session.execute("create table pgmq_bus.notes ()")
        assert await session.fetchval("select current_setting('application_name')") == "busctl"
