"""`busctl plan` on a database: what it says is what `busctl apply` then does, and it changes nothing."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import busctl_program
import postgres
import pytest
import yaml

from bus_operator import dry_run, provision, sql
from bus_operator.actions import DesiredChannel
from bus_operator.database import connect, connect_to_read
from bus_operator.dry_run import NEW, Statement
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules

# One version is enough: the statements are those of the operator, which other tests run on all.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

Busctl = Callable[..., tuple[str, str]]
CHANGES = 3
VERIFIER = re.compile(r"SCRAM-SHA-256\$\d")


def manifest(name: str = "orders", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata, "spec": spec}


@pytest.fixture
def busctl(tmp_path: Path) -> Busctl:
    """Runs it on a database with these manifests."""

    def run(command: str, uri: str, *documents: Any, options: tuple[str, ...] = (), code: int = 0) -> tuple[str, str]:
        (tmp_path / "bus.yaml").write_text(yaml.safe_dump_all(documents))
        arguments = (command, "-f", "bus.yaml", "--bindings", "bindings", *options)
        done = busctl_program.run(*arguments, directory=tmp_path, BUSCTL_DATABASE=uri)
        assert done.returncode == code, done.stdout + done.stderr
        assert not VERIFIER.search(done.stdout + done.stderr)
        return done.stdout, done.stderr

    return run


async def objects(database: postgres.Database) -> list[tuple[str, ...]]:
    """Everything in the database, and the roles of the server, as far as a plan could touch it."""
    session = await database.server.connect(database.name)
    try:
        return [
            tuple(row)
            for query in (
                "select oid::text, relname::text, xmin::text from pg_class where relkind <> 't'",
                "select oid::text, proname::text, xmin::text from pg_proc",
                "select oid::text, rolname::text, coalesce(rolpassword, '') from pg_authid",
                "select oid::text, datname::text from pg_database where datname = current_database()",
            )
            for row in await session.fetch(f"{query} order by 1")
        ]
    finally:
        await session.close()


async def test_from_nothing_to_unchanged(server: postgres.Server, busctl: Busctl) -> None:
    database = await postgres.create_database(server, "template1")
    before = await objects(database)
    shown, said = busctl("plan", database.dsn, manifest(), code=CHANGES)
    where = f"127.0.0.1:{server.port}/{database.name}"
    lines = shown.splitlines()
    assert lines[0] == f"database {where}"
    for line in (
        f"  + install schema version {sql.schema_version()}",
        "  + install functions",
        f"BusChannel shop/orders in {where}",
        "  + create channel 'shop.orders'",
        "  + issue credential generation 1",
        "  + write bindings/orders",
    ):
        assert line in lines
    assert f'      CREATE ROLE "bus_channel_{NEW}" NOLOGIN' in shown
    assert f'ALTER ROLE "bus_login_{NEW}_g1" LOGIN INHERIT CONNECTION LIMIT ' in shown
    assert "PASSWORD 'SCRAM-SHA-256$...';" in shown
    assert re.search(r"-- \d+ more lines: --sql shows them", shown)
    assert said.splitlines()[-1] == "2 of 2 would change; nothing was changed"
    full, _ = busctl("plan", database.dsn, manifest(), options=("--sql",), code=CHANGES)
    assert sql.schema().strip().splitlines()[-1].strip() in full
    assert "--sql shows them" not in full
    assert await objects(database) == before

    busctl("apply", database.dsn, manifest())
    shown, said = busctl("plan", database.dsn, manifest())
    assert shown.splitlines() == [f"database {where}: unchanged", f"BusChannel shop/orders in {where}: unchanged"]
    assert said.splitlines()[-1] == "0 of 2 would change; nothing was changed"
    await postgres.drop_database(database)


async def test_what_changes_and_what_cannot_be(database: postgres.Database, busctl: Busctl) -> None:
    busctl("apply", database.dsn, manifest())
    await database.create_channel("shop.audit")
    async with database.session() as session:
        await session.execute("alter function public.bus_leave(text, text) security invoker")
    changed = manifest(durability="Unlogged", retention={"maxMessages": 9})
    shown, _ = busctl("plan", database.dsn, changed, manifest("audit"), options=("-o", "json"), code=1)
    data = json.loads(shown)
    shared, orders, audit = data["items"]
    assert data["changes"]
    assert any(action.startswith("put right: function public.bus_leave") for action in shared["actions"])
    assert orders["actions"] == ["update channel 'shop.orders'", orders["actions"][1]]
    assert orders["actions"][1].endswith(" unlogged")
    (update,) = [item for item in orders["statements"] if item["sql"] == sql.query("update_channel")]
    assert update["arguments"][4] == "Unlogged"
    assert update["arguments"][-2] == 9
    assert any("SET UNLOGGED" in item["sql"] for item in orders["statements"])
    assert audit["error"] == {
        "reason": "ChannelConflict",
        "message": "channel 'shop.audit' belongs to BusChannel test/test: choose another spec.channel",
    }
    # A namespace is that of manifests that name none, as for apply.
    nameless = manifest("orders") | {"metadata": {"name": "orders"}}
    shown, _ = busctl("plan", database.dsn, nameless, options=("-n", "team"), code=CHANGES)
    assert "  + create channel 'team.orders'" in shown.splitlines()
    shown, _ = busctl("plan", database.dsn, manifest("audit"), code=1)
    assert "  ! ChannelConflict: channel 'shop.audit' belongs to BusChannel test/test" in shown


async def test_more_shards(database: postgres.Database, busctl: Busctl) -> None:
    shards = {
        "apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusDatabase", "metadata": {"name": "main"},
        "spec": {"connectionSecretRef": {"name": "x"}, "shards": 2},
    }  # fmt: skip
    await database.create_channel("shop.other")
    shown, said = busctl("plan", database.dsn, shards, manifest(), code=CHANGES)
    second = f"{database.name}_bus_1"
    assert f"  + create database {second}" in shown
    assert f'      CREATE DATABASE "{second}" TEMPLATE template0 ' in shown
    # It would be the emptier one.
    assert f"BusChannel shop/orders in 127.0.0.1:{database.server.port}/{second}" in shown
    assert "only spec.shards is used" in said
    applied, _ = busctl("apply", database.dsn, shards, manifest())
    assert f"/{second}: install" in applied
    assert busctl("plan", database.dsn, shards, manifest())[0].count("unchanged") == 3


class Logged:
    """The statements that a session runs."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    def __call__(self, record: Any) -> None:
        self.statements.append(Statement(record.query, tuple(record.args or ())))


@pytest.mark.parametrize(
    "spec",
    [{}, {"durability": "Unlogged"}, {"limits": {"maxConnections": 7}}, {"retention": {"maxAge": "1h"}}],
    ids=["unchanged", "durability", "limits", "retention"],
)
async def test_the_statements_are_those_that_are_run(database: postgres.Database, spec: dict[str, Any]) -> None:
    """Of a new channel, and of a change with a rotation: one after the other as the operator runs them."""

    def desired(**spec: Any) -> DesiredChannel:
        parsed = ChannelSpec.model_validate(spec)
        return DesiredChannel.from_spec(parsed, namespace="shop", name="orders", uid=Uid("uid-1"))

    held = None
    for wanted, rules in ((desired(), RotationRules()), (desired(**spec), RotationRules(request="now"))):
        async with connect_to_read(database.admin) as reader:
            planned = await dry_run.channel_of(reader, wanted, held, rotation=rules, binding_wanted=True)
        logged = Logged()
        async with connect(database.admin) as session:
            session.add_query_logger(logged)
            done = await provision.provision(session, wanted, held, rotation=rules)
            session.remove_query_logger(logged)
        assert done.issued is not None
        held = HeldCredential(done.issued.username, done.issued.password)
        assert planned.actions == tuple(map(str, done.actions))
        assert planned.issues
        token = done.channel.queue.removeprefix("bus_")
        number = str(done.channel.id)
        assert [comparable(item, token, number) for item in planned.statements] == [
            comparable(item, token, number) for item in logged.statements if changes(item)
        ]


LOOKS = ("select", "begin", "commit", "savepoint", "release", "with", "set local jit")
"""How statements begin that only look, and the frame of transactions."""


def changes(statement: Statement) -> bool:
    """Whether it is more than a look."""
    if statement.text in map(sql.query, ("create_queue", "lock_channel", "insert_channel")):
        return True
    text = re.sub(r"^(\s*--.*\n)*", "", statement.text).strip().lower()
    return not text.startswith(LOOKS)


def comparable(statement: Statement, token: str, number: str) -> str:
    """Without what is chosen at random: the names, the number, verifiers."""
    given = [
        f"{item.total_seconds():g} seconds" if isinstance(item, timedelta) else item for item in statement.arguments
    ]
    text = f"{statement.text.strip()} {given}"
    text = text.replace(token, NEW).replace(NEW, "")
    text = re.sub(r"SCRAM-SHA-256\$[^'\s]+", "", text)
    text = re.sub(r"(\w+):[0-9a-f]{32}", r"\1:...", text)
    return re.sub(rf"(?<!\d)({number}|0)(?!\d)", "N", text)
