"""How the resources present themselves: kubectl explain, kubectl get, conditions."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
Run = Callable[..., str]

EMPTY_SPEC = {"BusDatabase": {"connectionSecretRef": {"name": "admin"}}, "BusChannel": {}}
READY = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2025-01-01T00:00:00Z",
    "reason": "Ready",
    "message": "",
}
STATUS = {
    "BusDatabase": {
        "observedGeneration": 1,
        "conditions": [READY, READY | {"type": "Reachable"}],
        "serverVersion": "17.2",
        "pgmqVersion": "1.5.0",
        "schemaVersion": 2,
        "channels": 3,
        "lastProbeTime": "2025-01-01T00:00:00Z",
    },
    "BusChannel": {
        "observedGeneration": 1,
        "channel": "default.shown",
        "secretRef": {"name": "shown-bus"},
        "database": {"namespace": "databases", "name": "orders-db"},
        "shard": 2,
        "peers": 4,
        "wake": {"doorbell": 2, "listen": 1, "poll": 1},
        "backlog": 5,
        "oldestMessageAge": "7m",
        "credentialGeneration": 1,
        "lastVerifiedTime": "2025-01-01T00:00:00Z",
        "conditions": [READY, READY | {"type": "Provisioned"}],
    },
}


def fields(schema: Manifest, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Manifest]]:
    """All fields below a schema with their paths, as kubectl explain takes them (lists are looked through)."""
    for name, field in schema.get("properties", {}).items():
        if path == () and name in {"apiVersion", "kind", "metadata"}:
            continue  # Kubernetes describes these itself
        yield (*path, name), field
        yield from fields(field, (*path, name))
        yield from fields(field.get("items", {}), (*path, name))


@pytest.fixture(scope="module")
def published(run: Run, definitions: dict[str, Manifest]) -> dict[str, Manifest]:
    """The schemas that the API server publishes, which is where kubectl explain reads."""
    deadline = time.monotonic() + 30
    while "apis/pgmqbus.dev/v1alpha1" not in json.loads(run("kubectl", "get", "--raw", "/openapi/v3"))["paths"]:
        assert time.monotonic() < deadline, "the API server does not publish the schema of pgmqbus.dev/v1alpha1"
        time.sleep(0.1)
    document = json.loads(run("kubectl", "get", "--raw", "/openapi/v3/apis/pgmqbus.dev/v1alpha1"))
    return {kind: document["components"]["schemas"][f"dev.pgmqbus.v1alpha1.{kind}"] for kind in definitions}


@pytest.mark.parametrize("kind", ["BusDatabase", "BusChannel"])
def test_every_field_is_explained(published: dict[str, Manifest], definitions: dict[str, Manifest], kind: str) -> None:
    source = definitions[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert published[kind]["description"].startswith(f"A {kind} is ")
    explained = {path: field.get("description", "") for path, field in fields(published[kind])}
    assert explained.keys() == dict(fields(source)).keys()
    assert {path for path, description in explained.items() if not description.endswith(".")} == set()


def test_kubectl_explain(published: dict[str, Manifest], run: Run) -> None:
    text = " ".join(run("kubectl", "explain", "busch.spec.reader").split())
    for name, field in published["BusChannel"]["properties"]["spec"]["properties"]["reader"]["properties"].items():
        assert f"{name} <integer> {field['description']}" in text


@pytest.fixture(params=["BusDatabase", "BusChannel"])
def shown(resources: Any, request: pytest.FixtureRequest) -> Iterator[Manifest]:
    """An object named `shown` with a full status."""
    kind = request.param
    manifest = {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "shown"},
        "spec": EMPTY_SPEC[kind],
    }
    resources.create(manifest, dry_run=False)
    yield resources.patch_status(kind, "shown", STATUS[kind])
    resources.delete(manifest)


COLUMNS = {
    "BusDatabase": {
        "NAME": "shown",
        "READY": "True",
        "SERVER": "17.2",
        "PGMQ": "1.5.0",
        "CHANNELS": "3",
        "AGE": None,
        "SHARDS": "1",
        "DEFAULT": "false",
        "REASON": "Ready",
    },
    "BusChannel": {
        "NAME": "shown",
        "READY": "True",
        "CHANNEL": "default.shown",
        "PEERS": "4",
        "BACKLOG": "5",
        "AGE": None,
        "VERIFIED": None,
        "DATABASE": "orders-db",
        "SHARD": "2",
        "DURABILITY": "Sync",
        "OLDEST": "7m",
        "REASON": "Ready",
    },
}


TIMES = {"AGE", "VERIFIED"}
"""Columns that change by themselves."""


def test_columns(run: Run, shown: Manifest) -> None:
    expected = COLUMNS[shown["kind"]]
    for resource in (shown["kind"].lower(), {"BusDatabase": "busdb", "BusChannel": "busch"}[shown["kind"]], "bus"):
        header, row = run("kubectl", "get", resource, "-o", "wide").splitlines()
        assert header.split() == list(expected)
        cells = dict(zip(header.split(), row.split(), strict=True))
        name = cells.pop("NAME")  # `kubectl get bus` says of which kind
        assert name.rpartition("/")[2] == expected["NAME"]
        assert {column: cell for column, cell in cells.items() if column not in TIMES} == {
            column: cell for column, cell in expected.items() if column not in TIMES | {"NAME"}
        }
    narrow = run("kubectl", "get", shown["kind"].lower()).splitlines()[0].split()
    assert narrow == list(expected)[: list(expected).index("AGE") + 1]


def test_status_is_kept_whole(shown: Manifest) -> None:
    """Nothing that the operator writes is pruned."""
    assert shown["status"] == STATUS[shown["kind"]]


def test_one_condition_of_each_type(resources: Any, refusal: Callable[..., Any], shown: Manifest) -> None:
    twice = {"conditions": [READY, READY]}
    assert refusal(resources.patch_status, shown["kind"], "shown", twice) == [
        ("status.conditions[1]", 'Duplicate value: {"type":"Ready"}')
    ]


def test_status_is_not_changed_with_the_spec(resources: Any, shown: Manifest) -> None:
    changed = resources.replace(shown | {"status": {}})
    assert changed["status"] == shown["status"]


def test_kubectl_wait(run: Run, shown: Manifest) -> None:
    run("kubectl", "wait", "--for=condition=Ready", "--timeout=5s", f"{shown['kind'].lower()}/shown")


def test_status_cannot_be_given_with_the_manifest(resources: Any) -> None:
    manifest = {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusChannel",
        "metadata": {"name": "new"},
        "status": STATUS["BusChannel"],
    }
    assert "status" not in resources.create(manifest)
