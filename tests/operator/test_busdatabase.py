"""BusDatabases: what their status says about a server, and what it tells users to do."""

import re
import secrets
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import postgres
import pytest
from control_plane import wait_until
from operator_process import RELEASE, RELEASE_NAMESPACE, SECRETS_ROLE
from operator_world import Namespace, World

from bus_operator import sql
from hack.cluster.layout import cache_directory


async def test_ready(world: World, namespace: Namespace) -> None:
    """An empty database, from nothing to installed."""
    server = world.server
    created = await world.postgres(installed=False)
    database = namespace.database(created.dsn)
    status = database.wait_ready()
    messages = {item["type"]: (item["status"], item["reason"], item["message"]) for item in status["conditions"]}
    assert messages == {
        "Reachable": ("True", "Connected", f"connected to 127.0.0.1:{server.port}/{created.name} as postgres"),
        "Installed": ("True", "Installed", f"schema version {sql.schema_version()}"),
        "Ready": ("True", "Ready", "everything is in place"),
    }
    assert re.fullmatch(r"18\.\d+", status["serverVersion"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["pgmqVersion"])
    assert status["schemaVersion"] == sql.schema_version()
    assert status["channels"] == 0
    assert status["observedGeneration"] == 1
    probed = datetime.fromisoformat(status["lastProbeTime"])
    assert timedelta() <= datetime.now(UTC) - probed < timedelta(seconds=30)
    assert database.wait_event("Normal", "Ready") == "everything is in place"
    namespace.channel()
    wait_until(lambda: database.status["channels"] == 1, "the channel is counted")


def test_secret_not_found(world: World, namespace: Namespace) -> None:
    database = namespace.database(None)
    assert database.wait_for("SecretNotFound")["message"] == (
        f"Secret {namespace.name}/main-admin does not exist: create it with the key 'uri' holding an administrator's"
        " URI (postgresql://user:password@host:5432/dbname)"
    )
    assert database.condition("Reachable")["status"] == "False"
    assert database.condition("Installed")["reason"] == "Waiting"
    database.wait_event("Warning", "SecretNotFound")
    assert len(database.events()) == 1


async def test_another_key_and_basic_auth_keys(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.put_secret("by-key", {"superuser-uri": created.dsn})
    by_key = namespace.database(None, "by-key", connectionSecretRef={"name": "by-key", "key": "superuser-uri"})
    basic = {
        "host": "127.0.0.1",
        "port": str(world.server.port),
        "dbname": created.name,
        "username": "postgres",
        "password": world.server.password,
    }
    namespace.put_secret("basic-auth", basic)
    by_parts = namespace.database(None, "basic-auth", connectionSecretRef={"name": "basic-auth"})
    by_key.wait_ready()
    by_parts.wait_ready()


MARKER = "pa55-" + secrets.token_hex(8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"uri": f"postgresql://postgres:{MARKER}/slash@db:5432/app"},
         "the connection URI cannot be parsed: its port is not a number, or a special character of the user or the"
         " password is not written as %XX"),
        ({"uri": f"mysql://root:{MARKER}@db/app"},
         "the connection URI must look like postgresql://user:password@host:5432/dbname"),
        ({"uri": f"postgresql://postgres:{MARKER}@db:5432"},
         "the connection URI names no database name: write postgresql://user:password@host:5432/dbname"),
        ({"password": MARKER, "username": "postgres"},
         "it has neither the key 'uri' with a connection URI nor the basic-auth keys; missing: host, dbname"),
        ({"host": "db", "port": "many", "dbname": "app", "username": "postgres", "password": MARKER},
         "its key 'port' is not a port number"),
        ({"uri": f"postgresql://postgres:{MARKER}@db..example/app"},
         "its host is no host name: a part is empty or longer than 63 characters"),
    ],
)  # fmt: skip
def test_secret_invalid(world: World, namespace: Namespace, data: dict[str, str], message: str) -> None:
    """The message says what is wrong without repeating what may be a password."""
    namespace.put_secret("main-admin", data)
    database = namespace.database(None)
    assert database.wait_for("SecretInvalid")["message"] == f"Secret {namespace.name}/main-admin: {message}"
    assert MARKER not in str(database.get())
    assert MARKER not in database.wait_event("Warning", "SecretInvalid")


async def test_authentication_failed(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    database = namespace.database(world.server.uri(created.name, password=MARKER))
    condition = database.wait_for("AuthenticationFailed")
    assert condition["message"] == (
        f"127.0.0.1:{world.server.port}/{created.name} refuses the administrator's credential: password authentication"
        f' failed for user "postgres". Check its user and password. They are in Secret {namespace.name}/main-admin, key'
        " 'uri' or username and password: a correction is noticed at once."
    )
    assert database.condition("Reachable")["reason"] == "AuthenticationFailed"
    assert MARKER not in str(database.get())


def test_nobody_listens(world: World, namespace: Namespace) -> None:
    port = postgres.free_port()
    database = namespace.database(f"postgresql://postgres:{MARKER}@127.0.0.1:{port}/app")
    message = database.wait_for("ConnectionFailed")["message"]
    assert message.startswith(f"127.0.0.1:{port}/app cannot be reached: ")
    assert MARKER not in str(database.get())


def test_host_that_does_not_resolve(world: World, namespace: Namespace) -> None:
    database = namespace.database(f"postgresql://postgres:{MARKER}@no-such-host.invalid:5432/app")
    message = database.wait_for("ConnectionFailed")["message"]
    assert message.startswith("no-such-host.invalid:5432/app cannot be reached: ")


def test_no_such_database(world: World, namespace: Namespace) -> None:
    database = namespace.database(world.server.uri("nowhere"))
    assert database.wait_for("ConnectionFailed")["message"] == (
        f'127.0.0.1:{world.server.port}/nowhere: database "nowhere" does not exist'
    )


async def test_insufficient_privilege(world: World, namespace: Namespace) -> None:
    created = await world.postgres(installed=False)
    async with created.session() as session:
        role = f"weak_{secrets.token_hex(4)}"
        await session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'")
    database = namespace.database(world.server.uri(created.name, user=role, password="weak"))
    message = database.wait_for("InsufficientPrivilege")["message"]
    assert message.startswith(
        f"127.0.0.1:{world.server.port}/{created.name}: the administrator's credential lacks a right"
    )
    assert " It needs CREATEROLE and INHERIT, must own the database, and " in message
    assert database.condition("Reachable")["status"] == "True"
    assert database.condition("Installed")["status"] == "False"
    async with created.session() as session:
        await session.execute(f"DROP ROLE {role}")


async def test_schema_too_new(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    async with created.session() as session:
        await session.execute("UPDATE pgmq_bus.installation SET schema_version = 999")
    database = namespace.database(created.dsn)
    assert database.wait_for("SchemaTooNew")["message"] == (
        f"the database has schema version 999, newer than this operator's {sql.schema_version()}: upgrade the operator"
    )
    assert database.condition("Installed")["status"] == "False"


async def test_public_schema_writable(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    async with created.session() as session:
        await session.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    database = namespace.database(created.dsn)
    message = database.wait_for("PublicSchemaWritable")["message"]
    async with created.session() as session:
        # What the message says.
        (command,) = re.findall(r"run (REVOKE .* FROM PUBLIC)", message)
        await session.execute(command)
    database.wait_ready()


async def test_endpoint_for_clients(world: World, namespace: Namespace) -> None:
    """Pods get another address than the operator, and a change of it at once."""
    database = namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready()
    before = namespace.secret("orders-bus") or {}
    database.patch({"clientEndpoint": {"host": "pooler.example", "port": 6432, "sslMode": "require"}})
    wait_until(lambda: (namespace.secret("orders-bus") or {})["host"] == "pooler.example", "the binding follows")
    binding = namespace.secret("orders-bus") or {}
    assert (binding["port"], binding["sslmode"]) == ("6432", "require")
    assert binding["uri"].endswith(f"@pooler.example:6432/{binding['database']}?sslmode=require")
    assert binding["password"] == before["password"]
    assert binding["generation"] == before["generation"]


async def test_a_server_that_goes_and_comes_back(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    database = namespace.database((await world.postgres(server=fragile_server)).dsn)
    channel = namespace.channel()
    database.wait_ready()
    channel.wait_ready()
    fragile_server.stop()
    database.wait_for("ConnectionFailed")
    message = channel.wait_for("DatabaseUnavailable")["message"]
    assert message.startswith(f"BusDatabase {namespace.name}/main is not ready: 127.0.0.1:{fragile_server.port}/")
    fragile_server.start()
    database.wait_ready()
    channel.wait_ready()
    assert channel.status["credentialGeneration"] == 1


async def test_secret_access_denied(world: World, apiserver: Path) -> None:
    """The message holds the command that grants access, and it works."""
    namespace = world.namespace(bound=False)
    database = namespace.database((await world.postgres()).dsn)
    message = database.wait_for("SecretAccessDenied")["message"]
    command = (
        f"kubectl create rolebinding {SECRETS_ROLE} --namespace {namespace.name} --clusterrole={SECRETS_ROLE}"
        f" --serviceaccount={RELEASE_NAMESPACE}:{RELEASE}"
    )
    assert message == (
        f"the operator may not use Secrets in namespace {namespace.name}, and tries again every resyncSeconds, a minute"
        f" unless it was set otherwise. Allow it with: {command}"
    )
    kubectl = cache_directory() / "bin" / "kubectl"
    subprocess.run(
        [kubectl, "--kubeconfig", apiserver, *command.split()[1:]], check=True, capture_output=True, timeout=30
    )
    database.wait_ready()


async def test_what_a_manifest_wrote_stays(world: World, namespace: Namespace) -> None:
    """The operator writes status and finalizer; a user's spec, labels and annotations are never touched."""
    database = namespace.database((await world.postgres()).dsn)
    channel = namespace.channel(limits={"maxPeers": 7})
    channel.wait_ready()
    managers = {
        (item["manager"], item.get("subresource"), *sorted(item["fieldsV1"]))
        for ref in (database, channel)
        for item in ref.get()["metadata"]["managedFields"]
        if "f:spec" not in item["fieldsV1"]
    }
    assert {manager[1:] for manager in managers} == {("status", "f:status"), (None, "f:metadata")}
    assert channel.get()["metadata"]["finalizers"] == ["pgmqbus.dev/finalizer"]
    assert "finalizers" not in database.get()["metadata"]
