"""How long a namespace full of BusChannels takes to go while their database is down, and while it is silent."""

import asyncio
import time
from urllib.parse import urlsplit

import asyncpg
from control_plane import wait_until
from gateway import CLOSED, OPEN, SILENT, Gateway, gateway
from operator_world import Ref

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.world import ScaleWorld

GOAL = 60.0
_LIMIT = 300.0


def measure(world: ScaleWorld) -> list[Figure]:
    """Each way on a database of its own, all of whose channels are to be dropped."""
    figures = []
    for mode, what in ((CLOSED, "down"), (SILENT, "silent")):
        gone, settled, left = _one(world, mode)
        count = world.scale.deleted
        figures += [
            Figure(f"namespace with {count} BusChannels deleted, database {what}: gone", gone, "s", goal=GOAL),
            Figure(f"  channels dropped after the database was back (was {what})", settled, "s"),
            Figure(f"  channels left in the database (was {what})", left, "", goal=0),
        ]
    return figures


def _one(world: ScaleWorld, mode: str) -> tuple[float, float, int]:
    created = asyncio.run(world.world.postgres())
    home, user = world.world.namespace(), world.world.namespace()
    with gateway(world.server.port) as front:
        uri = urlsplit(created.dsn)
        through = uri._replace(netloc=uri.netloc.replace(f":{uri.port}", f":{front.port}")).geturl()
        database = home.database(through, allowedNamespaces={"from": "All"})
        channels = [
            user.channel(f"c{number}", database=f"{home.name}/main", deletionPolicy="Delete")
            for number in range(world.scale.deleted)
        ]
        for channel in channels:
            channel.wait_ready(_LIMIT)
        front.become(mode)
        begun = time.monotonic()
        user.terminate("secrets", "buschannels")
        user.wait_empty(_LIMIT)
        gone = time.monotonic() - begun
        settled = _settle(database, front)
        left = asyncio.run(_channels_in(created.dsn))
        database.delete()
    return gone, settled, left


def _settle(database: Ref, front: Gateway) -> float:
    front.become(OPEN)
    begun = time.monotonic()
    wait_until(lambda: not database.status.get("pendingDeletions"), "nothing is pending", _LIMIT)
    return time.monotonic() - begun


async def _channels_in(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select count(*) from pgmq_bus.channel"))
    finally:
        await connection.close()
