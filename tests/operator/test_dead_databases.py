"""Databases that are down, hang, or merely lose a session: one probe asks, the channels wait, nobody else notices."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import postgres
import pytest
from control_plane import wait_until
from gateway import CLOSED, OPEN, SILENT, Gateway, gateway
from operator_world import Namespace, Ref, World


@pytest.fixture
def front(world: World) -> Iterator[Gateway]:
    with gateway(world.server.port) as made:
        yield made


async def behind(
    front: Gateway, world: World, namespace: Namespace, name: str = "main", server: postgres.Server | None = None
) -> Ref:
    """A BusDatabase that is reached through the gateway."""
    uri = urlsplit((await world.postgres(server=server)).dsn)
    address = uri.netloc.replace(f":{uri.port}", f":{front.port}")
    return namespace.database(uri._replace(netloc=address).geturl(), name)


def versions(*resources: Ref) -> list[tuple[str, Any]]:
    """With what they say, so that a failure tells what was written."""
    found = [resource.get() for resource in resources]
    return [(resource["metadata"]["resourceVersion"], resource["status"]) for resource in found]


@pytest.mark.parametrize("mode", [CLOSED, SILENT])
async def test_one_that_goes_and_comes_back(world: World, namespace: Namespace, front: Gateway, mode: str) -> None:
    database = await behind(front, world, namespace)
    channels = [namespace.channel(f"channel-{number}") for number in range(6)]
    for channel in channels:
        channel.wait_ready()
    front.become(mode)
    # A silent server is noticed when a statement is not answered.
    database.wait_for("ConnectionFailed", seconds=60)
    for channel in channels:
        message = channel.wait_for("DatabaseUnavailable")["message"]
        assert message.startswith(f"BusDatabase {namespace.name}/main is not ready: 127.0.0.1:{front.port}/")
    new = namespace.channel("new")
    new.wait_for("DatabaseUnavailable")
    before, attempts = versions(*channels, new), front.connections
    if mode == SILENT:
        # One probe after the other, whatever the number of channels.
        wait_until(lambda: front.connections >= attempts + 1, "it is asked again", seconds=60)
        assert front.connections <= attempts + 2
    assert versions(*channels, new) == before
    front.become(OPEN)
    database.wait_ready(seconds=90)
    for channel in (*channels, new):
        channel.wait_ready()
        assert channel.status["credentialGeneration"] == 1
        reasons = [event[1] for event in channel.events()]
        assert reasons.count("DatabaseUnavailable") == 1


async def test_the_others_go_on_beside_one_that_hangs(
    world: World, namespace: Namespace, fragile_server: postgres.Server
) -> None:
    namespace.database((await world.postgres()).dsn, "works").wait_ready()
    with gateway(fragile_server.port) as front:
        hangs = await behind(front, world, namespace, "hangs", fragile_server)
        hangs.wait_ready()
        for number in range(20):
            namespace.channel(f"waits-{number}", database="hangs")
        front.become(SILENT)
        for number in range(5):
            # Far less than the first of those that wait would take to give up.
            namespace.channel(f"works-{number}", database="works").wait_ready(seconds=8)


async def test_a_session_that_is_lost_changes_no_status(world: World, namespace: Namespace, front: Gateway) -> None:
    """The server is well: it is asked, and says so, before any channel speaks of it."""
    database = await behind(front, world, namespace)
    channels = [namespace.channel(f"channel-{number}") for number in range(6)]
    for channel in channels:
        channel.wait_ready()
    wait_until(lambda: database.status["channels"] == 6, "they are counted")
    before = versions(database, *channels)
    for _ in range(3):
        front.become(CLOSED)
        front.become(OPEN)
        channels[0].patch({"limits": {"maxPeers": 7}})
        channels[0].patch({"limits": {"maxPeers": 8}})
        channels[0].wait_ready()
    assert versions(database, *channels[1:]) == [before[0], *before[2:]]
    assert "DatabaseUnavailable" not in [event[1] for channel in channels for event in channel.events()]


async def test_deletion_beside_one_that_hangs(world: World, namespace: Namespace, front: Gateway) -> None:
    """What is retained goes at once, however many channels of that database wait."""
    database = await behind(front, world, namespace)
    channel = namespace.channel()
    channel.wait_ready()
    front.become(SILENT)
    database.wait_for("ConnectionFailed", seconds=60)
    for number in range(10):
        namespace.channel(f"waits-{number}")
    channel.delete()
    channel.wait_gone(seconds=10)
