"""What breaks the operator, and Kubernetes under it, while pods go on using the bus.

Each breaks something, and returns as soon as it is whole again: from then on the operator has to recover by itself.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from control_plane import ControlPlane, wait_until
from operator_process import RELEASE, Operator
from operator_world import Namespace, Ref, World

from bus_operator.election import LEASE_DURATION

RECOVERY = 10.0
"""Seconds after the end of a fault in which the operator is at work again."""

_FORGOTTEN = 150
"""Changes that are more than an API server keeps of a kind that seldom changes: a hundred."""

_OUTAGE = 3.0
_NUMBERS = count(1)
_WEBHOOKS = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{RELEASE}"


@dataclass(frozen=True)
class Stage:
    """What is broken, and the channel that pods use meanwhile."""

    control_plane: ControlPlane
    operator: Operator
    world: World
    namespace: Namespace
    channel: Ref

    def require_at_work(self) -> float:
        """Has it notice a Secret that somebody damages, and then a change of the channel; how long both took.

        Raises:
            AssertionError: They were not put right in time.
        """
        begun = time.monotonic()
        self.operator.require_running()
        before = self.namespace.secret("orders-bus") or {}
        self.namespace.put_secret("orders-bus", {"config.json": "damaged"})

        def restored() -> bool:
            return (self.namespace.secret("orders-bus") or {})["config.json"] == before["config.json"]

        wait_until(restored, "the Secret is restored", RECOVERY)
        # Never the same twice, nor the default.
        self.channel.patch({"limits": {"maxConnections": 300 + next(_NUMBERS)}})
        self.channel.wait_ready(begun + RECOVERY - time.monotonic())
        assert (self.namespace.secret("orders-bus") or {})["generation"] == before["generation"]
        return time.monotonic() - begun


Nemesis = Callable[[Stage], Awaitable[None]]


async def operator_killed(stage: Stage) -> None:
    """Started again by the kubelet, as the same pod."""
    stage.operator.kill()
    stage.operator.start()


async def operator_paused(stage: Stage) -> None:
    """For longer than it may hold its Lease."""
    stage.operator.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(LEASE_DURATION + 2)
    finally:
        stage.operator.signal(signal.SIGCONT)


async def api_server_restarted(stage: Stage) -> None:
    """By SIGKILL."""
    stage.control_plane.kill("kube-apiserver")
    await asyncio.to_thread(stage.control_plane.start)


async def etcd_restarted(stage: Stage) -> None:
    """By SIGKILL; the API server goes on, and can answer nothing for a while."""
    stage.control_plane.kill("etcd")
    await asyncio.sleep(_OUTAGE)
    await asyncio.to_thread(stage.control_plane.start)


async def watches_expired(stage: Stage) -> None:
    """While the operator is away for a moment, so much changes that nobody can tell it what.

    Among that is a channel that comes and one that goes. The API server has forgotten what was before, and so has etcd.
    """
    namespace, kube = stage.namespace, stage.world.kube
    gone = namespace.channel(f"gone-{next(_NUMBERS)}", deletionPolicy="Delete")
    gone.wait_ready()
    stage.operator.signal(signal.SIGSTOP)
    try:
        gone.delete()
        for number in range(_FORGOTTEN):
            stage.channel.annotate({"example.org/number": str(number)})
        new = namespace.channel(f"new-{next(_NUMBERS)}")
        stage.control_plane.compact()
        stage.control_plane.kill("kube-apiserver")
        await asyncio.to_thread(stage.control_plane.start)
    finally:
        stage.operator.signal(signal.SIGCONT)
    begun = time.monotonic()
    new.wait_ready(RECOVERY)
    gone.wait_gone(begun + RECOVERY - time.monotonic())
    kube.delete(new.path)
    new.wait_gone()


async def secret_edited_mid_rotation(stage: Stage) -> None:
    """As soon as the new credential is in the Secret, somebody puts nonsense there; the credential before goes on."""
    before = stage.namespace.secret("orders-bus") or {}
    number = str(next(_NUMBERS))
    stage.channel.annotate({"pgmqbus.dev/rotate": number})

    def rotating() -> bool:
        return (stage.namespace.secret("orders-bus") or {})["generation"] != before["generation"]

    wait_until(rotating, "the rotation has begun")
    stage.namespace.put_secret("orders-bus", {"password": "nonsense", "uri": "nonsense"})
    begun = time.monotonic()

    def replaced() -> bool:
        return "nonsense" not in (stage.namespace.secret("orders-bus") or {}).values()

    wait_until(replaced, "the nonsense is replaced", RECOVERY)
    stage.channel.wait_ready(begun + RECOVERY - time.monotonic())


async def webhook_down(stage: Stage) -> None:
    """Pods are created all the same, and named afterwards; those that come later have their binding."""
    kube, pods = stage.world.kube, f"/api/v1/namespaces/{stage.namespace.name}/pods"
    configured = kube.get(_WEBHOOKS)["webhooks"]
    url = f"https://localhost:{stage.operator.webhook_port}/mutate-pods"
    reachable = [
        webhook | {"clientConfig": {"url": url, "caBundle": webhook["clientConfig"]["caBundle"]}}
        for webhook in configured
    ]
    kube.patch(_WEBHOOKS, {"webhooks": reachable})
    try:
        wait_until(lambda: _is_injected(_pod(stage, dry_run=True)), "pods are injected", 30)
        stage.operator.kill()
        lacking = _pod(stage)
        assert not _is_injected(lacking)
        stage.operator.start()
        begun = time.monotonic()
        wait_until(lambda: _is_injected(_pod(stage, dry_run=True)), "pods are injected again", RECOVERY)
        name = lacking["metadata"]["name"]
        wait_until(lambda: _is_named(stage, name), "the pod is named", begun + RECOVERY - time.monotonic())
        kube.request("DELETE", f"{pods}/{name}", {"gracePeriodSeconds": 0})
    finally:
        kube.patch(_WEBHOOKS, {"webhooks": configured})


def _is_injected(pod: Any) -> bool:
    return "pgmqbus.dev/injected" in pod["metadata"]["annotations"]


def _pod(stage: Stage, *, dry_run: bool = False) -> Any:
    """A pod that asks for the channel, as it is after admission."""
    metadata = {
        "generateName": "shop-",
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": stage.channel.name},
    }
    body = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    pods = f"/api/v1/namespaces/{stage.namespace.name}/pods"
    return stage.world.kube.create(f"{pods}?dryRun=All" if dry_run else pods, body)


def _is_named(stage: Stage, pod: str) -> bool:
    events = stage.world.kube.get(f"/api/v1/namespaces/{stage.namespace.name}/events")["items"]
    return any(item["involvedObject"]["name"] == pod and item["reason"] == "BindingMissing" for item in events)


NEMESES: tuple[Nemesis, ...] = (
    operator_killed,
    operator_paused,
    api_server_restarted,
    etcd_restarted,
    watches_expired,
    secret_edited_mid_rotation,
    webhook_down,
)
