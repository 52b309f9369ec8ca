"""A namespace that may not use a database any more loses its credentials at once, and its messages never."""

from collections.abc import Callable

import asyncpg
import postgres
import pytest
from control_plane import wait_until
from operator_process import Operator
from operator_world import Namespace, Ref, World

SELECTOR = {"from": "Selector", "selector": {"matchLabels": {"team": "orders"}}}
Change = Callable[[Ref, Namespace, bool], None]


def by_label(_: Ref, user: Namespace, allowed: bool) -> None:
    user.set_labels(team="orders" if allowed else "other")


def by_database(database: Ref, _: Namespace, allowed: bool) -> None:
    database.patch({"allowedNamespaces": {"from": "All" if allowed else "Same", "selector": None}})


@pytest.mark.parametrize("change", [by_label, by_database])
async def test_access_ends_and_comes_back(world: World, namespace: Namespace, change: Change) -> None:
    database = namespace.database((await world.postgres()).dsn, allowedNamespaces=SELECTOR)
    user = world.namespace()
    user.set_labels(team="orders")
    channel = user.channel(database=f"{namespace.name}/main")
    channel.wait_ready()
    binding = user.secret("orders-bus") or {}
    async with user.login() as login:
        await login.publish(await login.join(), 1, 2, 3)
        change(database, user, False)
        message = channel.wait_for("NamespaceNotAllowed")["message"]
        # The session that was open is over.
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
            await login.session.fetchval("select 1")
    assert message.endswith("; its logins were dropped and their sessions ended; the Secret opens nothing")
    assert channel.condition("CredentialsCurrent")["status"] == "False"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(binding["uri"])
    assert channel.wait_event("Warning", "NamespaceNotAllowed") == message

    change(database, user, True)
    channel.wait_ready()
    assert (user.secret("orders-bus") or {})["password"] != binding["password"]
    assert await user.messages() == [1, 2, 3]


async def test_access_ends_when_the_server_is_back(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    created = await world.postgres(server=fragile_server)
    database = namespace.database(created.dsn, allowedNamespaces={"from": "All"})
    user = world.namespace()
    channel = user.channel(database=f"{namespace.name}/main")
    channel.wait_ready()
    binding = user.secret("orders-bus") or {}
    fragile_server.stop()
    by_database(database, user, False)
    message = channel.wait_for("NamespaceNotAllowed", seconds=60)["message"]
    assert "its logins are dropped as soon as the database can be used" in message
    fragile_server.start()
    wait_until(lambda: "its logins were dropped" in channel.condition()["message"], "they are dropped", 90)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(binding["uri"])
    # The policy of a channel holds without permission as well.
    channel.patch({"deletionPolicy": "Delete"})
    channel.delete()
    channel.wait_gone()
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.channel") == 0


async def test_a_label_is_noticed_at_once(world: World, namespace: Namespace, operator: Operator) -> None:
    """By the watch, long before everything is looked at again."""
    namespace.database((await world.postgres()).dsn, allowedNamespaces=SELECTOR)
    user = world.namespace()
    user.set_labels(team="orders")
    channel = user.channel(database=f"{namespace.name}/main")
    operator.terminate()
    operator.start(BUS_RESYNC_SECONDS="3600")
    try:
        channel.wait_ready()
        user.set_labels(team="other")
        channel.wait_for("NamespaceNotAllowed")
        user.set_labels(team="orders")
        channel.wait_ready()
    finally:
        operator.terminate()
        operator.start()
