"""What the API server says to BusDatabases, good and bad."""

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
Refusal = Callable[..., list[tuple[str, str]]]

SECRET = {"name": "orders-db-superuser"}
DEFAULTS = {
    "connectionSecretRef": {"name": "orders-db-superuser", "key": "uri"},
    "allowedNamespaces": {"from": "Same"},
    "shards": 1,
    "default": False,
}
# The API server does not repeat a value that a rule refuses, it gives its type.
OBJECT = 'Invalid value: "object": '
STRING = 'Invalid value: "string": '
NOT_A_SECRET_NAME = (
    "name must be the name of a Secret: lower-case letters, digits, '-' and '.', for example orders-db-superuser"
)
NOT_A_KEY = "key must be a key of the Secret (letters, digits, '-', '_' and '.'), for example uri"
NOT_A_HOST = "host must be a DNS name or an IP address, without scheme, port or path, for example pooler.databases.svc"
SELECTOR_NEEDED = "from: Selector needs a selector, for example selector: {matchLabels: {team: orders}}"
LABEL_NEEDS_VALUE = 'a label without a value is refused; write "" for an empty value, for example team: ""'
SELECTOR_UNUSED = "a selector is only used with from: Selector; write from: Selector or remove the selector"
WRONG_VALUES = "operators In and NotIn need at least one value in values; Exists and DoesNotExist allow none"
SSL_MODES = '"disable", "allow", "prefer", "require", "verify-ca", "verify-full"'


def database(name: str = "orders", **spec: Any) -> Manifest:
    return {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusDatabase",
        "metadata": {"name": name},
        "spec": {"connectionSecretRef": SECRET, **spec},
    }


def selected(**expression: Any) -> Manifest:
    return {"from": "Selector", "selector": {"matchExpressions": [{"key": "team", **expression}]}}


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        ({}, {}),
        ({"connectionSecretRef": SECRET | {"key": "fqdn-uri"}}, {}),
        ({"connectionSecretRef": SECRET | {"key": "URI_1.txt"}}, {}),
        (
            {"connectionSecretRef": {"name": "a.b-c"}},
            {"connectionSecretRef": {"name": "a.b-c", "key": "uri"}},
        ),
        ({"caSecretRef": {"name": "orders-ca"}}, {"caSecretRef": {"name": "orders-ca", "key": "ca.crt"}}),
        ({"caSecretRef": {"name": "orders.ca", "key": "bundle_1.pem"}}, {}),
        ({"clientEndpoint": {"host": "pooler.databases.svc", "port": 6432, "sslMode": "verify-full"}}, {}),
        ({"clientEndpoint": {"host": "10.0.0.7"}}, {}),
        ({"clientEndpoint": {"host": "fd00::7"}}, {}),
        ({"clientEndpoint": {"host": "::1"}}, {}),
        ({"clientEndpoint": {"port": 1}}, {}),
        ({"clientEndpoint": {"port": 65535}}, {}),
        ({"clientEndpoint": {"sslMode": "disable"}}, {}),
        ({"allowedNamespaces": {}}, {"allowedNamespaces": {"from": "Same"}}),
        ({"allowedNamespaces": {"from": "All"}}, {}),
        ({"allowedNamespaces": {"from": "Selector", "selector": {}}}, {}),
        ({"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "orders"}}}}, {}),
        ({"allowedNamespaces": selected(operator="In", values=["orders", "audit"])}, {}),
        ({"allowedNamespaces": selected(operator="NotIn", values=["kube-system"])}, {}),
        ({"allowedNamespaces": selected(operator="Exists")}, {}),
        ({"allowedNamespaces": selected(operator="DoesNotExist", values=[])}, {}),
        ({"default": True}, {}),
        ({"shards": 1}, {}),
        ({"shards": 64}, {}),
    ],
)
def test_good(resources: Any, spec: Manifest, changed: Manifest) -> None:
    assert resources.create(database(**spec))["spec"] == DEFAULTS | spec | changed


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"connectionSecretRef": {}}, [("spec.connectionSecretRef.name", "Required value")]),
        (
            {"connectionSecretRef": {"name": ""}},
            [("spec.connectionSecretRef.name", f"{STRING}{NOT_A_SECRET_NAME}")],
        ),
        (
            {"connectionSecretRef": {"name": "Orders_DB"}},
            [("spec.connectionSecretRef.name", f"{STRING}{NOT_A_SECRET_NAME}")],
        ),
        (
            {"connectionSecretRef": {"name": "default/orders"}},
            [("spec.connectionSecretRef.name", f"{STRING}{NOT_A_SECRET_NAME}")],
        ),
        (
            {"connectionSecretRef": {"name": "a" * 254}},
            [("spec.connectionSecretRef.name", "Too long: may not be more than 253 bytes")],
        ),
        ({"caSecretRef": {}}, [("spec.caSecretRef.name", "Required value")]),
        (
            {"caSecretRef": {"name": "Orders_CA"}},
            [("spec.caSecretRef.name", f"{STRING}{NOT_A_SECRET_NAME.replace('superuser', 'ca')}")],
        ),
        (
            {"caSecretRef": {"name": "orders-ca", "key": "my key"}},
            [("spec.caSecretRef.key", f"{STRING}{NOT_A_KEY.replace('uri', 'ca.crt')}")],
        ),
        (
            {"connectionSecretRef": SECRET | {"key": "my key"}},
            [("spec.connectionSecretRef.key", f"{STRING}{NOT_A_KEY}")],
        ),
        *(
            ({"shards": shards}, [("spec.shards", f"Invalid value: {shards}: spec.shards in body should be {bound}")])
            for shards, bound in ((0, "greater than or equal to 1"), (65, "less than or equal to 64"))
        ),
        (
            {"clientEndpoint": {}},
            [
                (
                    "spec.clientEndpoint",
                    f"{OBJECT}clientEndpoint must have host, port or sslMode; "
                    "leave clientEndpoint out to use the URI's",
                )
            ],
        ),
        *(
            (
                {"clientEndpoint": {"host": host}},
                [("spec.clientEndpoint.host", f"{STRING}{NOT_A_HOST}")],
            )
            for host in ("", "postgresql://db", "db:5432", "db/bus", "db, standby", "-db", "[::1]")
        ),
        (
            {"clientEndpoint": {"port": 0}},
            [
                (
                    "spec.clientEndpoint.port",
                    "Invalid value: 0: spec.clientEndpoint.port in body should be greater than or equal to 1",
                )
            ],
        ),
        (
            {"clientEndpoint": {"port": 65536}},
            [
                (
                    "spec.clientEndpoint.port",
                    "Invalid value: 65536: spec.clientEndpoint.port in body should be less than or equal to 65535",
                )
            ],
        ),
        (
            {"clientEndpoint": {"sslMode": "on"}},
            [("spec.clientEndpoint.sslMode", f'Unsupported value: "on": supported values: {SSL_MODES}')],
        ),
        (
            {"allowedNamespaces": {"from": "Some"}},
            [
                (
                    "spec.allowedNamespaces.from",
                    'Unsupported value: "Some": supported values: "Same", "All", "Selector"',
                )
            ],
        ),
        (
            {"allowedNamespaces": {"from": "Selector"}},
            [("spec.allowedNamespaces.selector", f"Required value: {SELECTOR_NEEDED}")],
        ),
        (
            # Left out, it would open the database to every namespace.
            {"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": None}}}},
            [("spec.allowedNamespaces.selector.matchLabels", f"{OBJECT}{LABEL_NEEDS_VALUE}")],
        ),
        *(
            ({"allowedNamespaces": {"selector": {"matchLabels": {}}} | given}, cause)
            for cause in [[("spec.allowedNamespaces.selector", f"Forbidden: {SELECTOR_UNUSED}")]]
            for given in ({}, {"from": "Same"}, {"from": "All"})
        ),
        *(
            (
                {"allowedNamespaces": selected(**expression)},
                [("spec.allowedNamespaces.selector.matchExpressions[0]", f"{OBJECT}{WRONG_VALUES}")],
            )
            for expression in (
                {"operator": "In"},
                {"operator": "NotIn", "values": []},
                {"operator": "Exists", "values": ["orders"]},
                {"operator": "DoesNotExist", "values": ["orders"]},
            )
        ),
        (
            {"default": "yes"},
            [
                (
                    "spec.default",
                    'Invalid value: "string": spec.default in body must be of type boolean: "string"',
                )
            ],
        ),
    ],
)
def test_bad(resources: Any, refusal: Refusal, spec: Manifest, causes: list[tuple[str, str]]) -> None:
    assert refusal(resources.create, database(**spec)) == causes


@pytest.mark.parametrize(
    ("manifest", "causes"),
    [
        (
            database(name="a" * 64),
            [
                (
                    "metadata.name",
                    f"{OBJECT}the name of a BusDatabase must have at most 63 characters; "
                    "choose a shorter metadata.name",
                )
            ],
        ),
        (
            {key: value for key, value in database().items() if key != "spec"},
            [("spec", "Required value")],
        ),
        (database() | {"spec": {}}, [("spec.connectionSecretRef", "Required value")]),
    ],
)
def test_bad_as_a_whole(resources: Any, refusal: Refusal, manifest: Manifest, causes: list[tuple[str, str]]) -> None:
    assert refusal(resources.create, manifest) == causes


def test_longest_name(resources: Any) -> None:
    assert resources.create(database(name="a" * 63))["metadata"]["name"] == "a" * 63


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": 4}, "spec.replicas"),
        ({"connectionSecretRef": SECRET | {"namespace": "x"}}, "spec.connectionSecretRef.namespace"),
        ({"caSecretRef": {"name": "ca", "namespace": "x"}}, "spec.caSecretRef.namespace"),
        ({"clientEndpoint": {"sslmode": "require"}}, "spec.clientEndpoint.sslmode"),
    ],
)
def test_unknown_field(resources: Any, spec: Manifest, field: str) -> None:
    with pytest.raises(ApiException) as caught:
        resources.create(database(**spec))
    assert f'strict decoding error: unknown field \\"{field}\\"' in caught.value.body


def test_everything_may_be_changed(resources: Any) -> None:
    """Moving a database to another server, or handing it to other namespaces, needs no new object."""
    created = resources.create(database(name="changing"), dry_run=False)
    spec = {
        "connectionSecretRef": {"name": "elsewhere", "key": "other"},
        "caSecretRef": {"name": "elsewhere-ca", "key": "other"},
        "clientEndpoint": {"host": "pooler"},
        "allowedNamespaces": {"from": "All"},
        "shards": 2,
        "default": True,
    }
    assert resources.replace(created | {"spec": spec})["spec"] == spec
    resources.delete(created)


def test_shards_grow_and_do_not_shrink(resources: Any, refusal: Refusal) -> None:
    created = resources.create(database(name="spread", shards=2), dry_run=False)
    for shards in (2, 3, 64):
        assert resources.replace(created | {"spec": created["spec"] | {"shards": shards}})["spec"]["shards"] == shards
    message = "Forbidden: shards can grow and not shrink, since channels do not move between databases"
    for fewer in ({"shards": 1}, {}):
        spec = {"connectionSecretRef": SECRET} | fewer
        assert refusal(resources.replace, created | {"spec": spec}) == [("spec.shards", message)]
    resources.delete(created)
