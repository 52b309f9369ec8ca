"""A channel and those who are no members of it, for the tests of what they can do to it."""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg
import postgres
import pytest
from wire import Peer

SECRET_NAME = "confidential-merger-talks"


@dataclass
class Scene:
    """A victim with a peer and messages, and the sessions of those who are not members of it."""

    server: postgres.Server
    victim: Peer
    victim_channel: postgres.Channel
    own: Peer
    stranger: asyncpg.Connection
    foreigner: asyncpg.Connection


@pytest.fixture(scope="module")
def databases(server):
    """One database with two channels, and another database with one."""

    async def build():
        one, two = await postgres.create_database(server), await postgres.create_database(server)
        victim = await one.create_channel(SECRET_NAME)
        return one, two, victim, await one.create_channel("own"), await two.create_channel("elsewhere")

    built = asyncio.run(build())
    yield built
    for created in built[:2]:
        asyncio.run(postgres.drop_database(created))


@pytest.fixture
async def scene(server, databases):
    _, _, victim_channel, own_channel, elsewhere = databases
    victim_session = await victim_channel.connect()
    await Peer.join(victim_session, SECRET_NAME, peer="victim")
    victim = await Peer.join(
        victim_session, SECRET_NAME, peer="victim", application="app-of-the-victim", address="10.99.98.97:45678"
    )
    await victim.publish({"secret": "offer"})
    await victim.read()
    stranger = await own_channel.connect()
    own = await Peer.join(stranger, "own")
    # The login of another database's channel may connect here: roles belong to the whole server.
    foreigner = await asyncpg.connect(victim_channel.endpoint.uri(elsewhere.username, elsewhere.password))
    yield Scene(server, victim, victim_channel, own, stranger, foreigner)
    for session in (victim_session, stranger, foreigner):
        session.terminate()


@pytest.fixture(params=["stranger", "foreigner"])
def intruder(request, scene: Scene) -> asyncpg.Connection:
    """A login of the same database's other channel, and one of another database's channel."""
    return getattr(scene, request.param)


def full_error(error: asyncpg.PostgresError) -> dict[str, Any]:
    """Everything of an error that reaches a client."""
    return {key: value for key, value in error.as_dict().items() if key not in ("server_source_line",)}


async def refusal(session: asyncpg.Connection, statement: str, *arguments: Any) -> dict[str, Any]:
    """The error that the statement ends with."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.fetch(statement, *arguments)
    return full_error(caught.value)


CALLS = [
    "select public.bus_publish($1, $2, '1')",
    "select * from public.bus_subscribe($2, $1, 1, 1, 0)",
    "select public.bus_archive($2, $1, 1)",
    "select pgmq_bus_v1.roster($1, $2)",
    "select pgmq_bus_v1.notify($1, $2)",
    "select pgmq_bus_v1.wake_by($1, $2, '10.0.0.1:4000', true)",
]
OWN_CALLS = [
    "select * from pgmq_bus_channel.publish_{token}($1, array['1'])",
    "select * from pgmq_bus_channel.publish_{token}($1, array['1', '2'])",
    "select * from pgmq_bus_channel.read_{token}($1, 0, 1, 10, null)",
    "select * from pgmq_bus_channel.read_{token}($1, 0, null, 0, 1)",
]
JOINS = ["select public.bus_join($1)", 'select pgmq_bus_v1.join_channel($1, \'{"peer": "victim"}\')']


async def former_queue(scene: Scene) -> str:
    """The name under which the victim was known before a takeover: members are told so."""
    admin = await scene.server.connect(scene.victim_channel.endpoint.database)
    former = await admin.fetchval("select former_queue from pgmq_bus.peer where queue = $1", scene.victim.queue)
    await admin.close()
    assert former is not None
    return former
