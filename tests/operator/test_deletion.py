"""Deleting BusChannels: what becomes of the messages."""

import asyncio
import signal

import asyncpg
import pytest
from control_plane import PATIENCE, wait_until
from operator_process import Operator
from operator_world import Namespace, Ref, World


async def test_retain(world: World, namespace: Namespace) -> None:
    """The messages wait for the BusChannel to come back; the credential does not."""
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("Retain")
    binding = namespace.secret("orders-bus") or {}
    channel.delete()
    channel.wait_gone()
    assert await created.channels() == [f"{namespace.name}.orders"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(binding["uri"])

    again = namespace.channel(deletionPolicy="Retain")
    again.wait_ready()
    assert (namespace.secret("orders-bus") or {})["password"] != binding["password"]
    assert await namespace.messages() == [1, 2, 3]


async def test_delete(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("Delete")
    binding = namespace.secret("orders-bus") or {}
    channel.delete()
    channel.wait_gone()
    assert await created.channels() == []
    async with created.session() as session:
        assert await session.fetchval("select count(*) from pgmq.meta") == 0
        role = binding["username"].replace("login", "channel").rpartition("_")[0]
        for name in (binding["username"], role):
            assert (name, await session.fetchval("select to_regrole($1)::text", name)) == (name, None)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(binding["uri"])
    database = Ref(world.kube, "busdatabases", namespace.name, "main")
    wait_until(lambda: database.status["channels"] == 0, "it is not counted any more")


async def test_delete_if_empty(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("DeleteIfEmpty")
    empty = namespace.channel("empty", deletionPolicy="DeleteIfEmpty")
    empty.wait_ready()
    empty.delete()
    channel.delete()
    empty.wait_gone()
    channel.wait_gone()
    assert await created.channels() == [f"{namespace.name}.orders"]
    message = f"channel '{namespace.name}.orders' still holds messages: it was retained"
    assert ("Warning", "NotEmpty", message) in channel.events()


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_the_busdatabase_is_deleted_first(world: World, namespace: Namespace, policy: str) -> None:
    """Nothing waits for ever. What is in the database stays."""
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = await namespace.channel_with_messages(policy)
    binding = namespace.secret("orders-bus") or {}
    Ref(world.kube, "busdatabases", namespace.name, "main").delete()
    channel.wait_for("DatabaseNotFound")
    channel.delete()
    channel.wait_gone()
    assert await created.channels() == [f"{namespace.name}.orders"]
    told = [event for event in channel.events() if event[1] == "NotDropped"]
    assert len(told) == (policy == "Delete")
    await (await asyncpg.connect(binding["uri"])).close()

    # What docs/deletion.md says to do about it.
    namespace.database(created.dsn)
    again = namespace.channel(deletionPolicy="Delete")
    again.wait_ready()
    again.delete()
    again.wait_gone()
    assert await created.channels() == []


async def test_a_channel_that_never_was_made(world: World, namespace: Namespace) -> None:
    channel = namespace.channel(database="missing", deletionPolicy="Delete")
    channel.wait_for("DatabaseNotFound")
    channel.delete()
    channel.wait_gone()


async def test_the_loser_of_a_conflict_deletes_nothing(world: World, namespace: Namespace) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    namespace.channel("owner", channel="the-name").wait_ready()
    async with created.session() as session:
        # Another cluster's: this one has no BusChannel of it.
        await session.execute(
            "update pgmq_bus.channel set owner_uid = 'elsewhere', owner_reference = 'shop/orders@other'"
        )
    loser = namespace.channel("loser", channel="the-name", deletionPolicy="Delete")
    loser.wait_for("ChannelConflict")
    loser.delete()
    loser.wait_gone()
    assert await created.channels() == ["the-name"]


async def test_who_takes_the_finalizer_off_does_not_keep_the_credentials(
    world: World, namespace: Namespace, operator: Operator
) -> None:
    """Nobody would ever take them away: there is no BusChannel any more whose namespace could be looked at."""
    created = await world.postgres()
    namespace.database(created.dsn)
    channel = await namespace.channel_with_messages("Delete")
    binding = namespace.secret("orders-bus") or {}
    operator.signal(signal.SIGSTOP)
    try:
        world.kube.patch(channel.path, {"metadata": {"finalizers": None}})
        channel.delete()
        assert channel.get() is None
    finally:
        operator.signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE):
        while await logs_in(binding["uri"]):
            await asyncio.sleep(0.05)
    # What the policy says is for those that go in the right way.
    assert await created.channels() == [f"{namespace.name}.orders"]
    again = namespace.channel()
    again.wait_ready()
    assert await namespace.messages() == [1, 2, 3]


async def logs_in(uri: str) -> bool:
    try:
        session = await asyncpg.connect(uri)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return False
    await session.close()
    return True


async def test_made_anew_at_once(world: World, namespace: Namespace) -> None:
    """The Secret of the one before is still there, as garbage collection takes its time: it passes on."""
    namespace.database((await world.postgres()).dsn)
    channel = await namespace.channel_with_messages("Retain")
    old = channel.get()["metadata"]["uid"]
    channel.delete()
    channel.wait_gone()
    again = namespace.channel()
    again.wait_ready()
    owners = namespace.raw_secret("orders-bus")["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [again.get()["metadata"]["uid"]]
    assert owners[0]["uid"] != old
    assert await namespace.messages() == [1, 2, 3]
