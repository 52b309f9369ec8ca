"""The leader is killed with kill -9 in the middle of hundreds of reconciles: a standby takes over and finishes them.

Whether something was made by halves is asked of what users have: every binding logs in and joins its channel, and the
databases hold one channel and one log for each BusChannel.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from control_plane import wait_until
from operator_process import RELEASE, RELEASE_NAMESPACE, Operator
from operator_world import API, Namespace

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.world import ScaleWorld

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE_NAMESPACE}/leases/{RELEASE}"
_LIMIT = 600.0


def measure(world: ScaleWorld) -> list[Figure]:
    """In a namespace and a database of its own, so that what is counted is there for this only."""
    number = world.scale.reconciles
    namespace = world.world.namespace()
    created = asyncio.run(world.world.postgres())
    database = namespace.database(None)
    with _standby(world) as standby:
        for channel in range(number):
            namespace.channel(f"channel-{channel}")
        # All of them wait for it.
        namespace.put_secret(f"{database.name}-admin", {"uri": created.dsn})
        wait_until(lambda: _ready(namespace) >= number // 4, "a quarter is ready", _LIMIT)
        begun = time.monotonic()
        world.operator.kill()
        done = _ready(namespace)
        wait_until(lambda: _holder(world) == standby.name, "the standby leads", _LIMIT)
        leads = time.monotonic() - begun
        wait_until(lambda: _ready(namespace) > done, "the standby works", _LIMIT)
        works = time.monotonic() - begun
        wait_until(lambda: _ready(namespace) == number, "all are ready", _LIMIT)
        finished = time.monotonic() - begun
        broken = asyncio.run(_broken(world, namespace, number, created.dsn))
        world.operator.start()
    wait_until(lambda: _holder(world) == world.operator.name, "the first leads again", 60)
    return [
        Figure(f"kill -9 with {number - done} of {number} to do: the standby leads", leads, "s", goal=15.0),
        Figure("the first of the rest is Ready", works, "s", goal=15.0),
        Figure("all are Ready", finished, "s"),
        Figure("BusChannels that are not Ready, or made by halves", broken, "", goal=0),
    ]


@contextmanager
def _standby(world: ScaleWorld) -> Iterator[Operator]:
    first = world.operator
    standby = Operator(first.kubeconfig, first.kubeconfig.with_name("standby.log"), BUS_RESYNC_SECONDS="60")
    standby.start()
    try:
        yield standby
    finally:
        if standby.running:
            standby.terminate()


def _holder(world: ScaleWorld) -> str:
    return str((world.kube.get(_LEASE) or {"spec": {}})["spec"].get("holderIdentity"))


def _ready(namespace: Namespace) -> int:
    items = namespace.world.kube.get(f"{API}/namespaces/{namespace.name}/buschannels")["items"]
    return sum(
        any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item.get("status", {}).get("conditions", ())
        )
        for item in items
    )


async def _broken(world: ScaleWorld, namespace: Namespace, number: int, dsn: str) -> int:
    broken = number - _ready(namespace)
    for channel in range(number):
        try:
            async with namespace.login(f"channel-{channel}-bus") as login:
                await login.join()
        except (AssertionError, asyncpg.PostgresError):
            broken += 1
    session = await asyncpg.connect(dsn)
    try:
        for table in ("pgmq_bus.channel", "pgmq.meta"):
            broken += abs(number - await session.fetchval(f"select count(*) from {table}"))
    finally:
        await session.close()
    return broken
