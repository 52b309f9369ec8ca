"""The main job, end to end: what `make demo` promises."""

import pytest
from demo_cluster import Cluster, Demo


def rows(output: str) -> list[list[str]]:
    """The cells of the demo's table, without its header."""
    lines = output.strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("subscriber "))
    return [line.split() for line in lines[start + 1 : lines.index("", start)]]


@pytest.mark.timeout(1800)
def test_every_replica_receives_every_message_once(demo: Demo) -> None:
    assert demo.status == 0, f"{demo.output}\n{demo.errors}"
    table = rows(demo.output)
    assert len(table) == 3
    for _, published, received, lost, duplicated, _, _, *latencies in table:
        assert (int(published), int(received), int(lost), int(duplicated)) == (2000, 2000, 0, 0)
        assert all(float(latency) > 0 for latency in latencies)


def test_pods_ring_each_others_doorbells(demo: Demo) -> None:
    for _, _, received, _, _, wake, announced, *_ in rows(demo.output):
        assert wake == "doorbell"
        # With the messages in the datagrams; the rest came in time for a read, or was lost on the way.
        assert int(announced) > int(received) / 2


def test_the_demo_shows_each_step_and_what_to_try_next(demo: Demo) -> None:
    for step in ("installing the chart", "BusDatabase pgmq-bus/main", "BusChannel default/orders", "3 subscribers"):
        assert f"==> {step}" in demo.errors or f"==> {step}" in demo.output
    assert "What to try next" in demo.output


def test_nothing_about_the_database_is_in_the_workers_manifests(cluster: Cluster) -> None:
    for name in ("order-publisher", "order-subscriber"):
        template = cluster.get("deployment", name)["spec"]["template"]
        assert template["metadata"]["annotations"] == {"pgmqbus.dev/channels": "orders"}
        (container,) = template["spec"]["containers"]
        assert "env" not in container
        assert "volumeMounts" not in container


def test_the_operator_runs_with_least_privilege(cluster: Cluster) -> None:
    may = ("auth", "can-i", "--as=system:serviceaccount:pgmq-bus:pgmq-bus")
    assert cluster.kubectl(*may, "list", "secrets", "--all-namespaces", check=False).startswith("no")
    assert cluster.kubectl(*may, "get", "secrets", "-n", "kube-system", check=False).startswith("no")
    assert cluster.kubectl(*may, "get", "secrets", "-n", "default", check=False).startswith("yes")
    pod = cluster.get("pods", "-n", "pgmq-bus", "-l", "app.kubernetes.io/component=operator")["items"][0]
    security = pod["spec"]["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_no_password_is_in_the_operators_log_or_in_an_event(cluster: Cluster) -> None:
    binding = cluster.get("secret", "orders-bus")["data"]
    admin = cluster.get("secret", "pgmq-bus-dev-postgres", "-n", "pgmq-bus")["data"]
    import base64

    passwords = [base64.b64decode(value).decode() for value in (binding["password"], admin["uri"])]
    passwords[1] = passwords[1].split(":")[2].split("@")[0]
    said = cluster.kubectl("logs", "-n", "pgmq-bus", "-l", "app.kubernetes.io/component=operator", "--tail=-1")
    said += cluster.kubectl("get", "events,busdatabases,buschannels", "-A", "-o", "yaml")
    said += cluster.kubectl("logs", "-n", "pgmq-bus", "statefulset/pgmq-bus-dev-postgres")
    for password in passwords:
        assert len(password) > 20
        assert password not in said
