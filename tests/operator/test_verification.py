"""IsolationVerified under a running operator: at once for a new channel, then now and then; False where a hole is."""

from collections.abc import Iterator

import pytest
from control_plane import wait_until
from operator_world import Namespace, Ref, World


@pytest.fixture
def hasty(world: World) -> Iterator[World]:
    """The operator verifies every channel each second."""
    world.operator.kill()
    world.operator.start(BUS_VERIFICATION_INTERVAL_SECONDS="1")
    yield world
    world.operator.kill()
    world.operator.start()


async def ready_channel(world: World, namespace: Namespace) -> Ref:
    namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready()
    return channel


async def test_a_new_channel_is_verified_when_it_is_ready(world: World, namespace: Namespace) -> None:
    channel = await ready_channel(world, namespace)
    condition = channel.condition("IsolationVerified")
    assert (condition["status"], condition["reason"]) == ("True", "Verified")
    assert "attempts at anything else were refused" in condition["message"]
    assert channel.status["lastVerifiedTime"]


async def test_it_is_verified_again(hasty: World, namespace: Namespace) -> None:
    channel = await ready_channel(hasty, namespace)
    first = channel.status["lastVerifiedTime"]
    wait_until(lambda: channel.status["lastVerifiedTime"] > first, "a later time")


async def test_a_hole_is_named_and_the_channel_not_ready(hasty: World, namespace: Namespace) -> None:
    """One that is not drift: nothing of ours was changed."""
    created = await hasty.postgres()
    namespace.database(created.dsn)
    channel = namespace.channel()
    channel.wait_ready()
    async with created.session() as session:
        await session.execute(f"grant create on database {created.name} to public")
    condition = channel.wait_for("MayCreateSchema")
    assert condition["status"] == "False"
    assert "the channel's login could create schemas" in condition["message"]
    assert channel.condition("IsolationVerified")["reason"] == "MayCreateSchema"
    channel.wait_event("Warning", "MayCreateSchema")
    async with created.session() as session:
        await session.execute(f"revoke create on database {created.name} from public")
    channel.wait_ready()
