"""Nemeses of each family strike a real world for a moment: promises are kept, and it delivers again in time."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.nemeses.catalog import find
from chaos.run import run
from chaos.seeds import Seeds, seeds


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
        (18, "disk-full+doorbells-lost"),
        (18, "failover-synchronous+pooler-transaction-restarted+workers-killed"),
    ],
)
async def test_nemeses(version: int, names: str, servers: Seeds, tmp_path: Path) -> None:
    outcome = await run(find(names), servers, tmp_path / "run", random.Random(6), version=version)
    assert outcome, str(outcome)
    assert all(verdict.tally.published > 50 for verdict in outcome.verdicts.values())
