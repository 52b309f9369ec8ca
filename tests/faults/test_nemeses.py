"""Nemeses of each family strike a real world for a moment: promises are kept, and it delivers again in time."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.nemeses.catalog import find
from chaos.nemeses.server import ServerKilled
from chaos.recovery import GOAL
from chaos.run import Outcome, run
from chaos.seeds import Seeds, seeds
from chaos.verdict import Broken
from chaos.world import World

PATIENCE = 3 * GOAL
"""Seconds: the goal is for a machine with nothing else to do, and what `make chaos-bus` holds it to."""


def require_delivering(outcome: Outcome) -> None:
    """Again, to every process."""
    assert outcome.slowest is not None, str(outcome)
    assert outcome.slowest < PATIENCE, str(outcome)


@pytest.fixture(scope="module")
def servers() -> Iterator[Seeds]:
    with seeds() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "names"),
    [
        (15, "backend-killed+cut-mid-message"),
        (15, "clock-forward+forgotten"),
        (16, "power-lost+partition"),
        (18, "disk-full+doorbells-lost"),
        (18, "failover-synchronous+pooler-transaction-restarted+workers-killed"),
    ],
)
async def test_nemeses(version: int, names: str, servers: Seeds, tmp_path: Path) -> None:
    outcome = await run(find(names), servers, tmp_path / "run", random.Random(6), version=version)
    assert outcome.kept, str(outcome)
    require_delivering(outcome)
    assert all(verdict.tally.published > 50 for verdict in outcome.verdicts.values())


class Careless(ServerKilled):
    """A server that has not flushed for a second what publishers were told is on the disk, and is killed."""

    async def begin(self, world: World) -> None:
        session = await world.admin()
        await session.execute("update pgmq_bus.channel set durability = 'Async'")
        await session.execute("alter system set wal_writer_delay = '10s'")
        await session.execute("select pg_reload_conf()")
        await session.close()
        await asyncio.sleep(2)
        await super().begin(world)


@pytest.mark.slow
async def test_a_broken_promise_is_found(servers: Seeds, tmp_path: Path) -> None:
    outcome = await run([Careless], servers, tmp_path / "run", random.Random(6))
    assert not outcome.kept
    require_delivering(outcome)
    assert outcome.verdicts["Sync"].counts[Broken.LOST] > 5
