"""What a BusChannel is told whose BusDatabase is not there, and which BusChannels a change of one concerns."""

from collections.abc import Mapping
from typing import Any

import pytest

from bus_operator.errors import SpecError, TransientError
from bus_operator.inventory import Inventory, Resource
from bus_operator.selection import Selection

LABELS = {"shop": {"team": "orders"}}
SELECTOR = {"from": "Selector", "selector": {"matchLabels": {"team": "orders"}}}
ALL, SAME = {"from": "All"}, {"from": "Same"}

MISSING = (
    "there is no BusDatabase shop/main: create it, or delete the BusChannel and create it with another spec.databaseRef"
)
HINT = "; there is pgmq-bus/main: write databaseRef: {name: main, namespace: pgmq-bus}"


class Labels:
    """The labels of namespaces; of those that it does not know they cannot be read."""

    async def labels_of(self, name: str) -> Mapping[str, str]:
        if name not in LABELS:
            raise TransientError("the API server cannot answer now", reason="ApiUnavailable")
        return LABELS[name]


def resource(kind: str, namespace: str, name: str, **parts: Any) -> Resource:
    metadata = {"namespace": namespace, "name": name, "uid": f"{kind}-{namespace}-{name}"}
    return Resource.from_body({"kind": kind, "metadata": metadata | parts.pop("metadata", {})} | parts)


def database(namespace: str, allowed: Mapping[str, Any], name: str = "main", **metadata: str) -> Resource:
    spec = {"connectionSecretRef": {"name": "admin"}, "allowedNamespaces": allowed}
    return resource("BusDatabase", namespace, name, spec=spec, metadata=metadata)


def channel(namespace: str = "shop", reference: Mapping[str, str] | None = None, **status: Any) -> Resource:
    spec = {"databaseRef": reference or {"name": "main"}}
    return resource("BusChannel", namespace, "orders", spec=spec, status=status)


def selection(*resources: Resource) -> Selection:
    inventory = Inventory()
    for item in resources:
        inventory.put(item)
    return Selection(Labels(), inventory)


async def refusal(asking: Resource, *others: Resource) -> str:
    with pytest.raises(SpecError) as refused:
        await selection(asking, *others).database_of(asking, asking.channel_spec())
    assert refused.value.reason == "DatabaseNotFound"
    return str(refused.value)


@pytest.mark.parametrize(
    ("others", "hint"),
    [
        ([], ""),
        ([database("pgmq-bus", ALL)], HINT),
        ([database("pgmq-bus", SELECTOR)], HINT),
        ([database("pgmq-bus", ALL, "another")], ""),
        # It would have to guess.
        ([database("pgmq-bus", ALL), database("depot", ALL)], ""),
        # Nobody is told of what he may not use, not even by silence about what he may.
        ([database("pgmq-bus", SAME)], ""),
        ([database("pgmq-bus", ALL), database("depot", SAME)], HINT),
        ([database("pgmq-bus", ALL, deletionTimestamp="2026-01-02T03:04:05Z")], ""),
    ],
    ids=["none", "all", "selected", "another name", "two", "not allowed", "one of two allowed", "going"],
)
async def test_a_missing_database_may_be_meant_elsewhere(others: list[Resource], hint: str) -> None:
    assert await refusal(channel(), *others) == MISSING + hint


async def test_a_wrong_namespace_may_have_been_written() -> None:
    said = await refusal(channel(reference={"name": "main", "namespace": "db"}), database("pgmq-bus", ALL))
    assert said == MISSING.replace("shop/main", "db/main") + HINT


async def test_a_channel_whose_messages_were_in_the_missing_one_is_sent_nowhere() -> None:
    placed = channel(database={"namespace": "shop", "name": "main"})
    assert await refusal(placed, database("pgmq-bus", ALL)) == MISSING


async def test_what_is_wrong_is_said_without_the_labels_of_the_namespace() -> None:
    said = await refusal(channel("dark"), database("pgmq-bus", SELECTOR))
    assert said == MISSING.replace("shop/", "dark/")


def test_a_database_concerns_those_that_are_told_of_it() -> None:
    lost, found = channel("shop"), channel("depot")
    chosen = selection(lost, found, database("depot", SAME))
    assert list(chosen.channels_of(("pgmq-bus", "main"))) == [lost]
    assert list(chosen.channels_of(("pgmq-bus", "another"))) == []
    assert list(chosen.channels_of(("depot", "main"))) == [lost, found]
