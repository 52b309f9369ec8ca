"""What of the chart serves whoever watches the operator."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

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


FILES = Path(__file__).parents[2] / "charts" / "pgmq-bus" / "files"
RUNBOOK = Path(__file__).parents[2] / "docs" / "monitoring.md"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_monitor_finds_the_service(render: Render) -> None:
    manifests = render({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
    monitor = manifests.one("ServiceMonitor", "bus-pgmq-bus")
    service = manifests.one("Service", "bus-pgmq-bus-metrics")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "interval": "30s", "honorLabels": True}
    others = [s for s in manifests.of("Service") if s is not service]
    assert not any(
        monitor["spec"]["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items() for s in others
    )


def test_the_rules_and_the_dashboard_come_as_they_are(render: Render) -> None:
    manifests = render({"metrics": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}})
    assert manifests.one("PrometheusRule", "bus-pgmq-bus")["spec"] == yaml.safe_load(
        (FILES / "alerts.yaml").read_text()
    )
    config_map = manifests.one("ConfigMap", "bus-pgmq-bus-dashboard")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["pgmq-bus.json"]) == json.loads((FILES / "dashboard.json").read_text())


def test_the_network_policy_closes_the_metrics_only(render: Render) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    manifests = render({"metrics": {"networkPolicy": {"enabled": True, "from": [peer]}}})
    spec = manifests.one("NetworkPolicy", "bus-pgmq-bus-metrics")["spec"]
    assert spec["ingress"] == [
        {"ports": [{"port": "webhook"}, {"port": "health"}]},
        {"ports": [{"port": "metrics"}], "from": [peer]},
    ]
    pod = manifests.one("Deployment", "bus-pgmq-bus")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= pod.items()
    closed = render({"metrics": {"networkPolicy": {"enabled": True}}})
    assert len(closed.one("NetworkPolicy", "bus-pgmq-bus-metrics")["spec"]["ingress"]) == 1


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", FILES / "alerts.yaml")


def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    """promtool plays series to the rules: what is there, and for how long."""
    cases = yaml.safe_load((Path(__file__).parent / "alerts_test.yaml").read_text())
    bare = yaml.safe_load((FILES / "alerts.yaml").read_text())
    for group in bare["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(bare))
    path = tmp_path / "alerts_test.yaml"
    path.write_text(yaml.safe_dump(cases | {"rule_files": ["alerts.yaml"]}))
    promtool("test", "rules", path)
    tried = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"]}
    assert tried == {rule["alert"] for rule in rules()}


def test_each_alert_has_a_runbook() -> None:
    headings = re.findall(r"^### (.*)$", RUNBOOK.read_text(), flags=re.M)
    assert sorted(headings) == sorted(rule["alert"] for rule in rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/monitoring.md#{rule['alert'].lower()}"
