"""Which BusDatabase a BusChannel gets, whether its namespace may use it, and who has a name that two want."""

from collections.abc import Callable

import pytest
import yaml
from control_plane import wait_until
from operator_world import Namespace, Ref, World


def database_of(channel: Ref) -> str:
    reference = channel.status["database"]
    return f"{reference['namespace']}/{reference['name']}"


def test_database_not_found(world: World, namespace: Namespace) -> None:
    channel = namespace.channel(database="missing")
    assert channel.wait_for("DatabaseNotFound")["message"] == (
        f"there is no BusDatabase {namespace.name}/missing: create it, or delete the BusChannel and create it with"
        " another spec.databaseRef"
    )
    assert channel.condition("Provisioned")["status"] == "False"
    assert channel.condition("CredentialsCurrent")["reason"] == "Waiting"


async def test_the_namespace_of_the_database_was_forgotten(world: World, namespace: Namespace) -> None:
    """The channel is told of the one that was meant when it appears and lets it in, and what it is told helps."""
    channel = namespace.channel(database="forgotten")
    assert "; there is " not in channel.wait_for("DatabaseNotFound")["message"]
    other = world.namespace()
    meant = other.database((await world.postgres()).dsn, "forgotten")
    meant.wait_ready()
    assert "; there is " not in channel.condition()["message"]
    meant.patch({"allowedNamespaces": {"from": "All"}})
    hint = f"; there is {other.name}/forgotten: write databaseRef: "
    wait_until(lambda: hint in channel.condition()["message"], "the channel is told")
    reference = yaml.safe_load(channel.condition()["message"].partition(hint)[2])
    assert reference == {"name": "forgotten", "namespace": other.name}
    channel.delete()
    channel.wait_gone()
    namespace.channel(database=f"{reference['namespace']}/{reference['name']}").wait_ready()


def test_no_default(world: World, namespace: Namespace) -> None:
    namespace.database(None, "no-default")
    channel = namespace.channel(database=None)
    assert channel.wait_for("NoDefaultDatabase")["message"] == (
        f"no BusDatabase is the default for namespace {namespace.name}: set spec.default: true on a BusDatabase that"
        " allows this namespace, or delete the BusChannel and create it with spec.databaseRef"
    )


async def test_the_default_of_the_own_namespace_comes_first(world: World, namespace: Namespace) -> None:
    other = world.namespace()
    uri = (await world.postgres()).dsn
    other.database(uri, "for-all", default=True, allowedNamespaces={"from": "All"})
    namespace.database(uri, "own", default=True)
    channel = namespace.channel(database=None)
    channel.wait_ready()
    assert database_of(channel) == f"{namespace.name}/own"


async def test_two_defaults_are_ambiguous(world: World, namespace: Namespace) -> None:
    uri = (await world.postgres()).dsn
    first, second = (namespace.database(uri, name, default=True) for name in ("first", "second"))
    first.wait_ready()
    second.wait_ready()
    channel = namespace.channel(database=None)
    assert channel.wait_for("AmbiguousDefault")["message"] == (
        f"several BusDatabases are the default ({namespace.name}/first, {namespace.name}/second): keep"
        " one default, or delete the BusChannel and create it with spec.databaseRef"
    )
    second.patch({"default": False})
    channel.wait_ready()
    assert database_of(channel) == f"{namespace.name}/first"


async def test_a_channel_stays_where_its_messages_are(world: World, namespace: Namespace) -> None:
    """Another default is for channels that are made from then on."""
    old = namespace.database((await world.postgres()).dsn, "old", default=True)
    channel = namespace.channel(database=None)
    channel.wait_ready()
    binding = namespace.secret("orders-bus")
    old.patch({"default": False})
    namespace.database((await world.postgres()).dsn, "new", default=True)
    later = namespace.channel("later", database=None)
    later.wait_ready()
    assert database_of(later) == f"{namespace.name}/new"
    channel.patch({"limits": {"maxPeers": 5}})
    channel.wait_ready()
    assert database_of(channel) == f"{namespace.name}/old"
    assert (namespace.secret("orders-bus") or {})["uri"] == (binding or {})["uri"]


@pytest.mark.parametrize(
    ("allow", "how"),
    [
        (lambda database, user: database.patch({"allowedNamespaces": {"from": "All"}}), "All"),
        (lambda database, user: user.set_labels(team="orders"), "Selector"),
    ],
    ids=["All", "Selector"],
)
async def test_namespace_not_allowed(
    world: World, namespace: Namespace, allow: Callable[[Ref, Namespace], None], how: str
) -> None:
    allowed = {"from": how, "selector": {"matchLabels": {"team": "orders"}}} if how == "Selector" else {"from": "Same"}
    database = namespace.database((await world.postgres()).dsn, default=True, allowedNamespaces=allowed)
    user = world.namespace()
    named = user.channel(database=f"{namespace.name}/main")
    by_default = user.channel("by-default", database=None)
    assert named.wait_for("NamespaceNotAllowed")["message"] == (
        f"BusDatabase {namespace.name}/main does not allow namespace {user.name}: its owner can allow it in"
        " spec.allowedNamespaces"
    )
    by_default.wait_for("NoDefaultDatabase")
    # The database's own namespace never needs to be allowed.
    namespace.channel("own").wait_ready()
    allow(database, user)
    named.wait_ready()
    by_default.wait_ready()


async def conflict(world: World, namespace: Namespace, policy: str) -> tuple[Ref, Ref]:
    """Two BusChannels that want one name; the second is younger by the API server's clock, which counts seconds."""
    namespace.database((await world.postgres()).dsn)
    older = namespace.channel("older", channel="the-name", deletionPolicy=policy)
    older.wait_ready()
    world.wait_for_the_next_second(namespace, older)
    younger = namespace.channel("younger", channel="the-name")
    return older, younger


async def test_the_oldest_has_the_name(world: World, namespace: Namespace) -> None:
    older, younger = await conflict(world, namespace, "Delete")
    assert younger.wait_for("ChannelConflict")["message"] == (
        f"channel 'the-name' belongs to the older BusChannel {namespace.name}/older: choose another spec.channel, or"
        " delete that one first"
    )
    assert namespace.secret("younger-bus") is None
    assert older.condition()["status"] == "True"
    older.delete()
    younger.wait_ready()
    older.wait_gone()


async def test_the_first_keeps_the_name_of_two_that_are_equally_old(world: World, namespace: Namespace) -> None:
    """The API server's clock counts seconds, so both may be of one. Nothing changes hands then, whatever the names."""
    namespace.database((await world.postgres()).dsn)
    for name in ("m-first", "z-first"):
        first = namespace.channel(name, channel=name)
        first.wait_ready()
        for number in range(4):
            rival = namespace.channel(f"{name}-rival-{number}", channel=name)
            message = rival.wait_for("ChannelConflict")["message"]
            assert message.startswith(f"channel '{name}' belongs to ")
            assert f"BusChannel {namespace.name}/{name}" in message
        assert first.condition()["status"] == "True"
        assert first.status["credentialGeneration"] == 1


async def test_nobody_else_gets_what_was_retained(world: World, namespace: Namespace) -> None:
    """Or knowing a channel's name would be enough to read its messages."""
    older, younger = await conflict(world, namespace, "Retain")
    younger.wait_for("ChannelConflict")
    older.delete()
    older.wait_gone()

    def told() -> bool:
        message: str = younger.condition()["message"]
        return message.startswith(f"channel 'the-name' was retained for BusChannel {namespace.name}/older@")

    wait_until(told, "the younger is told")
    assert namespace.secret("younger-bus") is None


async def test_the_same_name_in_two_databases_is_no_conflict(world: World, namespace: Namespace) -> None:
    for name in ("first", "second"):
        namespace.database((await world.postgres()).dsn, name)
    one = namespace.channel("one", channel="the-name", database="first")
    other = namespace.channel("other", channel="the-name", database="second")
    one.wait_ready()
    other.wait_ready()
