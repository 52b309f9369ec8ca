"""An operator for a list of namespaces, with the rights that the chart then gives it: Roles there, and hardly more."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import wait_until
from operator_process import Operator, install_chart
from operator_world import Namespace, World

RELEASE = "bus-of-two"


@pytest.fixture
def served(world: World, operator: Operator, tmp_path: Path) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with an operator of their own; that of the whole cluster is away."""
    namespaces = world.namespace(bound=False), world.namespace(bound=False)
    names = [namespace.name for namespace in namespaces]
    scope = json.dumps(names)
    kubeconfig = install_chart(world.kube, tmp_path, RELEASE, "--set-json", f"scope.namespaces={scope}")
    scoped = Operator(
        kubeconfig,
        tmp_path / "log",
        BUS_NAMESPACES=",".join(names),
        BUS_LEASE_NAME=RELEASE,
        BUS_SERVICE_ACCOUNT=RELEASE,
        BUS_WEBHOOK_SERVICE=f"{RELEASE}-webhook",
        BUS_WEBHOOK_CONFIGURATION=RELEASE,
        BUS_WEBHOOK_TLS_SECRET=f"{RELEASE}-webhook-tls",
    )
    operator.terminate()
    scoped.start()
    yield namespaces
    log = scoped.log
    scoped.kill()
    operator.start()
    assert "Forbidden" not in log
    assert "cannot " not in log


async def test_two_namespaces(world: World, served: tuple[Namespace, Namespace]) -> None:
    home, user = served
    labels = {"from": "Selector", "selector": {"matchLabels": {"team": "orders"}}}
    home.database((await world.postgres()).dsn, allowedNamespaces=labels).wait_ready()
    outside = world.namespace()
    unseen = outside.channel(database=f"{home.name}/main")
    channel = user.channel(database=f"{home.name}/main", deletionPolicy="Delete")
    channel.wait_for("NamespaceNotAllowed")
    user.set_labels(team="orders")
    channel.wait_ready()
    async with user.login() as login:
        await login.join()
    channel.wait_event("Normal", "Ready")
    user.set_labels(team="other")
    channel.wait_for("NamespaceNotAllowed", seconds=30)
    channel.delete()
    channel.wait_gone()
    # Nobody looked at what is not on the list.
    assert unseen.status == {}
    assert "finalizers" not in unseen.get()["metadata"]
    unseen.delete()
    wait_until(lambda: unseen.get() is None, "it is gone")
