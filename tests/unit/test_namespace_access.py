"""Namespaces that the operator is restricted to and may not read: what is in there is not known, and is not gone."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest
import virtual_time
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.controller import Controller
from bus_operator.database_reconciler import DatabaseReconciler
from bus_operator.errors import NamespaceUnreadableError, SpecError
from bus_operator.inventory import Inventory, Resource
from bus_operator.kube import Kube
from bus_operator.kube_api import PAGE, KubeApi, Page
from bus_operator.kube_objects import Refusal
from bus_operator.namespace_access import LOOK_INTERVAL, NamespaceAccess
from bus_operator.pending_deletions import PendingDeletions
from bus_operator.reporting import Reporter
from bus_operator.selection import Selection
from bus_operator.webhook_scope import WebhookScope

Json = dict[str, Any]


def body(kind: str, namespace: str, name: str, version: int = 5, **parts: Any) -> Json:
    metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "resourceVersion": str(version)}
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": {}} | parts


class Cluster:
    """An API server with namespaces; a Role goes with its namespace."""

    def __init__(self, *namespaces: str) -> None:
        self.namespaces: dict[str, Json] = {name: {"name": name} for name in namespaces}
        self.roles = set(namespaces)
        self.resources: list[Json] = []
        self.may_read_namespaces = True

    def delete(self, name: str) -> None:
        del self.namespaces[name]
        self.roles.discard(name)

    async def get(self, path: str, **_: Any) -> Json:
        _, _, within = path.partition("/namespaces/")
        name, _, plural = within.partition("/")
        if plural and name not in self.roles:
            raise ApiException(status=403, reason="Forbidden")
        if not plural and not self.may_read_namespaces:
            raise ApiException(status=403, reason="Forbidden")
        if not plural and name not in self.namespaces:
            raise ApiException(status=404, reason="Not Found")
        if not plural:
            return {"metadata": self.namespaces[name]}
        kind = {"busdatabases": "BusDatabase", "buschannels": "BusChannel"}[plural.partition("?")[0]]
        items = [item for item in self.resources if (item["kind"], item["metadata"]["namespace"]) == (kind, name)]
        return {"metadata": {"resourceVersion": "100"}, "items": items}

    async def pages(self, path: str, **_: Any) -> AsyncIterator[Page]:
        found = await self.get(path)
        yield Page(found["items"], found["metadata"]["resourceVersion"], PAGE)

    def kube(self, *namespaces: str) -> Kube:
        return Kube(cast(KubeApi, self), secrets_role="", service_account=("", ""), namespaces=namespaces)


def controller(cluster: Cluster) -> Controller:
    kube = cluster.kube("shop", "depot")
    return Controller(kube, resync=60, workers=1, credential_unused=timedelta(hours=1), verification_interval=3600)


async def test_why_a_namespace_may_not_be_read() -> None:
    cluster = Cluster("shop", "depot")
    kube = cluster.kube("shop", "depot")
    assert await kube.try_namespaces() == {}
    cluster.roles.discard("depot")
    assert await kube.try_namespaces() == {"depot": Refusal.FORBIDDEN}
    cluster.namespaces["depot"]["deletionTimestamp"] = "2026-05-04T03:02:01Z"
    assert await kube.try_namespaces() == {"depot": Refusal.TERMINATING}
    cluster.delete("depot")
    assert await kube.try_namespaces() == kube.refused == {"depot": Refusal.GONE}
    # As with rights that were made by hand: then it is not said to be gone.
    cluster.may_read_namespaces = False
    assert await kube.try_namespaces() == {"depot": Refusal.FORBIDDEN}
    assert await kube.refusal("elsewhere") is None


async def test_what_cannot_be_read_is_not_gone() -> None:
    cluster = Cluster("shop", "depot")
    cluster.resources = [body("BusChannel", "shop", "orders"), body("BusChannel", "depot", "orders")]
    made = controller(cluster)
    assert await made.look_at_all()
    assert made.inventory.channels.keys() == {("shop", "orders"), ("depot", "orders")}
    cluster.roles.discard("depot")
    cluster.resources = []
    assert await made.look_at_all()
    assert (made.inventory.channels.keys(), made.inventory.unread) == ({("depot", "orders")}, {"depot"})
    # Now it is.
    cluster.delete("depot")
    assert await made.look_at_all()
    assert (made.inventory.channels.keys(), made.inventory.unread) == (set(), frozenset())


async def test_it_is_unknown_until_it_was_listed() -> None:
    cluster = Cluster("shop", "depot")
    cluster.roles.discard("depot")
    made = controller(cluster)
    assert await made.look_at_all()
    cluster.roles.add("depot")
    await made._access.look()
    assert (made.refused_namespaces, made.inventory.unread) == ({}, {"depot"})
    assert await made.look_at_all()
    assert made.inventory.unread == frozenset()


async def test_who_sees_nothing_does_not_begin() -> None:
    cluster = Cluster("shop", "depot")
    cluster.roles.clear()
    made = controller(cluster)
    assert not await made.look_at_all()
    assert made.inventory.unread == {"shop", "depot"}
    cluster.namespaces.clear()
    assert await made.look_at_all(), "where there is nothing there is nothing to see"
    assert made.inventory.unread == frozenset()


async def test_each_change_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster("shop", "depot")
    access = NamespaceAccess(cluster.kube("shop", "depot"), Inventory(), interval=60)
    caplog.set_level(logging.INFO)

    async def said() -> list[str]:
        caplog.clear()
        await access.look()
        await access.look()
        return [record.getMessage() for record in caplog.records]

    assert await said() == []
    cluster.roles.discard("depot")
    (forbidden,) = await said()
    assert "namespace depot of scope.namespaces is not served" in forbidden
    assert "helm upgrade" in forbidden
    cluster.namespaces["depot"]["deletionTimestamp"] = "2026-05-04T03:02:01Z"
    (terminating,) = await said()
    assert terminating.endswith("busctl release-finalizers --namespace depot")
    cluster.delete("depot")
    (gone,) = await said()
    assert "it does not exist. Take it off scope.namespaces" in gone
    cluster.namespaces["depot"] = {"name": "depot"}
    cluster.roles.add("depot")
    assert await said() == ["namespace depot can be read again"]


def test_it_is_listed_again_when_other_namespaces_may_be_read() -> None:
    """Also when all were away meanwhile, and it then looks as before."""

    async def watch() -> None:
        cluster = Cluster("shop", "depot")
        access = NamespaceAccess(cluster.kube("shop", "depot"), Inventory(), interval=3600)
        now = asyncio.get_running_loop().time

        async def waited() -> float:
            begun = now()
            await access.until_changed(600)
            return now() - begun

        assert await waited() == 600
        cluster.roles.clear()
        assert await waited() == LOOK_INTERVAL
        cluster.roles.update({"shop", "depot"})
        assert await waited() == LOOK_INTERVAL
        access.listed({})
        assert await waited() == 600
        assert access._inventory.unread == frozenset()

    virtual_time.run(watch())


class Labels:
    async def labels_of(self, name: str) -> Json:
        return {}


def selection(*databases: Json, unread: str = "depot") -> Selection:
    inventory = Inventory()
    for database in databases:
        inventory.put(Resource.from_body(database))
    inventory.unread = frozenset({unread})
    return Selection(Labels(), inventory)


async def chosen(made: Selection, spec: Json, status: Json | None = None) -> Resource:
    channel = Resource.from_body(body("BusChannel", "shop", "orders", spec=spec, status=status or {}))
    return await made.database_of(channel, channel.channel_spec())


DEFAULT = {"connectionSecretRef": {"name": "admin"}, "default": True, "allowedNamespaces": {"from": "All"}}


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"databaseRef": {"namespace": "depot", "name": "main"}}, {}),
        ({}, {"database": {"namespace": "depot", "name": "main"}, "secretRef": {"name": "orders-bus"}}),
    ],
    ids=["named", "by default, long ago"],
)
async def test_a_database_that_cannot_be_read_may_be_there(spec: Json, status: Json) -> None:
    with pytest.raises(NamespaceUnreadableError, match="BusDatabase depot/main may be there or not: the operator may"):
        await chosen(selection(), spec, status)
    with pytest.raises(SpecError, match="there is no BusDatabase depot/main"):
        await chosen(selection(unread="elsewhere"), spec, status)


async def test_no_default_is_chosen_for_ever_while_another_may_be_there() -> None:
    other = body("BusDatabase", "bus", "main", spec=DEFAULT)
    with pytest.raises(NamespaceUnreadableError, match="which BusDatabase is the default is not certain"):
        await chosen(selection(other), {})
    with pytest.raises(NamespaceUnreadableError):
        await chosen(selection(), {})
    # Whatever there is elsewhere, the own one comes first.
    own = body("BusDatabase", "shop", "main", spec=DEFAULT)
    assert (await chosen(selection(own, other), {})).namespace == "shop"
    ambiguous = body("BusDatabase", "bus", "other", spec=DEFAULT)
    with pytest.raises(SpecError, match="several BusDatabases are the default"):
        await chosen(selection(other, ambiguous), {})


async def test_nothing_is_dropped_for_a_channel_that_may_have_been_made_anew() -> None:
    """`Delete` is pending, and the BusChannel of that name, which would take its messages over, cannot be read."""
    owed = {"namespace": "depot", "name": "orders", "channel": "depot.orders", "policy": "Delete", "since": "0"}
    database = body("BusDatabase", "shop", "main", status={"pendingDeletions": {"uid": owed}})
    inventory = Inventory()
    inventory.put(Resource.from_body(database))
    pending = PendingDeletions(
        Cluster().kube(),
        inventory,
        selection=Selection(Labels(), inventory),
        databases=cast(DatabaseReconciler, object()),
        reporter=cast(Reporter, object()),
        wake=lambda *_, **__: None,
    )
    inventory.unread = frozenset({"depot"})
    await pending.carry_out(("shop", "main"))
    inventory.unread = frozenset()
    with pytest.raises(AttributeError, match="usable"):
        await pending.carry_out(("shop", "main"))


class Configuration:
    """A MutatingWebhookConfiguration."""

    def __init__(self) -> None:
        self.webhooks: list[Json] = [{"name": "inject.pgmqbus.dev"}]

    async def get(self, path: str) -> Json:
        return {"metadata": {"resourceVersion": "1"}, "webhooks": json.loads(json.dumps(self.webhooks))}

    async def patch(self, path: str, changes: Json) -> None:
        self.webhooks = changes["webhooks"]

    @property
    def namespaces(self) -> list[str]:
        return [
            name
            for webhook in self.webhooks[1:]
            for name in webhook["namespaceSelector"]["matchExpressions"][-1]["values"]
        ]


async def test_pods_go_on_being_shown_to_the_webhook() -> None:
    """A replica that was started anew does not know what selects pods in a namespace that it may not read."""
    selecting = {"injection": {"podSelector": {"matchLabels": {"app": "web"}}}}
    configuration, inventory = Configuration(), Inventory()
    scope = WebhookScope(cast(KubeApi, configuration), "bus", inventory)
    for namespace in ("shop", "depot", "bus"):
        inventory.put(Resource.from_body(body("BusChannel", namespace, "orders", spec=selecting)))
    await scope.ensure()
    assert configuration.namespaces == ["bus", "depot", "shop"]
    fresh = Inventory()
    fresh.put(Resource.from_body(body("BusChannel", "shop", "orders", spec=selecting)))
    fresh.unread = frozenset({"depot", "never-selected"})
    assert await WebhookScope(cast(KubeApi, configuration), "bus", fresh).ensure()
    assert configuration.namespaces == ["depot", "shop"]
