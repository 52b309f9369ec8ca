"""Specs as users write them."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from bus_operator.model import (
    AllowedNamespaces,
    ChannelSpec,
    DatabaseSpec,
    LabelSelector,
    format_age,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1m1s", 3661), ("0s", 0), ("720h", 2592000)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "1.5h", "1s1m", "1h 30m", " 1s", "1s\n", "1d", "10M", "\u0663s", "9" * 30 + "h"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"), (9.9, "0s"), (10, "10s"), (59, "50s"), (60, "1m"), (599, "9m"), (600, "10m"), (3599, "50m"),
        (3600, "1h"), (86399, "23h"), (86400 * 30, "720h"),
    ],
)  # fmt: skip
def test_ages_in_steps(seconds, text):
    assert format_age(timedelta(seconds=seconds)) == text


def test_a_channel_has_defaults():
    spec = ChannelSpec.model_validate({})
    assert spec.model_dump(by_alias=True, exclude={"database_ref", "channel"}) == {
        "durability": "Sync",
        "selfDelivery": True,
        "retention": {"maxAge": None, "maxMessages": None, "maxBytes": None},
        "limits": {"maxPeers": 1000, "maxMessageBytes": 1048576, "maxConnections": 100},
        "peerTimeout": "10m",
        "reader": {
            "visibilityTimeoutSeconds": 30, "batchSize": 10, "pollIntervalMilliseconds": 100, "maxPollSeconds": 5,
        },
        "credentials": {"secretName": None, "rotationInterval": None, "overlap": "24h"},
        "injection": None,
        "deletionPolicy": "Retain",
    }  # fmt: skip
    assert spec.wire_name("team", "orders") == "team.orders"
    assert spec.secret_name("orders") == "orders-bus"


def test_a_channel_may_name_its_name_and_its_secret():
    spec = ChannelSpec.model_validate({"channel": "a/b:c.d-e_f", "credentials": {"secretName": "mine"}})
    assert spec.wire_name("team", "orders") == "a/b:c.d-e_f"
    assert spec.secret_name("orders") == "mine"


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": ""}, {"channel": "-a"}, {"channel": "a b"}, {"channel": "ä"}, {"channel": "a" * 201},
        {"channel": "a\n"}, {"channel": "a;drop"}, {"durability": "sync"}, {"durability": "Fast"},
        {"retention": {"maxAge": "0s"}}, {"retention": {"maxAge": "8761h"}}, {"retention": {"maxAge": ""}},
        {"retention": {"maxMessages": 0}}, {"retention": {"maxMessages": 2**63}}, {"retention": {"maxBytes": 65535}},
        {"retention": {"maxBytes": "64Ki"}},
        {"limits": {"maxPeers": 0}}, {"limits": {"maxPeers": 10001}}, {"limits": {"maxMessageBytes": 1023}},
        {"limits": {"maxMessageBytes": 16777217}}, {"limits": {"maxConnections": 0}},
        {"peerTimeout": "9s"}, {"peerTimeout": "721h"}, {"peerTimeout": "x"}, {"peerTimeout": "9" * 30 + "h"},
        *({"credentials": {"rotationInterval": value}} for value in ("59m", "8761h", "daily", "")),
        *({"credentials": {"overlap": value}} for value in ("59s", "721h", "none", "")),
        {"reader": {"batchSize": 0}}, {"reader": {"batchSize": 1001}}, {"reader": {"visibilityTimeoutSeconds": 3601}},
        {"reader": {"pollIntervalMilliseconds": 9}}, {"reader": {"maxPollSeconds": 61}},
        {"injection": {}}, {"injection": {"podSelector": {}}}, {"injection": {"podSelector": {"matchLabels": {}}}},
        {"injection": {"podSelector": {"matchLabels": {"a": "b"}, "names": ["c"]}}},
        {"deletionPolicy": "Keep"}, {"unknown": 1}, {"limits": {"maxpeers": 1}}, {"databaseRef": {}}, {"unknown": None},
        {"selfDelivery": "no"}, {"selfDelivery": 0}, {"reader": {"batchSize": "7"}}, {"reader": {"batchSize": True}},
        {"databaseRef": {"name": "A"}}, {"databaseRef": {"name": "a" * 64}},
        {"databaseRef": {"name": "a", "namespace": "a.b"}}, {"credentials": {"secretName": "a\n"}},
    ],
)  # fmt: skip
def test_a_bad_channel_is_refused(fields):
    with pytest.raises(ValidationError) as caught:
        ChannelSpec.model_validate(fields)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": "a"}, {"channel": "9" * 200}, {"peerTimeout": "10s"}, {"peerTimeout": "720h"},
        {"credentials": {"rotationInterval": "1h", "overlap": "1m"}},
        {"credentials": {"rotationInterval": "8760h", "overlap": "720h"}},
        {"retention": {"maxAge": "1s", "maxMessages": 1, "maxBytes": 65536}},
        {"retention": {"maxAge": "8760h", "maxMessages": 2**63 - 1, "maxBytes": 2**63 - 1}},
    ],
)  # fmt: skip
def test_the_bounds_themselves_are_allowed(fields):
    ChannelSpec.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"reader": None}, {"reader": {"batchSize": None}}, {"selfDelivery": None}, {"channel": None},
        {"retention": None, "peerTimeout": None, "limits": {"maxPeers": None}},
    ],
)  # fmt: skip
def test_what_is_null_has_its_default(fields):
    """As in the API server, which takes `reader:` with nothing behind it."""
    assert ChannelSpec.model_validate(fields) == ChannelSpec()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"connectionSecretRef": None},
        {"connectionSecretRef": {"name": ""}},
        {"connectionSecretRef": {"name": "s", "key": "a/b"}},
        {"connectionSecretRef": {"name": "s"}, "caSecretRef": {}},
        {"connectionSecretRef": {"name": "s"}, "caSecretRef": {"name": "My_CA"}},
        {"connectionSecretRef": {"name": "s"}, "caSecretRef": {"name": "ca", "key": "a/b"}},
        {"connectionSecretRef": {"name": "s"}, "clientEndpoint": {}},
        {"connectionSecretRef": {"name": "s"}, "clientEndpoint": {"host": "db:5432"}},
        {"connectionSecretRef": {"name": "s"}, "default": "yes"},
        *(
            {"connectionSecretRef": {"name": "s"}, "allowedNamespaces": {"from": "Selector", "selector": selector}}
            for selector in (
                {"matchLabels": {"team": None}},
                {"matchLabels": {"team": "t" * 64}},
                {"matchExpressions": [{"key": "", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "team", "operator": "In"}]},
                {"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]},
            )
        ),
        {"connectionSecretRef": {}},
        {"connectionSecretRef": {"name": "s"}, "clientEndpoint": {"port": 0}},
        {"connectionSecretRef": {"name": "s"}, "clientEndpoint": {"sslMode": "on"}},
        {"connectionSecretRef": {"name": "s"}, "allowedNamespaces": {"from": "Selector"}},
        {"connectionSecretRef": {"name": "s"}, "allowedNamespaces": {"from": "All", "selector": {}}},
        {"connectionSecretRef": {"name": "s"}, "allowedNamespaces": {"from": "Some"}},
        {"connectionSecretRef": {"name": "s"}, "shards": 0},
        {"connectionSecretRef": {"name": "s"}, "shards": 65},
    ],
)
def test_a_bad_database_is_refused(fields):
    with pytest.raises(ValidationError):
        DatabaseSpec.model_validate(fields)


@pytest.mark.parametrize(
    ("allowed", "namespace", "labels", "expected"),
    [
        ({}, "own", {}, True),
        ({}, "other", {}, False),
        ({"from": "All"}, "other", {}, True),
        ({"from": "Selector", "selector": {}}, "other", {}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}, "other", {"a": "b"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}, "other", {"a": "c"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}, "own", {}, True),
    ],
)
def test_whose_channels_may_use_a_database(allowed, namespace, labels, expected):
    assert AllowedNamespaces.model_validate(allowed).allows("own", namespace, labels) is expected


@pytest.mark.parametrize(
    ("expression", "labels", "expected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, {"a": "2"}, True),
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {"a": "1"}, False),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "Exists"}, {}, False),
        ({"key": "a", "operator": "DoesNotExist"}, {}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
    ],
)
def test_label_expressions_mean_what_kubernetes_says(expression, labels, expected):
    selector = LabelSelector.model_validate({"matchExpressions": [expression]})
    assert selector.matches(labels) is expected
    assert (
        LabelSelector.model_validate({"matchExpressions": [expression], "matchLabels": {"x": "y"}}).matches(labels)
        is False
    )
