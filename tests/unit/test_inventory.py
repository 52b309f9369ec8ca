"""What the watches have seen, and in which order it may arrive."""

from typing import Any

import pytest

from bus_operator import inventory as inventory_module
from bus_operator.errors import SpecError
from bus_operator.inventory import Inventory, Resource
from bus_operator.model import Injection


def body(version: int | str = 5, *, kind: str = "BusChannel", name: str = "orders", **changes: Any) -> dict[str, Any]:
    metadata = {
        "namespace": "shop",
        "name": name,
        "uid": "uid-1",
        "generation": 1,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-05-04T03:02:01Z",
    }
    parts = {"spec": {}, "status": {}} | {key: changes.pop(key) for key in ("spec", "status") if key in changes}
    return {"kind": kind, "metadata": metadata | changes, **parts}


def resource(version: int | str = 5, **changes: Any) -> Resource:
    return Resource.from_body(body(version, **changes))


def test_a_resource_of_the_least_metadata() -> None:
    read = Resource.from_body({"kind": "BusDatabase", "metadata": {"namespace": "a", "name": "b", "uid": "c"}})
    assert (read.key, str(read), read.generation, read.deleting) == (("a", "b"), "BusDatabase a/b", 0, False)


def test_what_is_secret_or_long_is_not_in_the_representation() -> None:
    assert "hunter2" not in repr(resource(spec={"channel": "hunter2"}, status={"channel": "hunter2"}))


def test_new_ask_for_work_and_echoes_do_not() -> None:
    inventory = Inventory()
    assert inventory.put(resource(5))
    assert not inventory.put(resource(5))
    assert not inventory.put(resource(6, status={"channel": "shop.orders"}))
    assert inventory.channels["shop", "orders"].status == {"channel": "shop.orders"}


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 2},
        {"uid": "uid-2"},
        {"finalizers": ["pgmqbus.dev/finalizer"]},
        {"deletionTimestamp": "2026-05-04T03:02:01Z"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changes_ask_for_work(change: dict[str, Any]) -> None:
    inventory = Inventory()
    inventory.put(resource(5))
    assert inventory.put(resource(6, **change))


def test_a_late_event_takes_nothing_back() -> None:
    """The answer to a write is there before the watch delivers what came before it."""
    inventory = Inventory()
    inventory.put(resource(5))
    assert inventory.put(resource(12, generation=2, status={"peers": 1}))
    assert not inventory.put(resource(9, generation=2))
    assert inventory.channels["shop", "orders"].status == {"peers": 1}


def test_versions_are_compared_as_numbers() -> None:
    assert resource(9).is_older_than(resource(10))
    assert not resource(10).is_older_than(resource(9))
    assert not resource(10).is_older_than(resource(10))
    # Not those of a server that writes something else: then the last one counts.
    assert not resource("abc").is_older_than(resource(10))


def test_the_end_of_one_is_not_the_end_of_its_successor() -> None:
    inventory = Inventory()
    inventory.put(resource(20, uid="uid-2"))
    inventory.remove(resource(15, uid="uid-1"))
    assert ("shop", "orders") in inventory.channels
    inventory.remove(resource(25, uid="uid-2"))
    inventory.remove(resource(25, uid="uid-2"))
    assert not inventory.channels


def test_kinds_are_kept_apart() -> None:
    inventory = Inventory()
    inventory.put(resource(kind="BusDatabase", name="same", spec={"default": True}))
    inventory.put(resource(kind="BusChannel", name="same"))
    assert (len(inventory.databases), len(inventory.channels)) == (1, 1)
    assert [item.name for item in inventory.defaults()] == ["same"]


def test_one_that_is_being_deleted_is_no_default() -> None:
    inventory = Inventory()
    inventory.put(resource(kind="BusDatabase", spec={"default": True}, deletionTimestamp="2026-05-04T03:02:01Z"))
    assert list(inventory.defaults()) == []


def test_a_stored_spec_may_be_older_than_the_schema() -> None:
    with pytest.raises(SpecError) as caught:
        resource(spec={"limits": {"maxPeers": 0}, "retired": 1}).channel_spec()
    assert str(caught.value) == (
        "spec.limits.maxPeers: Input should be greater than or equal to 1; spec.retired: unknown field"
    )
    with pytest.raises(SpecError, match=r"^spec.connectionSecretRef: Field required$"):
        resource(kind="BusDatabase").database_spec()


WEB = {"injection": {"podSelector": {"matchLabels": {"app": "web"}}}}
ALL = {"injection": {"podSelector": {"matchExpressions": [{"key": "pgmqbus.dev/inject", "operator": "DoesNotExist"}]}}}


def test_what_selects_a_pod() -> None:
    inventory = Inventory()
    for name, spec in (("orders", WEB), ("audit", ALL), ("plain", {}), ("wrong", {"injection": {"podSelector": {}}})):
        inventory.put(resource(name=name, spec=spec))
    assert inventory.selecting("shop", {"app": "web"}) == ("audit", "orders")
    assert inventory.selecting("shop", {"app": "db"}) == ("audit",)
    assert inventory.selecting("depot", {"app": "web"}) == ()
    inventory.put(resource(6, name="orders", spec=ALL))
    assert inventory.selecting("shop", {}) == ("audit", "orders")


def test_a_selector_is_parsed_once_and_not_for_each_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundreds, as large as they may be, with some hundreds of pods would take longer than a Lease lasts."""
    parsed = []

    class Counting(Injection):
        @classmethod
        def model_validate(cls, obj: Any, **_: Any) -> Any:
            parsed.append(obj)
            return Injection.model_validate(obj)

    monkeypatch.setattr(inventory_module, "Injection", Counting)
    inventory = Inventory()
    for name in ("orders", "audit", "wrong"):
        inventory.put(resource(name=name, spec=WEB if name != "wrong" else {"injection": {"podSelector": {}}}))
    for number in range(100):
        selecting = inventory.selecting("shop", {"app": "web", "pod": str(number)})
        assert selecting == ("audit", "orders")
    assert len(parsed) == 3
    inventory.put(resource(6, name="orders", spec=ALL))
    assert inventory.selecting("shop", {"app": "db"}) == ("orders",)
    assert len(parsed) == 4


@pytest.mark.parametrize("change", [{"spec": {}}, {"spec": WEB, "deletionTimestamp": "2026-05-04T03:02:01Z"}, None])
def test_where_pods_are_selected(change: dict[str, Any] | None) -> None:
    inventory = Inventory()
    selecting = resource(spec=WEB)

    def changes() -> bool:
        changed = inventory.selection_changed.is_set()
        inventory.selection_changed.clear()
        return changed

    inventory.put(resource(name="plain"))
    assert (inventory.selecting_namespaces, changes()) == (frozenset(), False)
    inventory.put(selecting)
    inventory.put(resource(name="audit", spec=WEB))
    assert (inventory.selecting_namespaces, changes()) == ({"shop"}, True)
    # A BusDatabase of the same name is something else.
    inventory.put(resource(kind="BusDatabase"))
    inventory.remove(resource(kind="BusDatabase"))
    inventory.remove(resource(name="audit"))
    assert inventory.selecting("shop", {"app": "web"}) == ("orders",)
    assert (inventory.selecting_namespaces, changes()) == ({"shop"}, False)
    if change is None:
        inventory.remove(selecting)
    else:
        inventory.put(resource(6, **change))
    assert (inventory.selecting_namespaces, changes()) == (frozenset(), True)
