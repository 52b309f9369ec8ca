"""One BusDatabase over several databases of its server."""

import re
import secrets
from collections import Counter

import pytest
from control_plane import wait_until
from operator_world import Namespace, World


async def test_channels_are_spread_and_stay(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    database = namespace.database(created.dsn, shards=2)
    database.wait_ready()
    names = ["a", "b", "c", "d"]
    channels = {name: namespace.channel(name) for name in names}
    homes = {name: channel.wait_ready()["shard"] for name, channel in channels.items()}
    assert Counter(homes.values()) == {0: 2, 1: 2}
    for name, index in homes.items():
        binding = namespace.secret(f"{name}-bus") or {}
        expected = f"{created.name}_bus_1" if index else created.name
        assert binding["database"] == expected
        assert f"/{expected}?" in binding["uri"]
        async with namespace.login(f"{name}-bus") as login:
            await login.publish(await login.join(), name)
        assert channels[name].condition("Provisioned")["message"].endswith(f"/{expected}")
    wait_until(lambda: database.status["channels"] == 4, "the channels of all shards are counted")

    database.patch({"shards": 3})
    database.wait_ready()
    assert namespace.channel("e").wait_ready()["shard"] == 2
    # What was retained is found where it is, although the new manifest knows nothing of it.
    channels["b"].delete()
    channels["b"].wait_gone()
    assert namespace.channel("b").wait_ready()["shard"] == homes["b"]
    async with namespace.login("b-bus") as login:
        assert await login.read(await login.join()) == ["b"]
    assert {name: channels[name].status["shard"] for name in names} == homes


async def test_a_name_is_unique_over_all_shards(world: World, namespace: Namespace) -> None:
    namespace.database((await world.postgres()).dsn, shards=3).wait_ready()
    rivals = [namespace.channel(f"rival-{number}", channel="orders") for number in range(4)]
    wait_until(
        lambda: sorted(rival.condition().get("reason", "") for rival in rivals) == ["ChannelConflict"] * 3 + ["Ready"],
        "one has the channel",
        seconds=20,
    )


async def test_deletion_in_a_shard(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    database = namespace.database(created.dsn, shards=2)
    first = namespace.channel("first", deletionPolicy="Delete")
    first.wait_ready()
    second = namespace.channel("second", deletionPolicy="Delete")
    assert second.wait_ready()["shard"] == 1
    second.delete()
    second.wait_gone()
    wait_until(lambda: database.status["channels"] == 1, "the count follows")
    connection = await created.server.connect(f"{created.name}_bus_1")
    assert await connection.fetchval("select count(*) from pgmq.meta") == 0
    await connection.close()


@pytest.mark.parametrize("remedy", [0, 1])
async def test_without_the_right_to_create_databases(world: World, namespace: Namespace, remedy: int) -> None:
    """What is there is used; the message holds two commands, and each of them helps."""
    created = await world.postgres(installed=False)
    name, password = f"admin_{secrets.token_hex(4)}", secrets.token_hex(8)
    superuser = await created.server.connect(created.name)
    await superuser.execute(
        f"create role {name} login createrole password '{password}'; alter database {created.name} owner to {name};"
        f"do $$ begin if to_regrole('pgmq_bus_owner') is not null then"
        f" grant pgmq_bus_owner, pgmq_bus_client to {name} with admin option; end if; end $$"
    )
    database = namespace.database(created.server.uri(created.name, name, password), shards=2)
    message = database.wait_for("ShardMissing")["message"]
    assert database.condition("Installed")["status"] == "False"
    assert database.condition("Reachable")["status"] == "True"
    channel = namespace.channel()
    assert channel.wait_ready()["shard"] == 0
    commands = re.findall("(?:ALTER|CREATE) [^;]*(?=;)", message)
    assert len(commands) == 2
    await superuser.execute(commands[remedy])
    database.wait_ready()
    assert namespace.channel("second").wait_ready()["shard"] == 1
    for shard in (created.name, f"{created.name}_bus_1"):
        # What the end of the test drops is not that administrator's any more.
        await superuser.execute(f"alter database {shard} owner to postgres")
    await superuser.close()
