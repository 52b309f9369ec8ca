"""The operator ends and comes back: nothing of what it says or made may change by that."""

from typing import Any

from control_plane import wait_until
from operator_process import Operator
from operator_world import Namespace, Ref, World


def state(*resources: Ref) -> list[Any]:
    """What must not change: conditions with their times, generations of credentials, Events."""
    return [
        (
            resource.status["conditions"],
            resource.status.get("credentialGeneration"),
            resource.get()["metadata"]["resourceVersion"],
            resource.events(),
        )
        for resource in resources
    ]


def start_and_look_at_all(operator: Operator) -> None:
    before = len(operator.log)
    operator.start()
    wait_until(lambda: "everything was looked at once" in operator.log[before:], "everything was looked at")


async def test_sigterm(world: World, namespace: Namespace, operator: Operator) -> None:
    database = namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready()
    wait_until(lambda: database.status["channels"] == 1, "the channel is counted")
    binding = namespace.raw_secret("orders-bus")
    for resource in (database, channel):
        resource.wait_event("Normal", "Ready")
    before = state(database, channel)
    status, seconds = operator.terminate()
    assert status == 0
    assert seconds < 10
    start_and_look_at_all(operator)
    namespace.channel("new").wait_ready()
    assert state(channel) == before[1:]
    assert database.status["conditions"] == before[0][0]
    assert len(database.events()) == len(before[0][3])
    assert namespace.raw_secret("orders-bus") == binding


async def test_sigterm_while_a_server_does_not_answer(world: World, namespace: Namespace, operator: Operator) -> None:
    """In the middle of connecting to an address that swallows everything."""
    namespace.database("postgresql://postgres:x@192.0.2.1:5432/app")
    status, seconds = operator.terminate()
    operator.start()
    assert status == 0
    assert seconds < 10


async def test_killed_without_flapping(world: World, namespace: Namespace, operator: Operator) -> None:
    database = namespace.database((await world.postgres()).dsn)
    channels = [namespace.channel(f"channel-{number}") for number in range(5)]
    for channel in channels:
        channel.wait_ready()
    wait_until(lambda: database.status["channels"] == 5, "the channels are counted")
    before = state(*channels)
    operator.kill()
    start_and_look_at_all(operator)
    namespace.channel("new").wait_ready()
    wait_until(lambda: database.status["channels"] == 6, "the new one is counted")
    assert state(*channels) == before


async def test_killed_while_thirty_channels_are_made(world: World, namespace: Namespace, operator: Operator) -> None:
    created = await world.postgres()
    database = namespace.database(None)
    for number in range(30):
        namespace.channel(f"channel-{number}")
    # All of them wait for it, so that most still do when the first is ready.
    namespace.put_secret(f"{database.name}-admin", {"uri": created.dsn})
    wait_until(lambda: namespace.ready_channels() > 0, "the first is ready")
    operator.kill()
    assert 0 < namespace.ready_channels() < 30
    operator.start()
    wait_until(lambda: namespace.ready_channels() == 30, "all are ready")
    # Every binding works, and nothing was made twice.
    for number in range(30):
        async with namespace.login(f"channel-{number}-bus") as login:
            await login.join()
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.channel") == 30
        assert await session.fetchval("select count(*) from pgmq.meta") == 30


async def test_what_was_deleted_while_it_was_away(world: World, namespace: Namespace, operator: Operator) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    operator.kill()
    channel.delete()
    assert channel.get()["metadata"]["deletionTimestamp"]
    operator.start()
    channel.wait_gone()
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.channel") == 0


async def test_deleted_before_its_status_was_ever_written(
    world: World, namespace: Namespace, operator: Operator
) -> None:
    """Killed between making the channel and saying so: deleting it must find it all the same."""
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    operator.kill()
    world.kube.request(
        "PATCH",
        f"{channel.path}/status",
        [{"op": "remove", "path": "/status"}],
        "application/json-patch+json",
    )
    assert channel.status == {}
    channel.delete()
    operator.start()
    channel.wait_gone()
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.channel") == 0
