"""The operator's webhook, made reachable for an API server that knows no network of Services."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from control_plane import KubeClient, wait_until
from operator_process import RELEASE
from operator_world import World

CONFIGURATION = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{RELEASE}"


def webhooks(kube: KubeClient) -> dict[str, Any]:
    return {webhook["name"]: webhook for webhook in kube.get(CONFIGURATION)["webhooks"]}


@contextmanager
def reachable(world: World) -> Iterator[None]:
    kube = world.kube
    chart = wait_until(
        lambda: [item for item in webhooks(kube).values() if "caBundle" in item["clientConfig"]], "the authority"
    )
    (asked,) = chart
    url = {"url": f"https://localhost:{world.operator.webhook_port}/mutate-pods"}
    client = {"caBundle": asked["clientConfig"]["caBundle"]} | url
    kube.patch(CONFIGURATION, {"webhooks": [asked | {"clientConfig": client}]})
    yield
    kube.patch(CONFIGURATION, {"webhooks": chart})
