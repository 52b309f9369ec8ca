"""The webhook for pods that did not ask, made from the chart's."""

from typing import Any

import pytest

from bus_operator.webhook_scope import with_selected

Json = dict[str, Any]

NOT_LABELLED = {"matchExpressions": [{"key": "pgmqbus.dev/inject", "operator": "DoesNotExist"}]}


def asked(**changed: Any) -> Json:
    return {
        "name": "inject.pgmqbus.dev",
        "clientConfig": {"service": {"name": "bus-webhook"}, "caBundle": "Zm9v"},
        "failurePolicy": "Ignore",
        "objectSelector": {"matchLabels": {"pgmqbus.dev/inject": "true"}},
        "namespaceSelector": {"matchExpressions": [named("NotIn", "kube-system")]},
    } | changed


def named(operator: str, *namespaces: str) -> Json:
    return {"key": "kubernetes.io/metadata.name", "operator": operator, "values": list(namespaces)}


def selected(*namespaces: str, **changed: Any) -> Json:
    within = {"matchExpressions": [named("NotIn", "kube-system"), named("In", *namespaces)]}
    return asked(name="select.pgmqbus.dev", objectSelector=NOT_LABELLED, namespaceSelector=within) | changed


def test_it_is_there_while_something_selects_pods() -> None:
    assert with_selected([asked()], frozenset()) == [asked()]
    assert with_selected([asked()], {"shop", "depot"}) == [asked(), selected("depot", "shop")]
    assert with_selected([asked(), selected("depot", "shop")], {"shop"}) == [asked(), selected("shop")]
    assert with_selected([asked(), selected("shop")], ()) == [asked()]


def test_it_follows_the_charts_webhook() -> None:
    """A new authority, an upgrade: everything but whom it is for is the chart's."""
    changed = {"clientConfig": {"service": {"name": "other"}, "caBundle": "YmFy"}, "timeoutSeconds": 3}
    wanted = with_selected([asked(**changed), selected("shop")], {"shop"})
    assert wanted == [asked(**changed), selected("shop", **changed)]


@pytest.mark.parametrize(
    ("chart", "expected"),
    [
        ({}, [named("In", "shop")]),
        (None, [named("In", "shop")]),
        ({"matchExpressions": [named("In", "shop", "depot")]}, [named("In", "shop", "depot"), named("In", "shop")]),
    ],
)
def test_what_the_chart_says_of_namespaces_holds(chart: Json | None, expected: list[Json]) -> None:
    _, added = with_selected([asked(namespaceSelector=chart)], {"shop"})
    assert added["namespaceSelector"] == {"matchExpressions": expected}


def test_other_labels_of_namespaces_that_the_chart_selects_by_hold_too() -> None:
    _, added = with_selected([asked(namespaceSelector={"matchLabels": {"team": "bus"}})], {"shop"})
    assert added["namespaceSelector"] == {"matchLabels": {"team": "bus"}, "matchExpressions": [named("In", "shop")]}


def test_without_the_charts_webhook_there_is_none_to_copy() -> None:
    other = asked(name="another.example.org")
    assert with_selected([other, selected("shop")], {"shop"}) == [other]
