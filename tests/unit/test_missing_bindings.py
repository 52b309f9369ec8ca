"""Which pods lack a binding that they asked for."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus_operator.pods import MissingBinding, Pod, missing_binding

CREATED = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
LATER = CREATED + timedelta(minutes=2)


def pod(channels: str | None = "orders,audit", injected: str | None = None, **metadata: Any) -> Pod:
    annotations = {"pgmqbus.dev/channels": channels, "pgmqbus.dev/injected": injected}
    named = {"namespace": "shop", "name": "worker-1", "uid": "uid-1", "creationTimestamp": "2026-05-04T03:02:01Z"}
    labels = {"pgmqbus.dev/inject": "true"}
    asked = {key: value for key, value in annotations.items() if value is not None}
    return Pod.from_body({"metadata": named | {"labels": labels, "annotations": asked} | metadata}, selecting)


def selecting(namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    """BusChannel audit of the namespace selects some pods."""
    return ("audit",) if (namespace, labels.get("app")) == ("shop", "web") else ()


def look(found: Pod, now: datetime = LATER) -> MissingBinding | None:
    return missing_binding(found, {("shop", "orders"), ("shop", "audit")}.__contains__, now)


def test_a_pod_with_everything() -> None:
    assert look(pod(injected="orders,audit")) is None


def test_a_pod_that_the_webhook_never_saw() -> None:
    missing = look(pod())
    assert missing is not None
    assert missing.channels == ("orders", "audit")
    assert missing.message == (
        "it was created without the binding of BusChannel 'orders', 'audit', as happens while the webhook cannot be"
        " reached: recreate the pod (kubectl delete pod, or kubectl rollout restart of what owns it)"
    )


def test_a_pod_with_one_of_two() -> None:
    missing = look(pod(injected="audit"))
    assert missing is not None
    assert missing.channels == ("orders",)


@pytest.mark.parametrize("injected", [None, "ordres"])
def test_a_channel_that_does_not_exist(injected: str | None) -> None:
    """Its Secret may be mounted already: the pod waits for it, and that is in order for a while."""
    asking = pod("ordres", injected)
    assert look(asking, CREATED + timedelta(seconds=59)) is None
    missing = look(asking)
    assert missing is not None
    assert missing.channels == ()
    assert missing.message == (
        "there is no BusChannel 'ordres' in namespace shop: create it, or correct the annotation pgmqbus.dev/channels"
        " and recreate the pod"
    )


@pytest.mark.parametrize(("channels", "words"), [(None, "no BusChannel is named"), ("Orders!", "skipped 'Orders!'")])
def test_a_pod_that_asks_wrongly(channels: str | None, words: str) -> None:
    missing = look(pod(channels))
    assert missing is not None
    assert words in missing.message


def test_a_pod_that_asks_and_leaves_it_to_selectors() -> None:
    labels = {"pgmqbus.dev/inject": "true", "app": "web"}
    assert look(pod(None, "audit", labels=labels)) is None
    missing = look(pod(None, labels=labels))
    assert missing is not None
    assert missing.channels == ("audit",)


@pytest.mark.parametrize(
    ("label", "injected", "without"),
    [(None, None, ("audit",)), (None, "audit", ()), (None, "orders,audit", ()), ("false", None, ())],
)
def test_what_a_selected_pod_is_without(label: str | None, injected: str | None, without: tuple[str, ...]) -> None:
    labels = {"app": "web"} | ({} if label is None else {"pgmqbus.dev/inject": label})
    assert pod(None, injected, labels=labels).without == without


@pytest.mark.parametrize(
    ("asks", "has", "lacks"), [("true", None, True), ("true", "0.1.0", False), ("false", None, False)]
)
def test_a_pod_that_was_created_without_the_runtime(asks: str, has: str | None, lacks: bool) -> None:
    annotations = {"pgmqbus.dev/channels": "orders", "pgmqbus.dev/injected": "orders"}
    annotations |= {"pgmqbus.dev/inject-runtime": asks} | ({"pgmqbus.dev/injected-runtime": has} if has else {})
    missing = look(pod(annotations=annotations))
    assert (missing is not None) == lacks
    if missing is not None:
        assert missing.message.startswith("it was created without bus_runtime, which its annotation")
        assert missing.channels == ()


def test_a_pod_that_is_going() -> None:
    assert look(pod(deletionTimestamp="2026-05-04T03:03:01Z")) is None
