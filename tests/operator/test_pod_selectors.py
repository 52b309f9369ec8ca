"""Pods that get bindings without asking: the API server calls the operator's webhook for them, where it should."""

from typing import Any

from control_plane import wait_until
from operator_webhook import CONFIGURATION, webhooks
from operator_world import Namespace, Ref, World

WEB = {"injection": {"podSelector": {"matchLabels": {"app": "web"}}}}
WEB_OR_API = {
    "injection": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}}
}


def pod(app: str, label: str | None = None, channels: str | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"generateName": "pod-", "labels": {"app": app}}
    if label is not None:
        metadata["labels"]["pgmqbus.dev/inject"] = label
    if channels is not None:
        metadata["annotations"] = {"pgmqbus.dev/channels": channels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "none"}]}}


class Pods:
    """The pods of a namespace."""

    def __init__(self, world: World, namespace: Namespace) -> None:
        self._kube = world.kube
        self._path = f"/api/v1/namespaces/{namespace.name}/pods"
        account = f"/api/v1/namespaces/{namespace.name}/serviceaccounts"
        if self._kube.get(f"{account}/default") is None:
            self._kube.create(account, {"metadata": {"name": "default"}})

    def bound(self, pod: dict[str, Any]) -> dict[str, bool]:
        """The Secrets that a pod would mount if it were created, and whether it waits for them."""
        created = self._kube.create(f"{self._path}?dryRun=All", pod)
        secrets = [volume["secret"] for volume in created["spec"].get("volumes", ()) if "secret" in volume]
        return {secret["secretName"]: not secret.get("optional", False) for secret in secrets}

    def create(self, pod: dict[str, Any]) -> str:
        return str(self._kube.create(self._path, pod)["metadata"]["name"])

    def delete(self, name: str) -> None:
        self._kube.request("DELETE", f"{self._path}/{name}", {"gracePeriodSeconds": 0})


def missing(channel: Ref) -> list[str]:
    return [message for _, reason, message in channel.events() if reason == "BindingMissing"]


async def test_selected_pods_get_their_bindings_and_no_others(webhook: World, namespace: Namespace) -> None:
    elsewhere = webhook.namespace()
    pods, others = Pods(webhook, namespace), Pods(webhook, elsewhere)
    namespace.database((await webhook.postgres()).dsn)
    assert webhooks(webhook.kube).keys() == {"inject.pgmqbus.dev"}
    orders = namespace.channel("orders", **WEB)
    audit = namespace.channel("audit", **WEB_OR_API)
    wait_until(lambda: len(pods.bound(pod("web"))) == 2, "a pod is bound to both channels")

    optional, required = False, True
    assert pods.bound(pod("web")) == {"audit-bus": optional, "orders-bus": optional}
    assert pods.bound(pod("api")) == {"audit-bus": optional}
    assert pods.bound(pod("db")) == {}
    assert pods.bound(pod("web", label="false")) == {}, "it has opted out"
    assert pods.bound(pod("web", channels="orders")) == {"orders-bus": required}
    assert pods.bound(pod("web", label="true", channels="orders")) == {"orders-bus": required}
    assert pods.bound(pod("api", label="true")) == {"audit-bus": required}
    assert others.bound(pod("web")) == {}

    asked, selected = webhooks(webhook.kube).values()
    assert selected["name"] == "select.pgmqbus.dev"
    own = ("name", "namespaceSelector", "objectSelector")
    assert {key: value for key, value in selected.items() if key not in own} == {
        key: value for key, value in asked.items() if key not in own
    }
    assert selected["namespaceSelector"]["matchExpressions"] == [
        *asked["namespaceSelector"]["matchExpressions"],
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace.name]},
    ]

    # Other pods from now on, and in the end none: nothing of it is left.
    audit.patch({"injection": {"podSelector": {"matchExpressions": None, "matchLabels": {"app": "db"}}}})
    wait_until(lambda: pods.bound(pod("db")) == {"audit-bus": optional}, "other pods are selected")
    assert pods.bound(pod("web")) == {"orders-bus": optional}
    audit.patch({"injection": None})
    orders.delete()
    wait_until(lambda: webhooks(webhook.kube).keys() == {"inject.pgmqbus.dev"}, "no pod is selected any more")


async def test_what_somebody_else_changes_is_put_right_by_the_next_leader(webhook: World, namespace: Namespace) -> None:
    namespace.channel("orders", database=None, **WEB)
    wait_until(lambda: "select.pgmqbus.dev" in webhooks(webhook.kube), "the second webhook")
    chart = webhooks(webhook.kube)["inject.pgmqbus.dev"] | {"timeoutSeconds": 7}
    webhook.kube.patch(CONFIGURATION, {"webhooks": [chart]})
    webhook.operator.terminate()
    webhook.operator.start()

    def timeouts() -> bool:
        return [item["timeoutSeconds"] for item in webhooks(webhook.kube).values()] == [7, 7]

    wait_until(timeouts, "the second webhook is there again, as the chart's is now")


async def test_pods_that_run_without_are_named_once(webhook: World, namespace: Namespace) -> None:
    """Those from before the selector, and one that is created while the operator is away: it starts all the same."""
    pods = Pods(webhook, namespace)
    namespace.database((await webhook.postgres()).dsn)
    before = [pods.create(pod("web")) for _ in range(4)]
    pods.create(pod("web", label="false"))
    pods.create(pod("db"))
    channel = namespace.channel("orders", **WEB)
    first = wait_until(lambda: missing(channel), "the Event about the pods from before")
    assert "and 1 more" in first[0]
    assert any(name in first[0] for name in before)
    audit = namespace.channel("audit", database=None, **WEB_OR_API)
    other = wait_until(lambda: missing(audit), "the Event about the other binding that they lack")
    assert "and 1 more" in other[0]
    assert len(missing(channel)) == 1
    wait_until(lambda: pods.bound(pod("web")), "pods are bound")

    webhook.operator.kill()
    without = pods.create(pod("web"))
    webhook.operator.start()
    # All five: this operator cannot know which ones were named.
    again = wait_until(lambda: missing(channel)[1:], "the Event after the operator was away")
    assert "and 2 more" in again[0]
    for name in (*before, without):
        pods.delete(name)
    bound = pods.create(pod("web"))
    late = pods.create(pod("web", label="false"))
    webhook.operator.kill()
    last = pods.create(pod("web"))
    webhook.operator.start()
    named = wait_until(lambda: missing(channel)[2:], "the Event about the last pod")
    assert last in named[0]
    assert "more" not in named[0]
    assert bound not in named[0]
    assert late not in named[0]
    assert len(missing(channel)) == 3
