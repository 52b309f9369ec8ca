"""What breaks the operator, and Kubernetes under it, while pods go on using the bus.

Each breaks something and returns the time, by `time.monotonic`, at which it was whole again: from then on the operator
has to recover by itself. What only this fault delays is waited for before it returns.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from chaos.history import read
from control_plane import ControlPlane, wait_until
from operator_process import RELEASE, RELEASE_NAMESPACE, Operator
from operator_world import Namespace, Ref, World

from bus_operator.election import LEASE_DURATION

_PATIENCE = 60.0
"""Seconds after the end of a fault to wait for the operator, on the slowest machine. For the goal see `results`."""

_FORGOTTEN = 150
"""Changes that are more than an API server keeps of a kind that seldom changes: a hundred."""

_OUTAGE = 3.0
_NUMBERS = count(1)
_WEBHOOKS = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{RELEASE}"
_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE_NAMESPACE}/leases/{RELEASE}"
_BINDING = "orders-bus"


@dataclass(frozen=True)
class Stage:
    """What is broken, and the channel that pods use meanwhile."""

    control_plane: ControlPlane
    operator: Operator
    world: World
    namespace: Namespace
    channel: Ref

    def binding(self, key: str) -> str:
        """What its Secret says; nothing if it is not there."""
        return (self.namespace.secret(_BINDING) or {}).get(key, "")

    def require_at_work(self, deadline: float) -> None:
        """Has it notice a Secret that somebody damages, and then a change of the channel.

        Raises:
            AssertionError: They were not put right by the deadline.
        """
        self.operator.require_running()
        generation, config = self.binding("generation"), self.binding("config.json")
        self.namespace.put_secret(_BINDING, {"config.json": "damaged"})
        wait_until(lambda: self.binding("config.json") == config, "the Secret is restored", deadline - time.monotonic())
        # Never the same twice, nor the default.
        self.channel.patch({"limits": {"maxConnections": 300 + next(_NUMBERS)}})
        self.channel.wait_ready(deadline - time.monotonic())
        assert self.binding("generation") == generation


Nemesis = Callable[[Stage], Coroutine[Any, Any, float]]


async def operator_killed(stage: Stage) -> float:
    """Started again by the kubelet, as the same pod."""
    stage.operator.kill()
    stage.operator.start()
    return time.monotonic()


async def operator_paused(stage: Stage) -> float:
    """For longer than it may hold its Lease."""
    stage.operator.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(LEASE_DURATION + 2)
    finally:
        stage.operator.signal(signal.SIGCONT)
    return time.monotonic()


async def lease_taken(stage: Stage) -> float:
    """By nobody who would do its work; it comes free when the operator has noticed."""
    lost = stage.operator.log.count("leads no longer")
    stage.world.kube.patch(_LEASE, {"spec": {"holderIdentity": "somebody-else"}})
    wait_until(lambda: stage.operator.log.count("leads no longer") > lost, "it leads no longer")
    stage.world.kube.patch(_LEASE, {"spec": {"holderIdentity": ""}})
    return time.monotonic()


async def lease_deleted(stage: Stage) -> float:
    """It goes on leading, with a new one."""
    stage.world.kube.delete(_LEASE)
    over = time.monotonic()
    wait_until(lambda: stage.world.kube.get(_LEASE) is not None, "there is a Lease again", _PATIENCE)
    return over


async def api_server_killed(stage: Stage) -> float:
    """And started again."""
    stage.control_plane.kill("kube-apiserver")
    await asyncio.to_thread(stage.control_plane.start)
    return time.monotonic()


async def api_server_hangs(stage: Stage) -> float:
    """For longer than the operator may hold its Lease: connections stay open, nothing answers."""
    stage.control_plane.signal("kube-apiserver", signal.SIGSTOP)
    try:
        await asyncio.sleep(LEASE_DURATION + 2)
    finally:
        stage.control_plane.signal("kube-apiserver", signal.SIGCONT)
    return time.monotonic()


async def etcd_killed(stage: Stage) -> float:
    """And started again; the API server goes on, and can answer nothing for a while."""
    stage.control_plane.kill("etcd")
    await asyncio.sleep(_OUTAGE)
    await asyncio.to_thread(stage.control_plane.start)
    return time.monotonic()


async def watches_expired(stage: Stage) -> float:
    """While the operator is away for a moment, so much changes that nobody can tell it what.

    Among that is a channel that comes and one that goes. The API server has forgotten what was before, and so has etcd.
    """
    namespace, kube = stage.namespace, stage.world.kube
    gone = namespace.channel(f"gone-{next(_NUMBERS)}", deletionPolicy="Delete")
    gone.wait_ready()
    channels = stage.channel.path.rpartition("/")[0]
    version = kube.get(channels)["metadata"]["resourceVersion"]
    stage.operator.signal(signal.SIGSTOP)
    try:
        gone.delete()
        for number in range(_FORGOTTEN):
            stage.channel.annotate({"example.org/number": str(number)})
        new = namespace.channel(f"new-{next(_NUMBERS)}", deletionPolicy="Delete")
        stage.control_plane.compact()
        stage.control_plane.kill("kube-apiserver")
        await asyncio.to_thread(stage.control_plane.start)
        wait_until(
            lambda: _is_gone(stage, f"{channels}?watch=true&timeoutSeconds=1&resourceVersion={version}"), version
        )
    finally:
        stage.operator.signal(signal.SIGCONT)
    over = time.monotonic()
    new.wait_ready(_PATIENCE)
    gone.wait_gone(over + _PATIENCE - time.monotonic())
    kube.delete(new.path)
    new.wait_gone()
    return over


def _is_gone(stage: Stage, path: str) -> bool:
    """Whether a watch is refused for its version: as the answer, or as its first event."""
    first, *_ = stage.world.kube.raw(path).data.splitlines() or [b"{}"]
    answer = json.loads(first)
    return bool(answer.get("object", answer).get("code") == HTTPStatus.GONE)


async def secret_edited_mid_rotation(stage: Stage) -> float:
    """Somebody puts nonsense there."""
    return _mid_rotation(stage, lambda: stage.namespace.put_secret(_BINDING, {"password": "x", "uri": "nonsense"}))


async def secret_deleted_mid_rotation(stage: Stage) -> float:
    """By somebody."""
    return _mid_rotation(stage, lambda: stage.namespace.delete_secret(_BINDING))


def _mid_rotation(stage: Stage, meddle: Callable[[], None]) -> float:
    """As soon as the new credential is in the Secret. Pods may have it or not; the one before goes on."""
    stage.channel.wait_for("Current", "CredentialsCurrent")
    before = int(stage.binding("generation"))
    stage.channel.annotate({"pgmqbus.dev/rotate": str(next(_NUMBERS))})
    wait_until(lambda: stage.binding("generation") == str(before + 1), "the rotation has begun")
    meddle()
    over = time.monotonic()
    wait_until(lambda: stage.binding("generation") == str(before + 2), "there is another credential", _PATIENCE)
    stage.channel.wait_ready(over + _PATIENCE - time.monotonic())
    return over


async def webhook_down(stage: Stage) -> float:
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
        wait_until(lambda: _is_injected(_pod(stage, dry_run=True)), "pods are injected")
        stage.operator.kill()
        lacking = _pod(stage)
        assert not _is_injected(lacking)
        stage.operator.start()
        over = time.monotonic()
        wait_until(lambda: _is_injected(_pod(stage, dry_run=True)), "pods are injected again", _PATIENCE)
        name = lacking["metadata"]["name"]
        wait_until(lambda: _is_named(stage, name), "the pod is named", over + _PATIENCE - time.monotonic())
        kube.request("DELETE", f"{pods}/{name}", {"gracePeriodSeconds": 0})
    finally:
        kube.patch(_WEBHOOKS, {"webhooks": configured})
    return over


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


NEMESES: dict[str, Nemesis] = {
    "the operator killed, and started again": operator_killed,
    "the operator paused for longer than its Lease holds": operator_paused,
    "its Lease taken by somebody else": lease_taken,
    "its Lease deleted": lease_deleted,
    "the API server killed, and started again": api_server_killed,
    "the API server hanging for longer than the Lease holds": api_server_hangs,
    "etcd killed, and started again": etcd_killed,
    "watches expired (`410 Gone`), and what changed meanwhile forgotten": watches_expired,
    "the Secret edited in the middle of a rotation": secret_edited_mid_rotation,
    "the Secret deleted in the middle of a rotation": secret_deleted_mid_rotation,
    "the webhook down while pods are created": webhook_down,
}
"""All of them, by what happens."""

QUICK = frozenset(
    (lease_taken, etcd_killed, watches_expired, secret_edited_mid_rotation, secret_deleted_mid_rotation, webhook_down)
)
"""Those that take seconds. Among what they do is that the operator and the API server are killed."""


@dataclass(frozen=True)
class Strike:
    """What came of one.

    Attributes:
        title: What happened.
        began: When, by `time.monotonic_ns`.
        ended: When the operator had recovered, or nobody waited any longer.
        recovery: How many seconds after the end of the fault it had recovered; None: it did not.
        error: What it did not do.
    """

    title: str
    began: int
    ended: int
    recovery: float | None
    error: str = ""


async def strike(stage: Stage, title: str, nemesis: Nemesis) -> Strike:
    """Breaks something, and has the operator work afterwards."""
    began = time.monotonic_ns()
    try:
        over = await nemesis(stage)
        stage.require_at_work(over + _PATIENCE)
    # The others are worth something all the same.
    except AssertionError as exc:
        return Strike(title, began, time.monotonic_ns(), None, str(exc))
    return Strike(title, began, time.monotonic_ns(), time.monotonic() - over)


def longest_pause(history: Path, began: int, ended: int) -> float:
    """The longest time in which a process was handed nothing.

    Args:
        history: The process's.
        began: Nanoseconds of CLOCK_MONOTONIC from which on to look.
        ended: Until when.

    Returns:
        Seconds.
    """
    received = [event.time for event in read(history) if event.kind == "received" and began < event.time < ended]
    return max(later - earlier for earlier, later in pairwise([began, *received, ended])) / 1e9
