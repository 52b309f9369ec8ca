"""Kubernetes and the operator break in all ways, one after the other, while real workers use a channel."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from chaos.fleet import fleet
from chaos.history import read
from chaos.kubernetes import NEMESES, RECOVERY, Stage
from chaos.promises import Promise
from control_plane import ControlPlane
from operator_process import Operator
from operator_world import Namespace, World
from projected import kubelets

INTERRUPTION = 5.0
"""Seconds without a message that are no interruption yet, on the slowest machine."""


@pytest.fixture
def patient(operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """In the place of the usual one: it is told of things, or else looks again in an hour."""
    operator.terminate()
    settings = {"BUS_RESYNC_SECONDS": "3600", "BUS_CREDENTIAL_UNUSED_SECONDS": "2"}
    replacement = Operator(operator.kubeconfig, tmp_path / "log", **settings)
    replacement.start()
    yield replacement
    if replacement.running:
        replacement.terminate()
    operator.start()


@pytest.mark.slow
async def test_the_operator_recovers_and_the_bus_goes_on(
    apiserver_processes: ControlPlane, world: World, namespace: Namespace, patient: Operator, tmp_path: Path
) -> None:
    database = namespace.database((await world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready()
    stage = Stage(apiserver_processes, patient, world, namespace, channel)
    took = {}
    with kubelets(lambda: namespace.secret("orders-bus"), [tmp_path / "bindings" / "orders"], 0.5):
        async with fleet(tmp_path / "histories", Promise("Sync")) as workers:
            publisher = await workers.start("publisher", tmp_path / "bindings", publish_rate=100)
            await workers.start("ledger", tmp_path / "bindings", peer="ledger")
            for nemesis in NEMESES:
                await nemesis(stage)
                took[nemesis.__name__] = stage.require_at_work()
            verdict = await workers.settle()
    assert verdict, str(verdict)
    print({name: round(seconds, 1) for name, seconds in took.items()})
    assert max(took.values()) < RECOVERY, took
    # What Kubernetes goes through is nobody's mistake: no condition says so.
    reasons = {reason for resource in (database, channel) for kind, reason, _ in resource.events() if kind == "Warning"}
    assert reasons <= {"DriftRepaired", "BindingMissing"}
    published = [event.time for event in read(publisher.options.history) if event.kind == "published"]
    assert max(later - earlier for earlier, later in pairwise(published)) < INTERRUPTION * 1e9
