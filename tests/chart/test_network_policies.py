"""The NetworkPolicy that docs/network-policy.md gives for the operator's namespace fits what the chart makes there."""

from collections.abc import Callable
from typing import Any

from snippets import snippets

PAGE = "docs/network-policy.md"


def _policy() -> dict[str, Any]:
    documents = [document for one in snippets("yaml") if one.page == PAGE for document in one.documents()]
    (policy,) = [document for document in documents if document["metadata"].get("namespace") == "pgmq-bus"]
    return policy


def _ports(rules: list[dict[str, Any]]) -> set[int]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_the_policy_selects_every_pod_of_the_chart_and_lets_its_ports_be_reached(render: Callable[..., Any]) -> None:
    manifests = render(release="pgmq-bus", namespace="pgmq-bus")
    policy = _policy()["spec"]
    wanted = policy["podSelector"]["matchLabels"].items()
    workloads = [*manifests.of("Deployment"), *manifests.of("Job")]
    pods = [*(workload["spec"]["template"] for workload in workloads), *manifests.of("Pod")]
    assert len(pods) == 4
    assert all(wanted <= pod["metadata"]["labels"].items() for pod in pods)

    (operator,) = manifests.of("Deployment")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert _ports(policy["ingress"]) == set(ports.values())
    assert {ports["webhook"], ports["metrics"]} <= _ports(policy["egress"])
