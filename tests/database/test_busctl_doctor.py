"""`busctl doctor` on a database: each thing that can be wrong, with the real thing, and its code."""

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import busctl_program
import former
import postgres
import pytest
from pgbouncer import pgbouncer
from recorder import note
from standby import clone
from wire import Peer

from bus_runtime import PgmqBus
from bus_runtime.address import ADDRESS_VARIABLE

# One version is enough: what differs between them is in the other tests.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

PASSWORD = "hunter2-in-the-clear"

Join = Callable[..., Awaitable[Peer]]
Item = dict[str, Any]


class Diagnosis:
    """What it says, as programs read it."""

    def __init__(self, uri: str, *arguments: str) -> None:
        done = busctl_program.run("doctor", *arguments, "-o", "json", BUSCTL_DATABASE=uri)
        assert PASSWORD not in done.stdout + done.stderr
        assert done.stdout, done.stderr
        self.found = json.loads(done.stdout)
        assert done.returncode == (0 if self.found["healthy"] else 1)
        self.checks: dict[str, Item] = {
            check["title"]: check for item in reversed(self.found["items"]) for check in item["checks"]
        }

    def finding(self, title: str) -> Item:
        (finding,) = self.checks[title]["findings"]
        return dict(finding)

    def codes(self) -> dict[str, str]:
        """Where something was found, what."""
        return {title: finding["code"] for title, check in self.checks.items() for finding in check["findings"]}

    def skipped(self) -> set[str]:
        return {title for title, check in self.checks.items() if check["state"] == "skipped"}


@asynccontextmanager
async def administrator(server: postgres.Server, attributes: str, template: str = "bus_template") -> AsyncIterator[str]:
    """The URI of an administrator with these attributes who owns a database of their own."""
    database = await postgres.create_database(server, template)
    role = f"doctor_{database.name[-8:]}"
    async with database.session() as session:
        await session.execute(f"create role {role} login password '{PASSWORD}' {attributes}")
        await session.execute(f"alter database {database.name} owner to {role}")
    yield server.uri(database.name, role, PASSWORD)
    await postgres.drop_database(database)
    session = await server.connect()
    await session.execute(f"drop role {role}")
    await session.close()


async def test_all_is_well(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("orders")
    peer = await join(orders, host="worker-1", runtime="bus_runtime/0.1.9")
    await peer.publish(1)
    await peer.read(acknowledge=1)
    diagnosis = Diagnosis(database.dsn)
    assert diagnosis.codes() == {}
    assert diagnosis.skipped() == set()
    assert [(item["kind"], item["state"]) for item in diagnosis.found["items"]] == [
        ("Database", "ok"),
        ("Channel", "ok"),
    ]
    done = busctl_program.run("doctor", "orders", BUSCTL_DATABASE=database.dsn)
    assert (done.returncode, "nothing is wrong" in done.stderr) == (0, True)
    assert done.stdout.splitlines()[0] == f"✓ Database 127.0.0.1:{database.server.port}/{database.name}"


def test_a_server_that_is_down(server: postgres.Server) -> None:
    port = postgres.free_port()
    diagnosis = Diagnosis(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/app", "orders")
    assert diagnosis.codes() == {"connection": "ConnectionFailed"}
    assert diagnosis.finding("connection")["explain"] == "busctl explain ConnectionFailed"
    needs = {"server", "pooler", "client endpoint", "rights", "PGMQ", "schema", "drift", "ready"}
    assert diagnosis.skipped() == needs


def test_a_wrong_password(server: postgres.Server) -> None:
    diagnosis = Diagnosis(server.uri("postgres", "postgres", PASSWORD))
    assert diagnosis.codes() == {"connection": "AuthenticationFailed"}


@pytest.fixture(scope="module")
def spare(server: postgres.Server) -> Iterator[postgres.Server]:
    """One more server, which tests stop and close."""
    made = postgres.start_server(server.version)
    yield made
    made.remove()


def until(uri: str, code: str, words: str) -> str:
    """What it says of the connection, as soon as it has this code and these words."""
    for _ in range(100):
        diagnosis = Diagnosis(uri)
        assert diagnosis.codes() == {"connection": diagnosis.finding("connection")["code"]}
        finding = diagnosis.finding("connection")
        if finding["code"] == code and words in finding["message"]:
            return str(finding["message"])
    raise AssertionError(f"{words!r} was not said; at last: {finding}")


async def test_a_server_that_lets_nobody_in_from_here(spare: postgres.Server) -> None:
    session = await spare.connect()
    await session.execute(f"create role outsider login password '{PASSWORD}'")
    rules = spare.directory / "data" / "pg_hba.conf"
    rules.write_text(f"host all outsider 127.0.0.1/32 reject\n{rules.read_text()}")
    await session.execute("select pg_reload_conf()")
    await session.close()
    uri = spare.uri("postgres", "outsider", PASSWORD)
    said = await asyncio.to_thread(until, uri, "AuthenticationFailed", "pg_hba.conf rejects connection")
    assert "that the server's pg_hba.conf lets it log in from here" in said


async def test_a_server_that_is_shutting_down(spare: postgres.Server) -> None:
    """As long as somebody is in it."""
    session = await spare.connect()
    assert spare.process is not None
    spare.process.send_signal(signal.SIGTERM)
    said = await asyncio.to_thread(until, spare.uri(), "ConnectionFailed", "the database system is shutting down")
    assert "try again in a moment" in said
    await session.close()
    await asyncio.to_thread(spare.process.wait, 30)
    spare.start()


def test_a_server_that_is_starting_up(spare: postgres.Server) -> None:
    """It waits for its archive, which does not answer."""
    spare.stop()
    begin = spare.directory / "data" / "recovery.signal"
    begin.touch(mode=0o666)
    started = postgres.Server(
        spare.version, spare.directory, spare.port, spare.password, spare.programs,
        options=("-c", "restore_command=sleep 600"),
    )  # fmt: skip
    started.launch()
    try:
        said = until(spare.uri(), "ConnectionFailed", "the database system is starting up")
        assert "try again in a moment" in said
    finally:
        started.stop(signal.SIGQUIT)
        begin.unlink(missing_ok=True)
        spare.start()


@pytest.fixture
def replica(server: postgres.Server) -> Iterator[postgres.Server]:
    """A standby of a server with a database `bus_template`."""
    primary = postgres.start_server(server.version)
    made = None
    try:
        postgres.create_template(primary)
        made = clone(primary)
        yield made
    finally:
        primary.remove()
        if made is not None:
            made.remove()
            shutil.rmtree(made.directory, ignore_errors=True)


def test_a_standby(replica: postgres.Server) -> None:
    diagnosis = Diagnosis(replica.uri("bus_template"))
    assert diagnosis.codes() == {"server": "DatabaseReadOnly"}
    assert {"schema", "drift"} <= diagnosis.skipped()


async def test_no_connection_left(server: postgres.Server) -> None:
    async with administrator(server, "createrole connection limit 0") as uri:
        assert Diagnosis(uri).codes() == {"connection": "ConnectionsExhausted"}


async def test_no_rights(server: postgres.Server) -> None:
    async with administrator(server, "") as uri:
        diagnosis = Diagnosis(uri)
    assert diagnosis.codes() == {"rights": "InsufficientPrivilege"}
    message = diagnosis.finding("rights")["message"]
    assert "CREATEROLE" in message
    assert "GRANT pgmq_bus_owner TO doctor_" in message
    assert diagnosis.skipped() == {"schema", "drift"}


async def test_nothing_is_installed(server: postgres.Server) -> None:
    empty = await postgres.create_database(server, "template1")
    assert Diagnosis(empty.dsn).codes() == {"schema": "NotInstalled"}
    await postgres.drop_database(empty)


async def test_pgmq_is_gone(database: postgres.Database) -> None:
    async with database.session() as session:
        await session.execute("drop schema pgmq cascade")
    assert Diagnosis(database.dsn).codes() == {"PGMQ": "PgmqMissing"}


@pytest.fixture
def former_pgmq() -> Iterator[Path]:
    """The extension of a package from before messages had headers; what it consists of does not matter."""
    with tempfile.TemporaryDirectory() as directory:
        extensions = Path(directory, "extension")
        extensions.mkdir()
        (extensions / "pgmq.control").write_text("default_version = '1.4.4'\nrelocatable = false\nschema = pgmq\n")
        (extensions / "pgmq--1.4.4.sql").write_text("create table pgmq.meta (queue_name text);\n")
        # The server is another user.
        Path(directory).chmod(0o755)
        yield Path(directory)


async def test_pgmq_is_too_old(server: postgres.Server, former_pgmq: Path, tmp_path: Path) -> None:
    empty = await postgres.create_database(server, "template1")
    async with empty.session() as session:
        await session.execute(f"set extension_control_path = '{former_pgmq}'")
        await session.execute("create schema pgmq; create extension pgmq")
    diagnosis = Diagnosis(empty.dsn)
    assert diagnosis.codes() == {"PGMQ": "PgmqTooOld"}
    assert "ALTER EXTENSION pgmq UPDATE" in diagnosis.finding("PGMQ")["message"]
    manifest = tmp_path / "bus.yaml"
    manifest.write_text("{apiVersion: pgmqbus.dev/v1alpha1, kind: BusChannel, metadata: {name: orders}}")
    done = busctl_program.run("apply", "-f", str(manifest), BUSCTL_DATABASE=empty.dsn)
    assert done.stderr.endswith(" [PgmqTooOld]\n")
    await postgres.drop_database(empty)


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_before_the_administrator(
    server: postgres.Server, database: postgres.Database, mode: str
) -> None:
    with pgbouncer(server, mode, pool_size=5) as pooler:
        diagnosis = Diagnosis(database.dsn.replace(f":{server.port}/", f":{pooler.port}/"))
    assert diagnosis.codes() == ({"pooler": "PoolerInTransactionMode"} if mode == "transaction" else {})


@pytest.mark.parametrize(("by", "code"), [(1, "SchemaTooNew"), (-1, "SchemaTooOld")])
async def test_another_releases_schema(database: postgres.Database, by: int, code: str) -> None:
    async with database.session() as session:
        await session.execute("update pgmq_bus.installation set schema_version = schema_version + $1", by)
    diagnosis = Diagnosis(database.dsn)
    assert diagnosis.codes()["schema"] == code
    assert "drift" in diagnosis.skipped()


async def test_the_schema_of_a_former_operator(server: postgres.Server) -> None:
    """One that is in use, with its channel."""
    empty = await postgres.create_database(server, "template1")
    await former.create_channel(former.VERSIONS[-1], empty, "orders")
    diagnosis = await asyncio.to_thread(Diagnosis, empty.dsn)
    assert diagnosis.codes() == {"schema": "SchemaTooOld"}
    message = diagnosis.finding("schema")["message"]
    assert f"has schema version {former.VERSIONS[-1]}" in message
    assert "upgrade the operator, or run busctl apply" in message
    await postgres.drop_database(empty)


async def test_changes_by_hand(database: postgres.Database) -> None:
    await database.create_channel("orders")
    async with database.session() as session:
        await session.execute("grant select on pgmq_bus.peer to public")
    diagnosis = Diagnosis(database.dsn)
    assert diagnosis.codes() == {"drift": "DriftFound"}
    assert "pgmq_bus.peer" in diagnosis.finding("drift")["message"]


async def test_changes_by_hand_that_are_somebody_elses(database: postgres.Database) -> None:
    async with database.session() as session:
        await session.execute("create function pgmq.extra() returns integer language sql as 'select 1'")
    diagnosis = Diagnosis(database.dsn)
    assert diagnosis.codes() == {"drift": "DriftRemains"}
    assert "drop routine pgmq.extra()" in diagnosis.finding("drift")["message"]


async def test_a_public_schema_for_everybody(database: postgres.Database) -> None:
    async with database.session() as session:
        await session.execute("grant create on schema public to public")
    diagnosis = Diagnosis(database.dsn)
    assert diagnosis.codes()["schema"] == "PublicSchemaWritable"
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in diagnosis.finding("schema")["message"]


async def aged(database: postgres.Database, seconds: int) -> None:
    """As if what is in the logs had been published so long ago."""
    async with database.session() as session:
        for (queue,) in await session.fetch("select queue from pgmq_bus.channel"):
            await session.execute(
                f"update pgmq.q_{queue} set enqueued_at = enqueued_at - $1 * interval '1 second'", seconds
            )


async def test_a_stalled_peer(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("orders")
    peer = await join(orders, host="worker-1")
    await peer.publish(1, 2, 3)
    await aged(database, 60)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes() == {"readers": "PeerStalled"}
    assert (
        "pod worker-1 is there and acknowledges nothing, behind by 3 messages"
        in diagnosis.finding("readers")["message"]
    )


async def unheard(database: postgres.Database, seconds: int) -> None:
    """As if the peers that there are had ended so long ago without leaving; peerTimeout is ten minutes."""
    async with database.session() as session:
        await session.execute("update pgmq_bus.peer set last_seen = last_seen - $1 * interval '1 second'", seconds)


async def credential_withdrawn(database: postgres.Database) -> None:
    """As if the peers that there are had been heard of with a login that is not even registered any more."""
    async with database.session() as session:
        await session.execute("update pgmq_bus.peer set login = 'withdrawn'")


async def test_a_peer_that_may_have_ended(database: postgres.Database, join: Join) -> None:
    """One that runs may say nothing for as long."""
    orders = await database.create_channel("orders")
    peer = await join(orders, host="worker-1")
    await peer.publish(1, 2, 3)
    await aged(database, 125)
    await unheard(database, 125)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes() == {"readers": "PeerStalled"}
    message = diagnosis.finding("readers")["message"]
    assert "pod worker-1 acknowledges nothing, behind by 3 messages" in message
    assert "was not heard of for 2m" in message
    assert "a handler hangs, or it ended without leaving" in message


async def test_peers_that_ended_without_leaving(database: postgres.Database, join: Join) -> None:
    """Of those without a name nothing is wrong; whom messages wait for is expected back. No advice is for who runs."""
    orders = await database.create_channel("orders")
    for host in ("worker-1", "worker-2"):
        old = await join(orders, host=host, runtime="bus_runtime/0.0.1", address="10.0.0.7:9000")
        await old.wake_by("10.0.0.7:9000", listens=True)
    await old.publish(1, 2, 3)
    await aged(database, 300)
    await unheard(database, 300)
    await credential_withdrawn(database)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.found["healthy"]
    assert diagnosis.codes() == {"readers": "PeerSilent"}
    message = diagnosis.finding("readers")["message"]
    assert "not heard of for 5m: pod worker-1; pod worker-2. What ended without leaving needs nothing" in message
    assert "it counts no more when peerTimeout is over, within 4m" in message

    async with database.session() as session:
        await session.execute("delete from pgmq_bus.peer")
    billing = await join(orders, peer="billing", host="worker-3")
    await unheard(database, 300)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert (diagnosis.found["healthy"], diagnosis.codes()) == (True, {"readers": "PeerSilent"})
    assert "what is published is kept for it" in diagnosis.finding("readers")["message"]
    await billing.publish(4)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert (diagnosis.found["healthy"], diagnosis.codes()) == (False, {"readers": "PeerSilent"})
    message = diagnosis.finding("readers")["message"]
    assert "pod worker-3, durable peer 'billing' was not heard of for 5m and is expected back: 1 messages" in message
    assert "kept for it until peerTimeout is over, for 4m more. Start its workload" in message


async def test_a_former_process_of_a_pod(database: postgres.Database, join: Join) -> None:
    """Its container was killed and restarted: nobody is to restart the pod, which is well."""
    orders = await database.create_channel("orders")
    former = await join(orders, host="worker-1", application="worker")
    await former.publish(1, 2, 3)
    await aged(database, 40)
    await unheard(database, 40)
    await credential_withdrawn(database)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes()["readers"] == "PeerStalled"
    # Of another application, or of another pod, it is none.
    await join(orders, host="worker-1", application="another")
    await join(orders, host="worker-2", application="worker")
    assert Diagnosis(database.dsn, "orders").codes()["readers"] == "PeerStalled"
    await join(orders, host="worker-1", application="worker")
    diagnosis = Diagnosis(database.dsn, "orders")
    assert (diagnosis.found["healthy"], diagnosis.codes()) == (True, {"readers": "PeerSilent"})
    message = diagnosis.finding("readers")["message"]
    assert "a former process of pod worker-1 (a later one joined " in message
    assert "for 9m more, and nothing needs to be done" in message
    assert "restart" not in message
    done = busctl_program.run("peers", "orders", BUSCTL_DATABASE=database.dsn)
    states = [line.split()[2] for line in done.stdout.splitlines()[1:] if line.startswith("worker-1")]
    assert sorted(states) == ["Ok", "Ok", "Silent"]
    assert busctl_program.run("peers", "--stalled", BUSCTL_DATABASE=database.dsn).returncode == 0


async def test_a_process_that_hangs_beside_a_later_one(database: postgres.Database, join: Join) -> None:
    """One that was heard of since the later one joined is there."""
    orders = await database.create_channel("orders")
    hangs = await join(orders, host="worker-1")
    await hangs.publish(1, 2, 3)
    await join(orders, host="worker-1")
    async with database.session() as session:
        await session.execute("update pgmq_bus.peer set joined_at = joined_at - interval '2 minutes'")
    await aged(database, 60)
    await unheard(database, 60)
    codes = [finding["code"] for finding in Diagnosis(database.dsn, "orders").checks["readers"]["findings"]]
    assert codes == ["PeerStalled"]


async def test_a_credential_that_was_withdrawn(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("orders")
    await join(orders, host="worker-1")
    await credential_withdrawn(database)
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes() == {"credentials in use": "CredentialStillUsed"}
    said = diagnosis.finding("credentials in use")["message"]
    assert said == "test/test: pod worker-1 uses a credential that was withdrawn: restart it"


async def test_a_backlog_that_grows(database: postgres.Database, join: Join) -> None:
    """A reader that gets on, and is a minute behind."""
    orders = await database.create_channel("orders")
    peer = await join(orders, host="worker-1")
    await peer.publish(*range(2000))
    await aged(database, 60)
    async with database.session() as session:
        queue = await session.fetchval("select queue from pgmq_bus.channel")
        # Each published a little later than the one before.
        await session.execute(f"update pgmq.q_{queue} set enqueued_at = enqueued_at + msg_id * interval '10 ms'")

    async def read() -> None:
        for number in range(1, 2000):
            await peer.read(after=number, acknowledge=number, limit=1)
            await asyncio.sleep(0.01)

    reading = asyncio.create_task(read())
    diagnosis = await asyncio.to_thread(Diagnosis, database.dsn, "orders")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert diagnosis.codes() == {"readers": "BacklogGrowing"}


async def test_doorbells_that_do_not_arrive(
    database: postgres.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a NetworkPolicy lets no UDP through: the address is one for documentation, at which nobody hears."""
    orders = await database.create_channel("shop.orders")
    root = orders.binding_dir(tmp_path / "bindings")
    buses = []
    for host, address in (("worker-1", "192.0.2.1"), ("worker-2", "127.0.0.1")):
        monkeypatch.setenv("HOSTNAME", host)
        monkeypatch.setenv(ADDRESS_VARIABLE, address)
        buses.append(PgmqBus.from_binding(root=root))
        await buses[-1].start()

    async def is_noticed() -> bool:
        async with database.session() as session:
            return bool(
                await session.fetchval(
                    "select exists (select from pgmq_bus.peer where listens and address is not null)"
                )
            )

    async with asyncio.timeout(60):
        while not await is_noticed():
            await buses[1].publish(note(1))
            await asyncio.sleep(0.1)
    diagnosis = await asyncio.to_thread(Diagnosis, database.dsn, "shop.orders")
    await asyncio.gather(*(bus.stop() for bus in buses))
    assert diagnosis.codes() == {"doorbells": "DoorbellUnheard"}
    assert diagnosis.found["healthy"]
    message = diagnosis.finding("doorbells")["message"]
    assert message.startswith("test/test: pod worker-1 did not hear other peers' doorbells")
    assert "docs/network-policy.md" in message


async def test_nobody_reads(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("orders")
    peer = await join(orders, peer="billing", host="worker-1")
    await peer.publish(1, 2)
    async with database.session() as session:
        await session.execute("update pgmq_bus.peer set last_seen = last_seen - interval '1 day'")
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes() == {"readers": "NobodyReads"}
    assert "durable peer 'billing' by 2 messages" in diagnosis.finding("readers")["message"]


async def test_a_replaced_credential_and_another_release(database: postgres.Database, join: Join) -> None:
    orders = await database.create_channel("orders")
    await join(orders, host="worker-1", runtime="bus_runtime/9.9.0")
    await join(orders, host="worker-2", runtime="bus_runtime/0.0.9")
    async with database.session() as session:
        await session.execute(
            "insert into pgmq_bus.login select (jsonb_populate_record(l, jsonb_build_object("
            "'role', l.role || 'x', 'generation', l.generation + 1))).* from pgmq_bus.login as l"
        )
    diagnosis = Diagnosis(database.dsn, "orders")
    assert diagnosis.codes()["credentials in use"] == "CredentialStillUsed"
    used = [finding["message"] for finding in diagnosis.checks["credentials in use"]["findings"]]
    assert [f"pod worker-{number} " in message for number, message in enumerate(used, 1)] == [True, True]
    newer, older = sorted(diagnosis.checks["versions"]["findings"], key=lambda finding: bool(finding["advice"]))
    assert (newer["code"], newer["advice"]) == ("VersionSkew", False)
    assert "pod worker-1 run bus_runtime 9.9.0, newer than this release" in newer["message"]
    assert newer["message"].endswith(": upgrade the operator first")
    # That is as it is meant to be during an upgrade.
    assert (older["code"], older["advice"]) == ("VersionSkew", True)
    assert "pod worker-2 run bus_runtime 0.0.9, older than this release" in older["message"]
    assert older["message"].endswith(": it goes on working; build its image with the newer one")


async def test_a_channel_that_is_not_there(database: postgres.Database) -> None:
    done = busctl_program.run("doctor", "nowhere", BUSCTL_DATABASE=database.dsn)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("[NotFound]\n")


async def test_a_binding(database: postgres.Database, tmp_path: Path) -> None:
    """What a pod does, here: neither a cluster nor a database is named."""
    orders = await database.create_channel("orders")
    root = orders.binding_dir(tmp_path)
    done = busctl_program.run("doctor", "--binding", str(root / "orders"))
    assert done.returncode == 0, done.stdout
    async with database.session() as session:
        await session.execute(f"alter role {orders.username} password 'another'")
    done = busctl_program.run("doctor", "--binding", str(root), "-o", "json")
    assert done.returncode == 1
    codes = [
        finding["code"] for check in json.loads(done.stdout)["items"][0]["checks"] for finding in check["findings"]
    ]
    assert codes == ["AuthenticationFailed"]
