"""Deleting BusChannels without their database: they go, and what their policy says is done when it is back."""

from contextlib import ExitStack
from typing import Any

import asyncpg
import postgres
import pytest
from control_plane import wait_until
from operator_process import Operator
from operator_world import Namespace, Ref, World

SECONDS = 60.0
"""What a namespace may take."""


def owed(database: Ref) -> list[tuple[str, str]]:
    """Name and policy of what is pending."""
    return sorted((item["name"], item["policy"]) for item in database.status.get("pendingDeletions", {}).values())


def wait_settled(database: Ref) -> None:
    # The database's own retries come a minute apart in the end.
    wait_until(lambda: not owed(database), "nothing is pending", 90)


def delete_while_down(channel: Ref, server: postgres.Server) -> None:
    """It goes without its database; the server stays down."""
    server.stop()
    channel.delete()
    channel.wait_gone(SECONDS)


@pytest.mark.parametrize("policy", ["Delete", "DeleteIfEmpty"])
async def test_dropped_when_the_server_is_back(
    world: World, namespace: Namespace, fragile_server: postgres.Server, policy: str
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy=policy)
    channel.wait_ready()
    delete_while_down(channel, fragile_server)
    assert owed(database) == [("orders", policy)]
    (told,) = (event for event in channel.events() if event[1] == "DeletionPending")
    name = f"{namespace.name}.orders"
    assert told[2].startswith(f"deletionPolicy {policy} is carried out on channel '{name}' when BusDatabase ")
    fragile_server.start()
    wait_settled(database)
    assert await created.channels() == []
    wait_until(
        lambda: ("Normal", "ChannelsDropped", f"of BusChannels deleted before: '{name}'") in database.events(),
        "an Event says so",
    )


async def test_retained_and_its_logins_withdrawn_when_the_server_is_back(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("Retain")
    binding = namespace.secret("orders-bus") or {}
    delete_while_down(channel, fragile_server)
    fragile_server.start()
    wait_settled(database)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(binding["uri"])
    namespace.channel().wait_ready()
    assert await namespace.messages() == [1, 2, 3]


async def test_not_empty_when_the_server_is_back(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("DeleteIfEmpty")
    delete_while_down(channel, fragile_server)
    fragile_server.start()
    wait_settled(database)
    assert await created.channels() == [f"{namespace.name}.orders"]
    message = f"still holding messages, retained: '{namespace.name}.orders'"
    wait_until(lambda: ("Warning", "NotEmpty", message) in database.events(), "an Event says so")


async def test_the_note_survives_the_operator(
    world: World, namespace: Namespace, fragile_server: postgres.Server, operator: Operator
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    delete_while_down(channel, fragile_server)
    operator.kill()
    fragile_server.start()
    assert await created.channels() == [f"{namespace.name}.orders"]
    operator.start()
    wait_settled(database)
    assert await created.channels() == []


async def test_made_anew_before_it_was_dropped(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    """It gets what is there: a deletion that was not carried out yet can be taken back."""
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("Delete")
    delete_while_down(channel, fragile_server)
    again = namespace.channel(deletionPolicy="Delete")
    again.wait_for("DatabaseUnavailable", seconds=SECONDS)
    fragile_server.start()
    again.wait_ready(90)
    wait_settled(database)
    assert await namespace.messages() == [1, 2, 3]
    again.delete()
    again.wait_gone()
    assert await created.channels() == []


async def test_the_loser_of_a_conflict_drops_nothing_later_either(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn)
    winner = namespace.channel("winner", channel="the-name")
    winner.wait_ready()
    world.wait_for_the_next_second(namespace, winner)
    loser = namespace.channel("loser", channel="the-name", deletionPolicy="Delete")
    loser.wait_for("ChannelConflict")
    binding = namespace.secret("winner-bus") or {}
    delete_while_down(loser, fragile_server)
    fragile_server.start()
    wait_settled(database)
    assert await created.channels() == ["the-name"]
    async with namespace.login("winner-bus") as login:
        await login.join()
    assert namespace.secret("winner-bus") == binding


async def test_the_secret_is_deleted_first(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    database = namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    namespace.delete_secret("main-admin")
    database.wait_for("SecretNotFound")
    channel.delete()
    channel.wait_gone()
    assert owed(database) == [("orders", "Delete")]
    namespace.put_secret("main-admin", {"uri": created.dsn})
    wait_settled(database)
    assert await created.channels() == []


async def test_more_than_can_be_noted(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    database = namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    namespace.delete_secret("main-admin")
    database.wait_for("SecretNotFound")
    entry = {"namespace": "a", "policy": "Delete", "since": "2026-01-01T00:00:00Z"}
    many = {f"uid-{n}": entry | {"name": f"n{n}", "channel": f"a.n{n}"} for n in range(2000)}
    world.kube.patch(f"{database.path}/status", {"status": {"pendingDeletions": many}})
    channel.delete()
    channel.wait_gone()
    # By the operator's own count, or if it has not seen all of them yet by the definition's bound.
    (message,) = (message for _, reason, message in channel.events() if reason == "NotDropped")
    assert "2000" in message
    assert message.endswith(f"channel '{namespace.name}.orders' was left as it is")
    # None of them is in the database: all are done with.
    world.kube.patch(f"{database.path}/status", {"status": {"pendingDeletions": dict.fromkeys([*many][250:])}})
    namespace.put_secret("main-admin", {"uri": created.dsn})
    wait_settled(database)
    assert await created.channels() == [f"{namespace.name}.orders"]


@pytest.mark.parametrize("how", ["down", "silent"])
async def test_a_namespace_of_thirty(
    world: World, namespace: Namespace, fragile_server: postgres.Server, how: str
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn, allowedNamespaces={"from": "All"})
    user = world.namespace()
    policies = ["Delete", "DeleteIfEmpty", "Retain"]
    channels = [
        user.channel(f"c{n}", database=f"{namespace.name}/main", deletionPolicy=policies[n % 3]) for n in range(30)
    ]
    for channel in channels:
        channel.wait_ready(60)
    with ExitStack() as stack:
        if how == "down":
            fragile_server.stop()
        else:
            stack.enter_context(fragile_server.silent())
        user.terminate("secrets", "buschannels")
        user.wait_empty(SECONDS)
        assert len(owed(database)) == 30
    if how == "down":
        fragile_server.start()
    wait_settled(database)
    assert len(await created.channels()) == 10


@pytest.mark.parametrize(
    "order",
    [
        ("secrets", "busdatabases", "buschannels"),
        ("busdatabases", "secrets", "buschannels"),
        ("secrets", "buschannels", "busdatabases"),
    ],
    ids=" ".join,
)
async def test_a_namespace_with_its_database(world: World, namespace: Namespace, order: tuple[str, ...]) -> None:
    """Whatever goes first, what the channels promise is done as long as the server is there."""
    created = await world.postgres()
    namespace.database(created.dsn)
    for name, policy in (("dropped", "Delete"), ("retained", "Retain")):
        namespace.channel(name, deletionPolicy=policy).wait_ready()
    namespace.terminate(*order)
    namespace.wait_empty(SECONDS)
    assert await created.channels() == [f"{namespace.name}.retained"]


async def test_a_namespace_with_its_database_while_the_server_is_down(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    created = await world.postgres(server=fragile_server)
    namespace.database(created.dsn)
    namespace.channel(deletionPolicy="Delete").wait_ready()
    fragile_server.stop()
    namespace.terminate("secrets", "busdatabases", "buschannels")
    namespace.wait_empty(SECONDS)
    # There is nothing left to reach it by.
    fragile_server.start()
    assert await created.channels() == [f"{namespace.name}.orders"]


async def test_a_database_that_something_else_keeps(world: World, namespace: Namespace) -> None:
    """As deleting in the foreground does, until what depends on it is gone: our channels do not wait for it."""
    created = await world.postgres()
    database = namespace.database(created.dsn)
    channel = namespace.channel(deletionPolicy="Delete")
    channel.wait_ready()
    held: dict[str, Any] = {"metadata": {"finalizers": ["example.org/held"]}}
    world.kube.patch(database.path, held)
    database.delete()
    channel.wait_for("DatabaseNotFound")
    channel.delete()
    channel.wait_gone()
    world.kube.patch(database.path, {"metadata": {"finalizers": None}})
    database.wait_gone()
