"""A soak of seconds: the same as `make soak`, which takes an hour, but for what needs time to be told."""

import asyncio
from pathlib import Path

import control_plane
import pytest
from chaos import kubernetes
from chaos.nemeses.server import ServerKilled
from chaos.nemeses.workers import WorkersKilled
from chaos.recovery import GOAL
from chaos.soak.capacity import Search
from chaos.soak.plan import Plan
from chaos.soak.run import soak


# Some eighty seconds, and longer where what must happen takes longer.
@pytest.mark.timeout(900)
@pytest.mark.slow
async def test_soak(tmp_path: Path) -> None:
    plan = Plan(
        seconds=20.0,
        seed=6,
        version=15,
        search=Search(first=100.0, factor=1.5, halvings=0, settle=0.5, measure=1.0, most=150.0),
        # Whatever this machine can do beside other tests.
        load=60.0,
        between=(2.0, 3.0),
        calm=1.0,
        last=5.0,
        sample=1.0,
        churn=1.0,
        rotation=5.0,
        faults=(ServerKilled, WorkersKilled, kubernetes.operator_killed),
        at_least=2,
        # The goal is for a machine with nothing else to do, and what `make soak` holds it to.
        within=3 * GOAL,
    )
    with control_plane.running() as started:
        outcome = await soak(plan, started, tmp_path, asyncio.Event())
    assert outcome.problems() == []
    assert len(outcome.strikes) >= plan.at_least
    assert outcome.activity.deleted >= plan.at_least
    assert outcome.activity.rotations
    assert outcome.published > 200
    assert {series.kind for series in outcome.series} == {"runtime", "pipecat", "operator", "server"}
