"""What of the chart serves whoever watches the operator."""

from collections.abc import Callable
from typing import Any

Render = Callable[..., Any]


def container(manifests: Any) -> dict[str, Any]:
    (found,) = manifests.one("Deployment", "bus-pgmq-bus")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_service_leads_to_the_port(render: Render) -> None:
    manifests = render({"metrics": {"port": 9090}})
    service = manifests.one("Service", "bus-pgmq-bus-metrics")["spec"]
    assert service["ports"] == [{"name": "metrics", "port": 9090, "targetPort": "metrics"}]
    assert {"name": "metrics", "containerPort": 9090} in container(manifests)["ports"]
    assert {"name": "BUS_METRICS_PORT", "value": "9090"} in container(manifests)["env"]


def test_without_metrics_nothing_of_it_is_there(render: Render) -> None:
    manifests = render({"metrics": {"enabled": False}})
    assert [service["metadata"]["name"] for service in manifests.of("Service")] == ["bus-pgmq-bus-webhook"]
    assert {port["name"] for port in container(manifests)["ports"]} == {"webhook", "health"}
    assert {"name": "BUS_METRICS_PORT", "value": "0"} in container(manifests)["env"]
