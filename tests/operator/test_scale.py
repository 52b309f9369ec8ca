"""The rows of `make bench-operator` about many channels, at a size at which they take seconds."""

from collections.abc import Iterator

import postgres
import pytest
from control_plane import KubeClient
from gateway import SILENT, gateway
from operator_process import Operator

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.rows import apply_ready, cold_start, dead_database, idle, memory
from benchmarks.operator_scale.scale import Scale
from benchmarks.operator_scale.world import ScaleWorld

SCALE = Scale(databases=4, channels=60, namespaces=4, secrets=60, probes=8, idle_seconds=15)


@pytest.fixture(scope="module")
def populated(kube: KubeClient, operator: Operator, server: postgres.Server) -> Iterator[ScaleWorld]:
    operator.terminate()
    operator.start(BUS_RESYNC_SECONDS="10", BUS_LOG_LEVEL="INFO")
    with gateway(None, SILENT) as dead:
        made = ScaleWorld(kube, operator, server, SCALE, dead)
        made.populate()
        yield made
        made.world.remove()
    operator.terminate()
    operator.start()


SLOWER = 5
"""How many times longer than its goal something may take: goals are for a machine with nothing else to do."""


def require(figures: list[Figure]) -> None:
    assert [figure for figure in figures if missed(figure)] == []


def missed(figure: Figure) -> bool:
    return figure.goal is not None and figure.measured > figure.goal * (SLOWER if figure.unit == "s" else 1)


def test_cold_start(populated: ScaleWorld) -> None:
    require(cold_start.measure(populated))


def test_idle(populated: ScaleWorld) -> None:
    cpu, *others = idle.measure(populated)
    require(others)
    # It looks six times as often as by default, and other work makes the same instructions dearer.
    assert cpu.measured < 6 * idle.GOAL


def test_one_more(populated: ScaleWorld) -> None:
    require(apply_ready.measure(populated))


def test_beside_a_database_that_hangs(populated: ScaleWorld) -> None:
    *others, delay = dead_database.measure(populated)
    require(others)
    # A worker that waits for the silent one would take ten seconds.
    assert delay.measured < 5


def test_memory(populated: ScaleWorld) -> None:
    require(memory.measure(populated))
