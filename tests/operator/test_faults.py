"""Kubernetes and the operator break in all ways, one after the other, while real workers use a channel."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import results
from chaos.fleet import fleet
from chaos.kubernetes import NEMESES, QUICK, Stage, longest_pause, strike
from chaos.promises import Promise
from control_plane import ControlPlane
from operator_process import Operator
from operator_world import Namespace, World
from projected import kubelets


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
    with kubelets(lambda: namespace.secret("orders-bus"), [tmp_path / "bindings" / "orders"], 0.5):
        async with fleet(tmp_path / "histories", Promise("Sync")) as workers:
            await workers.start("publisher", tmp_path / "bindings", publish_rate=100)
            await workers.start("ledger", tmp_path / "bindings", peer="ledger")
            histories = [worker.options.history for worker in workers.workers]
            strikes = [
                await strike(stage, title, nemesis)
                for title, nemesis in NEMESES.items()
                if results.SECONDS or nemesis in QUICK
            ]
            # It fails if one of them has ended: none is started again.
            verdict = await workers.settle()
    pauses = {
        done.title: max(longest_pause(history, done.began, done.ended) for history in histories) for done in strikes
    }
    for done in strikes:
        results.note(
            results.Broken(
                title=done.title,
                pause=round(pauses[done.title], 2),
                recovery=None if done.recovery is None else round(done.recovery, 1),
            )
        )
    assert verdict, str(verdict)
    # There is no fault here that pods should notice at all.
    assert max(pauses.values()) < results.GOAL, pauses
    assert not [f"{done.title}: {done.error}" for done in strikes if done.error]
    # What Kubernetes goes through is nobody's mistake: only what somebody did to the Secret is told, and of the pod.
    expected = {"DriftRepaired": "Secret orders-bus", "BindingMissing": "pod shop-"}
    told = [event for resource in (database, channel) for event in resource.events()]
    warnings = [(reason, message) for kind, reason, message in told if kind == "Warning"]
    assert {reason for reason, _ in warnings} == set(expected)
    assert all(expected[reason] in message for reason, message in warnings), warnings
