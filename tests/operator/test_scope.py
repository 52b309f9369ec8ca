"""An operator for a list of namespaces, with the rights that the chart then gives it: Roles there, and hardly more."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from control_plane import wait_until
from operator_process import Operator, install_chart
from operator_world import Namespace, World
from scraping import wait_for

RELEASE = "bus-of-two"


@dataclass(frozen=True)
class Scoped:
    """Two namespaces with an operator of their own."""

    world: World
    operator: Operator
    home: Namespace
    user: Namespace
    directory: Path

    def renew_rights(self) -> None:
        """As `helm upgrade`."""
        install(self.world, self.directory, self.home, self.user)

    def take_rights(self, namespace: Namespace) -> None:
        for plural in ("rolebindings", "roles"):
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}/{plural}"
            for item in self.world.kube.get(path)["items"]:
                self.world.kube.delete(f"{path}/{item['metadata']['name']}")

    def delete(self, namespace: Namespace) -> None:
        """With the operator's Role, as the namespace controller does it, of which there is none here."""
        self.take_rights(namespace)
        path = f"/api/v1/namespaces/{namespace.name}"
        self.world.kube.delete(path)
        going = self.world.kube.get(path)
        self.world.kube.request("PUT", f"{path}/finalize", going | {"spec": {"finalizers": []}})
        wait_until(lambda: self.world.kube.get(path) is None, f"{path} is gone")

    def wait_for_refusal(self, namespace: Namespace, why: str | None) -> None:
        """Until the operator has noticed whether it may read there; None: it may."""
        for reason in ("gone", "forbidden"):
            expected = 1 if reason == why else None
            labels = {"watched_namespace": namespace.name, "why": reason}
            wait_for(self.operator, expected, "pgmq_bus_namespace_unreadable", **labels)


def install(world: World, directory: Path, *namespaces: Namespace) -> Path:
    scope = json.dumps([namespace.name for namespace in namespaces])
    return install_chart(world.kube, directory, RELEASE, "--set-json", f"scope.namespaces={scope}")


@pytest.fixture
def scoped(world: World, operator: Operator, tmp_path: Path) -> Iterator[Scoped]:
    """That of the whole cluster is away."""
    namespaces = world.namespace(bound=False), world.namespace(bound=False)
    process = Operator(
        install(world, tmp_path, *namespaces),
        tmp_path / "log",
        BUS_NAMESPACES=",".join(namespace.name for namespace in namespaces),
        BUS_LEASE_NAME=RELEASE,
        BUS_SERVICE_ACCOUNT=RELEASE,
        BUS_WEBHOOK_SERVICE=f"{RELEASE}-webhook",
        BUS_WEBHOOK_CONFIGURATION=RELEASE,
        BUS_WEBHOOK_TLS_SECRET=f"{RELEASE}-webhook-tls",
    )
    operator.terminate()
    process.start()
    yield Scoped(world, process, *namespaces, tmp_path)
    process.kill()
    operator.start()


@pytest.fixture
def served(scoped: Scoped) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces whose operator may do there what it tries."""
    yield scoped.home, scoped.user
    assert "Forbidden" not in scoped.operator.log
    assert "cannot " not in scoped.operator.log


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
    channel.wait_for("NamespaceNotAllowed")
    channel.delete()
    channel.wait_gone()
    # Nobody looked at what is not on the list.
    assert unseen.status == {}
    assert "finalizers" not in unseen.get()["metadata"]
    unseen.delete()
    wait_until(lambda: unseen.get() is None, "it is gone")


async def test_a_namespace_that_is_deleted(world: World, scoped: Scoped) -> None:
    """While the operator runs, and before it starts: the other is served. And it is itself, when it is back."""
    home, lost = scoped.home, scoped.user
    home.database((await world.postgres()).dsn, allowedNamespaces={"from": "All"})
    channel = lost.channel(database=f"{home.name}/main")
    channel.wait_ready()
    channel.delete()
    channel.wait_gone()
    scoped.delete(lost)
    scoped.wait_for_refusal(lost, "gone")
    before = len(scoped.operator.log)
    home.channel("first").wait_ready()
    scoped.operator.terminate()
    scoped.operator.start()
    home.channel("second").wait_ready()
    scoped.wait_for_refusal(lost, "gone")
    log = scoped.operator.log[before:]
    assert f"namespace {lost.name} of scope.namespaces is not served: it does not exist. Take it off" in log
    for words in ("cannot list what is there", "cannot watch the labels", "cannot look for pods"):
        assert words not in log
    world.kube.create("/api/v1/namespaces", {"metadata": {"name": lost.name}})
    scoped.renew_rights()
    lost.channel(database=f"{home.name}/main").wait_ready(seconds=60)
    scoped.wait_for_refusal(lost, None)


async def test_rights_that_are_taken_away_for_a_while(world: World, scoped: Scoped) -> None:
    """What may not be read is not gone: nothing is dropped, nothing is decided, and a deletion keeps its promise."""
    home, dark = scoped.home, scoped.user
    elsewhere = await world.postgres()
    home.database((await world.postgres()).dsn, allowedNamespaces={"from": "All"})
    dark.database(elsewhere.dsn, allowedNamespaces={"from": "All"})
    hidden = dark.channel(database=f"{home.name}/main")
    dependent, going, leaving = (
        home.channel(name, database=f"{dark.name}/main", deletionPolicy="Delete")
        for name in ("dependent", "going", "leaving")
    )
    for channel in (hidden, dependent, going, leaving):
        channel.wait_ready()

    async def require_logins() -> None:
        for namespace, secret in ((dark, "orders-bus"), *((home, f"{n}-bus") for n in ("dependent", "going"))):
            async with namespace.login(secret) as login:
                await login.join()

    wire_names = {channel.name: channel.status["channel"] for channel in (dependent, going, leaving)}
    scoped.take_rights(dark)
    scoped.wait_for_refusal(dark, "forbidden")
    # Its database cannot be used any more, and what is owed cannot be noted on it.
    dependent.wait_for("DatabaseUnavailable")
    leaving.delete()
    leaving.wait_for("NamespaceUnreadable")
    home.channel("first").wait_ready()
    await require_logins()

    scoped.operator.terminate()
    scoped.operator.start()
    # Now nothing is known of it.
    message = dependent.wait_for("NamespaceUnreadable")["message"]
    assert message.startswith(f"BusDatabase {dark.name}/main may be there or not: the operator may not read namespace")
    going.delete()
    going.wait_for("NamespaceUnreadable")
    by_default = home.channel("by-default", database=None)
    by_default.wait_for("NamespaceUnreadable")
    home.channel("second").wait_ready()
    await require_logins()
    assert set(await elsewhere.channels()) == set(wire_names.values())

    scoped.renew_rights()
    for channel in (going, leaving):
        channel.wait_gone(seconds=60)
    dependent.wait_ready(seconds=60)
    by_default.wait_for("NoDefaultDatabase", seconds=60)
    assert await elsewhere.channels() == [wire_names["dependent"]]
    hidden.patch({"limits": {"maxPeers": 7}})
    hidden.wait_ready()
    assert hidden.status["credentialGeneration"] == 1
    assert f"namespace {dark.name} can be read again" in scoped.operator.log
