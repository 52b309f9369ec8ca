"""BusChannels: the binding, the status, changes, and repair of what others broke."""

import json
from typing import Any

import asyncpg
import pytest
from control_plane import wait_until
from operator_world import Namespace, Ref, World


async def ready_channel(world: World, namespace: Namespace, **spec: Any) -> Ref:
    database = await world.postgres()
    namespace.database(database.dsn)
    channel = namespace.channel(**spec)
    channel.wait_ready()
    return channel


async def test_ready(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = namespace.channel(reader={"batchSize": 50})
    status = channel.wait_ready()
    name = f"{namespace.name}.orders"
    where = f"127.0.0.1:{world.server.port}/{created.name}"
    conditions = {item["type"]: (item["status"], item["reason"], item["message"]) for item in status.pop("conditions")}
    isolation = conditions.pop("IsolationVerified")
    assert isolation[:2] == ("True", "Verified")
    assert isolation[2].startswith("what a peer does works, and ")
    assert conditions == {
        "Provisioned": ("True", "Provisioned", f"channel '{name}' on {where}"),
        "CredentialsCurrent": ("True", "Current", "generation 1 in Secret orders-bus"),
        "Ready": ("True", "Ready", "everything is in place"),
    }
    assert status.pop("lastVerifiedTime")
    assert status == {
        "observedGeneration": 1,
        "channel": name,
        "secretRef": {"name": "orders-bus"},
        "database": {"namespace": namespace.name, "name": "main"},
        "shard": 0,
        "peers": 0,
        "wake": {"doorbell": 0, "listen": 0, "poll": 0},
        "backlog": 0,
        "credentialGeneration": 1,
    }
    assert channel.wait_event("Normal", "Ready") == "everything is in place"

    secret = namespace.raw_secret("orders-bus")
    resource = channel.get()["metadata"]
    assert secret["type"] == "servicebinding.io/pgmqbus"
    assert secret["metadata"]["labels"] == {"pgmqbus.dev/channel": "orders", "app.kubernetes.io/managed-by": "pgmq-bus"}
    assert secret["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "pgmqbus.dev/v1alpha1",
            "kind": "BusChannel",
            "name": "orders",
            "uid": resource["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    binding = namespace.secret("orders-bus") or {}
    password, username = binding.pop("password"), binding.pop("username")
    assert username.startswith("bus_login_")
    assert json.loads(binding.pop("config.json")) == {
        "reader": {
            "visibilityTimeoutSeconds": 30,
            "batchSize": 50,
            "pollIntervalMilliseconds": 100,
            "maxPollSeconds": 5,
        },
        "limits": {"maxPeers": 1000, "maxMessageBytes": 1048576, "maxConnections": 100},
    }
    assert binding == {
        "type": "pgmqbus",
        "provider": "pgmq-bus",
        "host": "127.0.0.1",
        "port": str(world.server.port),
        "database": created.name,
        "sslmode": "disable",
        "uri": f"postgresql://{username}:{password}@{where}?sslmode=disable",
        "channel": name,
        "generation": "1",
    }


async def test_peers_and_backlog_are_counted(world: World, namespace: Namespace) -> None:
    channel = await ready_channel(world, namespace)
    async with namespace.login() as login:
        reader = await login.join("reader", address="127.0.0.1:5000")
        writer = await login.join("writer", listens=True)
        await login.publish(writer, 1, 2, 3)
        wait_until(lambda: (channel.status["peers"], channel.status["backlog"]) == (2, 3), "the counts")
        assert channel.status["wake"] == {"doorbell": 1, "listen": 1, "poll": 0}
        assert channel.status["oldestMessageAge"].endswith("0s")
        for peer in (reader, writer):
            assert await login.read(peer, acknowledge=True) == [1, 2, 3]
        wait_until(lambda: channel.status["backlog"] == 0, "all is read")
        assert "oldestMessageAge" not in channel.status


async def test_a_change_of_the_spec(world: World, namespace: Namespace) -> None:
    channel = await ready_channel(world, namespace, limits={"maxPeers": 2})
    binding = namespace.secret("orders-bus") or {}
    channel.patch({"limits": {"maxPeers": 1, "maxMessageBytes": 2048, "maxConnections": 3}})
    channel.wait_ready()
    status = channel.status
    assert status["observedGeneration"] == 2
    assert {item["observedGeneration"] for item in status["conditions"]} == {2}
    async with namespace.login() as login:
        queue = await login.join("first")
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="maximum of 1 peers"):
            await login.join("second")
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="limit of 2048 bytes"):
            await login.publish(queue, "x" * 3000)
        limit = await login.session.fetchval("select rolconnlimit from pg_roles where rolname = session_user")
        assert limit == 3 + 1  # the operator's own
    after = namespace.secret("orders-bus") or {}
    assert json.loads(after["config.json"])["limits"] == {
        "maxPeers": 1,
        "maxMessageBytes": 2048,
        "maxConnections": 3,
    }
    assert after["password"] == binding["password"]


async def test_another_secret_name(world: World, namespace: Namespace) -> None:
    await ready_channel(world, namespace, credentials={"secretName": "my-binding"})
    assert namespace.secret("orders-bus") is None
    async with namespace.login("my-binding") as login:
        await login.join()


@pytest.mark.parametrize("damage", ["deleted", "password", "username", "channel"])
async def test_a_secret_changed_by_hand_is_restored(world: World, namespace: Namespace, damage: str) -> None:
    channel = await ready_channel(world, namespace)
    before = namespace.secret("orders-bus") or {}
    if damage == "deleted":
        namespace.delete_secret("orders-bus")
    else:
        namespace.put_secret("orders-bus", {damage: "edited"})
    credential_lost = damage != "channel"
    generation = "2" if credential_lost else "1"

    def restored() -> bool:
        binding = namespace.secret("orders-bus") or {}
        return (binding.get("generation"), binding.get("channel")) == (generation, before["channel"])

    wait_until(restored, "the binding is whole again")
    after = namespace.secret("orders-bus") or {}
    assert (after["password"] != before["password"]) == credential_lost
    async with namespace.login() as login:
        await login.join()
    wait_until(lambda: channel.status["credentialGeneration"] == int(generation), "the status says so")
    # Pods that were given the credential before go on with it.
    connection = await asyncpg.connect(before["uri"])
    await connection.close()


async def test_drift_in_the_database_is_repaired(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = namespace.channel()
    channel.wait_ready()
    username = (namespace.secret("orders-bus") or {})["username"]
    async with created.session() as session:
        await session.execute(f"DROP OWNED BY {username}; DROP ROLE {username}")
        await session.execute("DROP FUNCTION public.bus_join(text)")
    wait_until(lambda: channel.status["credentialGeneration"] == 2, "a new credential")

    async def joins() -> bool:
        try:
            async with namespace.login() as login:
                await login.session.fetchval("select public.bus_join($1)", login.channel)
        except (asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError):
            return False
        return True

    for _ in range(100):
        if await joins():
            break
    else:
        pytest.fail("the function did not come back")


async def test_secret_conflict(world: World, namespace: Namespace) -> None:
    """Somebody's Secret is left as it is, and no credential is made that could be kept nowhere."""
    created = await world.postgres()
    namespace.database(created.dsn)
    namespace.put_secret("orders-bus", {"precious": "kept"})
    channel = namespace.channel()
    condition = channel.wait_for("SecretConflict")
    assert condition["message"] == (
        f"Secret {namespace.name}/orders-bus exists and does not belong to this BusChannel: delete it, or choose"
        " another spec.credentials.secretName"
    )
    assert channel.condition("Provisioned")["status"] == "True"
    assert channel.condition("CredentialsCurrent")["reason"] == "SecretConflict"
    assert namespace.secret("orders-bus") == {"precious": "kept"}
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.login") == 0
    namespace.delete_secret("orders-bus")
    channel.wait_ready()
    async with namespace.login() as login:
        await login.join()


async def test_secret_access_denied(world: World, namespace: Namespace) -> None:
    """The channel's own namespace counts, not the database's."""
    namespace.database((await world.postgres()).dsn, allowedNamespaces={"from": "All"})
    other = world.namespace(bound=False)
    channel = other.channel(database=f"{namespace.name}/main")
    message = channel.wait_for("SecretAccessDenied")["message"]
    assert f"--namespace {other.name} " in message
    assert channel.condition("CredentialsCurrent")["status"] == "False"
    other.bind_secrets_role()
    channel.wait_ready()
    told = channel.wait_event("Normal", "CredentialRotated")
    assert told.startswith("credential generation 1: the first; verified at"), "there was none to rotate"


async def test_nothing_is_written_when_nothing_changed(world: World, namespace: Namespace) -> None:
    """Over several resyncs. Each write would wake every watcher of the cluster."""
    await ready_channel(world, namespace)
    database, channel = (
        Ref(world.kube, "busdatabases", namespace.name, "main"),
        Ref(world.kube, "buschannels", namespace.name, "orders"),
    )
    created = await world.postgres()
    marker = namespace.database(created.dsn, "marker")
    marker.wait_ready()
    wait_until(lambda: database.status["channels"] == 1, "the channel is counted")

    def versions() -> tuple[str, ...]:
        objects = [database.get(), channel.get(), namespace.raw_secret("orders-bus")]
        return tuple(item["metadata"]["resourceVersion"] for item in objects)

    before, events = versions(), len(database.events()) + len(channel.events())
    # Two resyncs are over when the operator has twice repaired what only a resync notices.
    for _ in range(2):
        async with created.session() as session:
            await session.execute("DROP FUNCTION public.bus_join(text)")
        async with created.session() as session:
            while await session.fetchval("select to_regproc('public.bus_join') is null"):
                await session.execute("select pg_sleep(0.05)")
    assert versions() == before
    assert len(database.events()) + len(channel.events()) == events


async def test_thirty_channels_at_once(world: World, namespace: Namespace) -> None:
    database = namespace.database((await world.postgres()).dsn)
    channels = [namespace.channel(f"channel-{number}") for number in range(30)]
    for channel in channels:
        channel.wait_ready()
    wait_until(lambda: database.status["channels"] == 30, "all are counted")
    users = {(namespace.secret(f"channel-{number}-bus") or {})["username"] for number in range(30)}
    assert len(users) == 30
