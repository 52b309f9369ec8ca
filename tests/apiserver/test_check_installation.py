"""`busctl check-installation` with exactly the rights of helm test's pod, a webhook and metrics that really answer."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import busctl_program
import pytest
import yaml
from aiohttp import web
from control_plane import GROUP, ApiError, KubeClient, Manifest

from bus_operator.certificates import CertificateBundle, plan_certificates
from bus_operator.serving_certificates import load_key_pair, new_server_context
from bus_operator.webhook import WebhookServer, make_app

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts" / "pgmq-bus"
HELM = Path(sys.executable).parent / "helm"
NAMESPACE, NAME = "check-system", "check-pgmq-bus"
ACCOUNT = f"{NAME}-test"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/buschannels.{GROUP}"
COLLECTIONS = {
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
}


@pytest.fixture(scope="module")
def kubeconfig(kube: KubeClient, definitions: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the rights of the hook, which is made as the chart says."""
    assert definitions
    kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    command = [HELM, "template", "check", CHART, "-n", NAMESPACE, "-s", "templates/tests/installation.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for manifest in yaml.safe_load_all(rendered):
        if manifest["kind"] in COLLECTIONS:
            kube.apply(f"{COLLECTIONS[manifest['kind']]}/{manifest['metadata']['name']}", manifest)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = kube.create(f"{COLLECTIONS['ServiceAccount']}/{ACCOUNT}/token", request)["status"]["token"]
    file = tmp_path_factory.mktemp("check") / "kubeconfig"
    file.write_text(yaml.safe_dump(kube.kubeconfig | {"users": [{"name": "admin", "user": {"token": token}}]}))
    return file


@pytest.fixture(scope="module")
def bundle() -> CertificateBundle:
    return plan_certificates(None, ["localhost"], datetime.now(UTC))


@pytest.fixture
async def webhook(bundle: CertificateBundle) -> AsyncIterator[WebhookServer]:
    """The operator's own, on this machine."""

    async def no_channel(_namespace: str, _name: str) -> None:
        return None

    async def select_none(_namespace: str, _labels: Any) -> list[str]:
        return []

    context = new_server_context()
    load_key_pair(context, bundle.certificate, bundle.key)
    server = WebhookServer(make_app(no_channel, select_none))
    await server.start("127.0.0.1", 0, context)
    yield server
    await server.stop()


@pytest.fixture
async def metrics() -> AsyncIterator[str]:
    """Their address, with one line that ours has and none else."""

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text='pgmq_bus_build_info{version="0.1.0",schema="1"} 1.0\n')

    app = web.Application()
    app.router.add_get("/metrics", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    await runner.cleanup()


class World:
    """What an installation would have made in the API server, and the command."""

    def __init__(self, kube: KubeClient, kubeconfig: Path, bundle: CertificateBundle, port: int, metrics: str) -> None:
        self.kube = kube
        self._kubeconfig = kubeconfig
        self._bundle = bundle
        self._port = port
        self._metrics = metrics
        self._renewing: asyncio.Task[None] | None = None

    def configure(self, authority: bytes | None) -> None:
        config: Manifest = {"url": f"https://localhost:{self._port}/mutate-pods"}
        if authority is not None:
            config["caBundle"] = base64.b64encode(authority).decode()
        webhook = {
            "name": "inject.pgmqbus.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
            "clientConfig": config,
            # No pod of other tests is its business.
            "objectSelector": {"matchLabels": {"check-installation": "nothing"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        }
        with suppress(ApiError):
            self.kube.delete(f"{WEBHOOKS}/{NAME}")
        self.kube.create(WEBHOOKS, {"metadata": {"name": NAME}, "webhooks": [webhook]})

    def trust(self) -> None:
        self.configure(self._bundle.ca_certificates)

    def lead(self) -> None:
        """As an operator does from now on."""
        self.kube.create(LEASES, {"metadata": {"name": NAME}, "spec": {"holderIdentity": "pod-a"}})

        async def renew() -> None:
            while True:
                now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
                await asyncio.to_thread(self.kube.patch, f"{LEASES}/{NAME}", {"spec": {"renewTime": now}})
                await asyncio.sleep(0.5)

        self._renewing = asyncio.create_task(renew())

    async def check(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """The exit status, and what is found by check: a code, or why it was not looked at."""
        command = ["check-installation", "--name", NAME, "--namespace", NAMESPACE, "--metrics", self._metrics]
        done = await asyncio.to_thread(
            busctl_program.run, *command, "-o", "json", *arguments, KUBECONFIG=str(self._kubeconfig)
        )
        assert done.stdout, done.stderr
        (item,) = json.loads(done.stdout)["items"]
        found = {check["title"]: check["notLookedAt"] for check in item["checks"] if check["notLookedAt"]}
        return done.returncode, found | {
            check["title"]: finding["code"] for check in item["checks"] for finding in check["findings"]
        }

    async def end(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        for path in (f"{WEBHOOKS}/{NAME}", f"{LEASES}/{NAME}"):
            with suppress(ApiError):
                self.kube.delete(path)


@pytest.fixture
async def world(
    kube: KubeClient, kubeconfig: Path, bundle: CertificateBundle, webhook: WebhookServer, metrics: str
) -> AsyncIterator[World]:
    made = World(kube, kubeconfig, bundle, webhook.port, metrics)
    yield made
    await made.end()


async def test_all_is_well(world: World) -> None:
    world.trust()
    world.lead()
    assert await world.check() == (0, {})


async def test_nothing_is_there(world: World) -> None:
    expected = {"leader": "NobodyLeads", "webhook": "WebhookConfigurationNotFound", "metrics": "MetricsUnreachable"}
    assert await world.check("--metrics", "http://127.0.0.1:1/metrics") == (1, expected)


async def test_it_waits_for_an_operator_that_has_just_started(world: World) -> None:
    world.configure(None)
    checking = asyncio.create_task(world.check("--wait", "60"))
    await asyncio.sleep(0)
    world.lead()
    world.trust()
    assert await checking == (0, {})


async def test_a_webhook_that_the_api_server_does_not_trust(world: World) -> None:
    world.lead()
    world.configure(None)
    assert await world.check() == (1, {"webhook": "WebhookUnreachable"})
    world.configure(plan_certificates(None, ["localhost"], datetime.now(UTC)).ca_certificates)
    assert await world.check() == (1, {"webhook": "WebhookUnreachable"})


@pytest.fixture
def older(kube: KubeClient) -> Iterator[None]:
    kube.patch(DEFINITION, {"metadata": {"annotations": {"pgmqbus.dev/version": "0.0.9"}}})
    yield
    kube.install_definitions()


@pytest.mark.usefixtures("older")
async def test_definitions_that_are_older_than_the_chart(world: World) -> None:
    world.trust()
    world.lead()
    assert await world.check() == (1, {"definitions": "DefinitionTooOld"})


async def test_what_may_not_be_read_is_no_success(world: World) -> None:
    """As of another installation, which the pod has no rights to."""
    world.trust()
    world.lead()
    status, found = await world.check("--name", "another")
    assert status == 1
    assert "cannot get resource" in found["leader"]
    assert "cannot get resource" in found["webhook"]
