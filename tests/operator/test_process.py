"""The process around it all: what it needs to start, its probes, its log."""

import json
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from control_plane import KubeClient, wait_until
from operator_process import RELEASE, Operator, account_kubeconfig, free_port
from operator_world import Namespace, World
from scraping import wait_for

PORTS = ("BUS_HEALTH_PORT", "BUS_WEBHOOK_PORT", "BUS_METRICS_PORT")


def test_probes(operator: Operator) -> None:
    operator.require_running()
    assert operator.probe("/livez") == 200
    assert operator.probe("/readyz") == 200
    assert operator.probe("/metrics-of-old") == 404


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        ({"BUS_RESYNC_SECONDS": "often"}, 1, "bus-operator: BUS_RESYNC_SECONDS: Input should be a valid number"),
        ({"KUBECONFIG": "/no/such/file"}, 1,
         "bus-operator: this is no pod with a service account, and the kubeconfig is of no use: "),
    ],
)  # fmt: skip
def test_what_it_cannot_start_with(operator: Operator, settings: dict[str, str], status: int, message: str) -> None:
    got, output = operator.run_to_end(**settings)
    assert got == status
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize("variable", PORTS)
def test_a_port_that_is_taken(operator: Operator, variable: str) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {name: str(free_port()) for name in PORTS} | {variable: str(port)}
        status, output = operator.run_to_end(**ports)
    assert status == 1
    (line,) = (line for line in output.splitlines() if line.startswith("bus-operator: "))
    assert line.startswith(f"bus-operator: cannot listen on port {port}, choose another in {variable}: ")
    assert "Traceback" not in output


def test_it_waits_for_an_api_server_that_is_not_there(operator: Operator, tmp_path: Path, apiserver: Path) -> None:
    """And ends when it is asked to, before it has begun."""
    text = apiserver.read_text()
    (server,) = (line.split()[1] for line in text.splitlines() if line.strip().startswith("server:"))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(text.replace(server, f"https://127.0.0.1:{free_port()}"))
    lonely = Operator(kubeconfig, tmp_path / "log")
    lonely.start(wait_ready=False)
    wait_until(lambda: lonely.probe("/livez") == 200, "it lives")
    assert lonely.probe("/readyz") == 503
    wait_until(lambda: lonely.log.count("cannot list what is there") >= 2, "it tries again")
    status, seconds = lonely.terminate()
    assert status == 0
    assert seconds < 10
    assert "Traceback" not in lonely.log


def test_it_says_in_a_line_which_right_it_lacks(kube: KubeClient, operator: Operator, tmp_path: Path) -> None:
    """With a service account of the chart that is not the operator's, as where somebody deleted Roles. It goes on."""
    assert operator
    poor = Operator(account_kubeconfig(kube, tmp_path, f"{RELEASE}-test"), tmp_path / "log", BUS_LOG_FORMAT="text")
    poor.start(wait_ready=False)
    for said in ("cannot list what is there: ", "webhook certificate: "):
        wait_until(lambda said=said: said in poor.log, f"it says {said!r}", 60)
    status, _ = poor.terminate()
    assert status == 0
    told = [line for line in poor.log.splitlines() if "webhook certificate: " in line]
    assert all(f'secrets "{RELEASE}-webhook-tls" is forbidden: User ' in line for line in told)
    assert "HTTP response body" not in poor.log


def test_definitions_that_were_left_behind(world: World) -> None:
    """As after `helm upgrade --no-hooks`, with the rights of the chart: it works all the same, and says so."""
    operator, name = world.operator, "buschannels.pgmqbus.dev"
    metric = "pgmq_bus_definition_outdated"
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    world.kube.patch(path, {"metadata": {"annotations": {"pgmqbus.dev/version": "0.0.9"}}})
    try:
        operator.terminate()
        operator.start()
        wait_for(operator, 1, metric, definition=name)
        wait_for(operator, 0, metric, definition="busdatabases.pgmqbus.dev")
    finally:
        world.kube.install_definitions()
    (line,) = (json.loads(line) for line in operator.log.splitlines() if "older than the" in line)
    assert line["level"] == "warning"
    assert f"definition {name} is of version 0.0.9, older than the {version('pgmq-bus')}" in line["msg"]
    assert "helm show crds CHART | kubectl apply --server-side --force-conflicts -f -" in line["msg"]


async def test_no_secret_reaches_the_log(world: World, namespace: Namespace, operator: Operator) -> None:
    """At the most talkative level, with everything that carries a password going right and wrong."""
    created = await world.postgres(installed=False)
    namespace.database(created.dsn)
    channel = namespace.channel()
    channel.wait_ready()
    marker = "hunter2-in-the-clear"
    bad = {
        "slash": f"postgresql://postgres:{marker}/@db:5432/app",
        "scheme": f"{marker}://db",
        "wrong": world.server.uri(created.name, password=marker),
        "port": f"postgresql://postgres:x@127.0.0.1:{marker}/app",
        "nowhere": f"postgresql://postgres:{marker}@127.0.0.1:{free_port()}/app",
    }
    for name, uri in bad.items():
        namespace.database(uri, name)
    namespace.put_secret("orders-bus", {"password": marker})
    wait_until(lambda: channel.status["credentialGeneration"] == 2, "the binding was restored")
    reasons = ("SecretInvalid", "AuthenticationFailed", "ConnectionFailed")
    for name in bad:
        wait_until(lambda name=name: world.database_reason(namespace, name) in reasons, f"{name} is refused")
    log = operator.log
    secret = namespace.secret("orders-bus") or {}
    assert f"{namespace.name}/orders" in log
    assert f"{namespace.name}/wrong" in log
    for value in (marker, world.server.password, secret["password"], created.dsn, secret["uri"]):
        assert value not in log
    assert "Traceback" not in log
    for line in log.splitlines():
        assert json.loads(line).keys() >= {"ts", "level", "logger", "msg"}
