"""What the API server says to BusChannels, good and bad."""

import io
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from bus_operator.cli.manifests import read_manifests
from bus_operator.errors import SpecError

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
Refusal = Callable[..., list[tuple[str, str]]]

LIMITS = {"maxPeers": 1000, "maxMessageBytes": 1048576, "maxConnections": 100}
READER = {
    "visibilityTimeoutSeconds": 30,
    "batchSize": 10,
    "pollIntervalMilliseconds": 100,
    "maxPollSeconds": 5,
}
DEFAULTS = {
    "durability": "Sync",
    "selfDelivery": True,
    "limits": LIMITS,
    "peerTimeout": "10m",
    "reader": READER,
    "credentials": {"overlap": "24h"},
    "deletionPolicy": "Retain",
}
# The API server does not repeat a value that a rule refuses, it gives its type.
STRING = 'Invalid value: "string": '
OBJECT = 'Invalid value: "object": '
NOT_A_CHANNEL = (
    "channel must begin with a letter or digit and go on with letters, digits and any of . _ : / -, "
    "for example shop.orders"
)
NOT_A_DATABASE_NAME = (
    "name must be the name of a BusDatabase: lower-case letters, digits, '-' and '.', for example orders-db"
)
NOT_A_NAMESPACE = "namespace must be the name of a namespace: lower-case letters, digits and '-', for example databases"
NOT_A_SECRET_NAME = (
    "secretName must be a name for a Secret: lower-case letters, digits, '-' and '.', for example orders-bus"
)
NOT_A_TIMEOUT = (
    "peerTimeout must be from 10s to 720h (30 days), written with h, m and s in this order, "
    "for example 90s, 10m or 1h30m"
)
NOT_AN_INTERVAL = (
    "rotationInterval must be from 1h to 8760h (365 days), written with h, m and s in this order, "
    "for example 24h or 720h"
)
NOT_AN_OVERLAP = (
    "overlap must be from 1m to 720h (30 days), written with h, m and s in this order, for example 30m or 24h"
)
NOT_AN_AGE = (
    "maxAge must be from 1s to 8760h (365 days), written with h, m and s in this order, for example 90s, 30m or 168h"
)
EMPTY_SELECTOR = (
    "podSelector must not be empty; write for example matchLabels: {app: worker}, or for all pods matchExpressions: "
    "[{key: pgmqbus.dev/inject, operator: DoesNotExist}]"
)
WRONG_VALUES = "operators In and NotIn need at least one value in values; Exists and DoesNotExist allow none"
CHANNEL_FIXED = (
    "Forbidden: channel cannot be changed, added or removed after creation, since peers have joined it by this "
    "name; create another BusChannel instead"
)
DATABASE_FIXED = (
    "Forbidden: databaseRef cannot be changed, added or removed after creation, since messages do not move between "
    "databases; create another BusChannel instead"
)
# Field, the first good value, the last good value.
RANGES = [
    ("limits", "maxPeers", 1, 10000),
    ("limits", "maxMessageBytes", 1024, 16777216),
    ("limits", "maxConnections", 1, 10000),
    ("reader", "visibilityTimeoutSeconds", 1, 3600),
    ("reader", "batchSize", 1, 1000),
    ("reader", "pollIntervalMilliseconds", 10, 60000),
    ("reader", "maxPollSeconds", 0, 60),
]


def channel(name: str = "orders", **spec: Any) -> Manifest:
    return {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusChannel",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"databaseRef": {"name": "orders-db"}},
        {"databaseRef": {"name": "orders-db", "namespace": "databases"}},
        {"channel": "pipecat_bus"},
        {"channel": "0.A_b:c/d-e"},
        {"channel": "c" * 200},
        {"durability": "Async"},
        {"durability": "Unlogged"},
        {"retention": {}},
        *({"retention": {"maxAge": age}} for age in ("1s", "8760h", "24h30m")),
        {"retention": {"maxAge": "168h", "maxMessages": 1, "maxBytes": 65536}},
        {"retention": {"maxMessages": 2**63 - 1, "maxBytes": 2**63 - 1}},
        {"selfDelivery": False},
        {"limits": {}},
        {"limits": {"maxPeers": 16}},
        *(
            {"peerTimeout": timeout}
            for timeout in ("10s", "90s", "10m", "1h30m", "720h", "719h59m60s", "0h1m", "43200m")
        ),
        {"reader": {"batchSize": 100}},
        {"credentials": {"secretName": "orders.credentials"}},
        {"credentials": {"rotationInterval": "1h", "overlap": "1m"}},
        {"credentials": {"rotationInterval": "8760h", "overlap": "720h"}},
        {"injection": {"podSelector": {"matchLabels": {"app": "worker"}}}},
        *(
            {"injection": {"podSelector": {"matchExpressions": [{"key": "app"} | expression]}}}
            for expression in ({"operator": "In", "values": ["a"]}, {"operator": "DoesNotExist"})
        ),
        {"deletionPolicy": "Delete"},
        {"deletionPolicy": "DeleteIfEmpty"},
    ],
)
def test_good(resources: Any, spec: Manifest) -> None:
    expected = DEFAULTS | spec
    expected |= {"limits": LIMITS | spec.get("limits", {}), "reader": READER | spec.get("reader", {})}
    expected |= {"credentials": DEFAULTS["credentials"] | spec.get("credentials", {})}
    assert resources.create(channel(**spec))["spec"] == expected


def test_a_name_is_enough(resources: Any) -> None:
    manifest = channel()
    del manifest["spec"]
    assert resources.create(manifest)["spec"] == DEFAULTS


@pytest.mark.parametrize(("group", "field", "first", "last"), RANGES)
def test_ranges(resources: Any, refusal: Refusal, group: str, field: str, first: int, last: int) -> None:
    for good in (first, last):
        assert resources.create(channel(**{group: {field: good}}))["spec"][group][field] == good
    path = f"spec.{group}.{field}"
    for bad, bound in (
        (first - 1, f"greater than or equal to {first}"),
        (last + 1, f"less than or equal to {last}"),
    ):
        assert refusal(resources.create, channel(**{group: {field: bad}})) == [
            (path, f"Invalid value: {bad}: {path} in body should be {bound}")
        ]


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"databaseRef": {}}, [("spec.databaseRef.name", "Required value")]),
        (
            {"databaseRef": {"name": "databases/orders-db"}},
            [("spec.databaseRef.name", f"{STRING}{NOT_A_DATABASE_NAME}")],
        ),
        (
            {"databaseRef": {"name": "d", "namespace": "a.b"}},
            [("spec.databaseRef.namespace", f"{STRING}{NOT_A_NAMESPACE}")],
        ),
        *(
            ({"channel": name}, [("spec.channel", f"{STRING}{NOT_A_CHANNEL}")])
            for name in (
                "",
                "two words",
                "-orders",
                "_orders",
                ".orders",
                "bestellungen-für-alle",
                "a;b",
                "a'b",
            )
        ),
        ({"channel": "c" * 201}, [("spec.channel", "Too long: may not be more than 200 bytes")]),
        (
            {"durability": "Fast"},
            [("spec.durability", 'Unsupported value: "Fast": supported values: "Sync", "Async", "Unlogged"')],
        ),
        (
            {"selfDelivery": "no"},
            [
                (
                    "spec.selfDelivery",
                    'Invalid value: "string": spec.selfDelivery in body must be of type boolean: "string"',
                )
            ],
        ),
        (
            {"limits": {"maxPeers": 1.5}},
            [
                (
                    "spec.limits.maxPeers",
                    'Invalid value: "number": spec.limits.maxPeers in body must be of type integer: "number"',
                )
            ],
        ),
        *(
            ({"peerTimeout": timeout}, [("spec.peerTimeout", f"{STRING}{NOT_A_TIMEOUT}")])
            for timeout in (
                "",
                "10",
                "9s",
                "0s",
                "-10m",
                "1d",
                "1.5h",
                "500ms",
                "10 m",
                "30m1h",
                "10M",
                "720h1s",
                "999999h",
                "9999999h",
            )
        ),
        *(
            ({"retention": {"maxAge": age}}, [("spec.retention.maxAge", f"{STRING}{NOT_AN_AGE}")])
            for age in ("", "0s", "8760h1s", "9999999h", "7d", "1s1h")
        ),
        *(
            (
                {"retention": {field: first - 1}},
                [
                    (
                        f"spec.retention.{field}",
                        f"Invalid value: {first - 1}: spec.retention.{field} in body should be greater than or equal to"
                        f" {first}",
                    )
                ],
            )
            for field, first in (("maxMessages", 1), ("maxBytes", 65536))
        ),
        *(
            (
                {"credentials": {"rotationInterval": value}},
                [("spec.credentials.rotationInterval", f"{STRING}{NOT_AN_INTERVAL}")],
            )
            for value in ("59m", "8761h", "1d", "", "9" * 8 + "h")
        ),
        *(
            ({"credentials": {"overlap": value}}, [("spec.credentials.overlap", f"{STRING}{NOT_AN_OVERLAP}")])
            for value in ("59s", "721h", "never", "", "9" * 8 + "h")
        ),
        (
            {"credentials": {"secretName": "Orders"}},
            [("spec.credentials.secretName", f"{STRING}{NOT_A_SECRET_NAME}")],
        ),
        ({"injection": {}}, [("spec.injection.podSelector", "Required value")]),
        *(
            ({"injection": {"podSelector": selector}}, [("spec.injection.podSelector", f"{OBJECT}{EMPTY_SELECTOR}")])
            for selector in ({}, {"matchLabels": {}}, {"matchExpressions": []})
        ),
        *(
            (
                {"injection": {"podSelector": {"matchExpressions": [{"key": "app"} | expression]}}},
                [("spec.injection.podSelector.matchExpressions[0]", f"{OBJECT}{WRONG_VALUES}")],
            )
            for expression in ({"operator": "NotIn"}, {"operator": "Exists", "values": ["a"]})
        ),
        (
            {"deletionPolicy": "Keep"},
            [
                (
                    "spec.deletionPolicy",
                    'Unsupported value: "Keep": supported values: "Retain", "Delete", "DeleteIfEmpty"',
                )
            ],
        ),
    ],
)
def test_bad(resources: Any, refusal: Refusal, spec: Manifest, causes: list[tuple[str, str]]) -> None:
    assert refusal(resources.create, channel(**spec)) == causes


def test_long_name(resources: Any, refusal: Refusal) -> None:
    assert resources.create(channel(name="a" * 63))["metadata"]["name"] == "a" * 63
    assert refusal(resources.create, channel(name="a" * 64)) == [
        (
            "metadata.name",
            'Invalid value: "object": the name of a BusChannel must have at most 63 characters; '
            "choose a shorter metadata.name",
        )
    ]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *((name, True) for name in ("o", "0", "my.channel", "1.2", "a-b.c--d", f"{'a' * 31}.{'b' * 31}", "x" * 63)),
        *((name, False) for name in ("My", "a_b", "a/b", ".", "..", ".a", "a.", "a..b", "-a", "a-", "a.-b", "a-.b")),
        *((name, False) for name in ("ä", "a b", "a\n", "x" * 64, f"{'a' * 32}.{'b' * 31}")),
    ],
)
def test_busctl_takes_the_names_that_the_api_server_takes(resources: Any, name: str, taken: bool) -> None:
    file = io.StringIO(yaml.safe_dump(channel(name)))
    file.name = "channels.yaml"
    if taken:
        assert resources.create(channel(name))["metadata"]["name"] == name
        assert read_manifests([file], "default").channels[0].name == name
        return
    with pytest.raises(ApiException) as caught:
        resources.create(channel(name))
    assert caught.value.status == HTTPStatus.UNPROCESSABLE_ENTITY
    with pytest.raises(SpecError, match=r"metadata\.name"):
        read_manifests([file], "default")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"injection": {"podSelector": {"app": "worker"}}}, "spec.injection.podSelector.app"),
        ({"reader": {"visibilityTimeout": 30}}, "spec.reader.visibilityTimeout"),
        ({"credentials": {"secretName": "x", "rotation": "1h"}}, "spec.credentials.rotation"),
    ],
)
def test_unknown_field(resources: Any, spec: Manifest, field: str) -> None:
    with pytest.raises(ApiException) as caught:
        resources.create(channel(**spec))
    assert f'strict decoding error: unknown field \\"{field}\\"' in caught.value.body


@pytest.fixture
def stored(resources: Any) -> Iterator[Callable[..., Manifest]]:
    """Create a BusChannel for the length of the test."""
    created: list[Manifest] = []

    def create(**spec: Any) -> Manifest:
        created.append(resources.create(channel(name="stored", **spec), dry_run=False))
        return created[-1]

    yield create
    for manifest in created:
        resources.delete(manifest)


@pytest.mark.parametrize(
    ("before", "after", "causes"),
    [
        ({"channel": "a"}, {"channel": "b"}, [("spec.channel", CHANNEL_FIXED)]),
        ({"channel": "a"}, {}, [("spec.channel", CHANNEL_FIXED)]),
        ({}, {"channel": "a"}, [("spec.channel", CHANNEL_FIXED)]),
        (
            {"databaseRef": {"name": "a"}},
            {"databaseRef": {"name": "b"}},
            [("spec.databaseRef", DATABASE_FIXED)],
        ),
        (
            {"databaseRef": {"name": "a"}},
            {"databaseRef": {"name": "a", "namespace": "b"}},
            [("spec.databaseRef", DATABASE_FIXED)],
        ),
        ({"databaseRef": {"name": "a"}}, {}, [("spec.databaseRef", DATABASE_FIXED)]),
        ({}, {"databaseRef": {"name": "a"}}, [("spec.databaseRef", DATABASE_FIXED)]),
        (
            {"channel": "a"},
            {"databaseRef": {"name": "a"}},
            [("spec.channel", CHANNEL_FIXED), ("spec.databaseRef", DATABASE_FIXED)],
        ),
    ],
)
def test_fixed_after_creation(
    resources: Any,
    refusal: Refusal,
    stored: Callable[..., Manifest],
    before: Manifest,
    after: Manifest,
    causes: list[tuple[str, str]],
) -> None:
    assert refusal(resources.replace, stored(**before) | {"spec": after}) == causes


def test_the_rest_may_be_changed(resources: Any, stored: Callable[..., Manifest]) -> None:
    fixed = {"channel": "a", "databaseRef": {"name": "b", "namespace": "c"}}
    changed = fixed | {
        "durability": "Unlogged",
        "retention": {"maxAge": "1h"},
        "selfDelivery": False,
        "limits": {"maxPeers": 2, "maxMessageBytes": 2048, "maxConnections": 3},
        "peerTimeout": "1h",
        "reader": {name: value + 1 for name, value in READER.items()},
        "credentials": {"secretName": "elsewhere", "rotationInterval": "720h", "overlap": "1h"},
        "deletionPolicy": "Delete",
    }
    assert resources.replace(stored(**fixed) | {"spec": changed})["spec"] == changed
