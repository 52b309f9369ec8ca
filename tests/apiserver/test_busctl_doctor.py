"""`busctl doctor` on a cluster: conditions, pods, the webhook, and what somebody without rights is told."""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import busctl_program
import postgres
import pytest
import yaml
from control_plane import GROUP, VERSION, ApiError, KubeClient, Manifest
from kubernetes.aio.config import new_client_from_config
from pgbouncer import pgbouncer
from postgres import free_port
from wire import Peer

from bus_operator.certificate_store import KubernetesSecretStore
from bus_operator.certificates import plan_certificates
from bus_operator.doctor.pod import SETTLED
from bus_operator.kube_api import KubeApi
from bus_operator.serving_certificates import CertificateManager, load_key_pair, new_server_context
from bus_operator.webhook import WebhookServer, make_app
from hack.test_servers import LIBFAKETIME

pytestmark = pytest.mark.cluster

on_one_version = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

SHOP = "doctor-shop"
TIME = "2026-01-02T03:04:05Z"
API = f"/apis/{GROUP}/{VERSION}/namespaces/{SHOP}"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
NAME = "busctl-doctor-test"


def condition(type_: str, status: str, reason: str, message: str = "") -> Manifest:
    return {
        "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
        "lastTransitionTime": TIME,
    }  # fmt: skip


READY = condition("Ready", "True", "Ready", "everything is in place")
REACHABLE = condition("Reachable", "True", "Connected")

RUNNING = {"phase": "Running"}


def crashing(reason: str, phase: str = "Running") -> Manifest:
    """The status of a pod whose container waits for that reason."""
    container = {
        "name": "main", "image": "none", "imageID": "", "ready": False, "restartCount": 3,
        "state": {"waiting": {"reason": reason}},
    }  # fmt: skip
    return {"phase": phase, "containerStatuses": [container]}


class Shop:
    """A namespace, whose resources have the statuses that the operator would give them."""

    def __init__(self, kube: KubeClient) -> None:
        self.kube = kube
        self._made: list[str] = []
        if kube.get(f"/api/v1/namespaces/{SHOP}") is None:
            kube.create("/api/v1/namespaces", {"metadata": {"name": SHOP}})
            kube.create(f"/api/v1/namespaces/{SHOP}/serviceaccounts", {"metadata": {"name": "default"}})

    def make(self, collection: str, body: Manifest, status: Manifest | None = None) -> None:
        path = f"{collection}/{body['metadata']['name']}"
        self.kube.create(collection, body)
        self._made.append(path)
        if status is not None:
            self.kube.patch(f"{path}/status", {"status": status})

    def database(self, uri: str, *conditions: Manifest, **spec: Any) -> None:
        secret = {"metadata": {"name": "admin"}, "stringData": {"uri": uri}}
        self.make(f"/api/v1/namespaces/{SHOP}/secrets", secret)
        body = resource("BusDatabase", "main", {"connectionSecretRef": {"name": "admin"}} | spec)
        self.make(f"{API}/busdatabases", body, {"conditions": [*conditions]})

    def channel(self, name: str, *conditions: Manifest, placed: bool = True, **spec: Any) -> None:
        status: Manifest = {"conditions": [*conditions]}
        if placed:
            status |= {"channel": f"{SHOP}.{name}", "database": {"namespace": SHOP, "name": "main"}, "shard": 0}
        self.make(f"{API}/buschannels", resource("BusChannel", name, spec), status)

    def pod(
        self, name: str, *, labels: Manifest | None = None, status: Manifest | None = None, **annotations: str
    ) -> None:
        metadata = {
            "name": name,
            "labels": {"pgmqbus.dev/inject": "true"} if labels is None else labels,
            "annotations": {f"pgmqbus.dev/{key}": value for key, value in annotations.items()},
        }
        spec = {"containers": [{"name": "main", "image": "none"}]}
        self.make(f"/api/v1/namespaces/{SHOP}/pods", {"metadata": metadata, "spec": spec}, status)

    def remove(self) -> None:
        for path in reversed(self._made):
            with suppress(ApiError):
                self.kube.delete(path)


def resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def shop(kube: KubeClient, definitions: dict[str, Manifest]) -> Iterator[Shop]:
    assert definitions
    made = Shop(kube)
    yield made
    made.remove()


Codes = dict[str, str]
Diagnose = Callable[..., Codes]


@pytest.fixture
def diagnose(apiserver: Path, tmp_path: Path) -> Diagnose:
    """What is found, by object and check; the webhook, which is another test's business, is left out.

    With `ahead`, busctl's clock is put forward by so much, and no other.
    """
    configuration = yaml.safe_load(apiserver.read_text())
    configuration["contexts"][0]["context"]["namespace"] = SHOP
    kubeconfig = tmp_path / "kubeconfig"

    def run(
        *arguments: str,
        injection: bool = False,
        token: str | None = None,
        skipped: bool = False,
        messages: bool = False,
        ahead: timedelta = timedelta(0),
    ) -> Codes:
        if token is not None:
            configuration["users"][0]["user"] = {"token": token}
        kubeconfig.write_text(yaml.safe_dump(configuration))
        clock = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": f"+{ahead.seconds}", "DONT_FAKE_MONOTONIC": "1"}
        environment = {"KUBECONFIG": str(kubeconfig)} | (clock if ahead else {})
        done = busctl_program.run("doctor", *arguments, "-o", "json", **environment)
        assert done.stdout, done.stderr
        found: Any = json.loads(done.stdout)
        assert done.returncode == (0 if found["healthy"] else 1)
        items = [item for item in found["items"] if (item["kind"] == "Injection") == injection]
        checks = {
            f"{item['kind']} {'/'.join(filter(None, (item['namespace'], item['name'])))} {check['title']}": check
            for item in items
            for check in item["checks"]
        }
        if skipped:
            return {title: check["notLookedAt"] for title, check in checks.items() if check["notLookedAt"]}
        shown = "message" if messages else "code"
        return {title: finding[shown] for title, check in checks.items() for finding in check["findings"]}

    return run


@on_one_version
async def test_what_the_operator_says(shop: Shop, diagnose: Diagnose, database: postgres.Database) -> None:
    """Its conditions; tests/operator has it say some of them by itself."""
    await database.create_channel(f"{SHOP}.orders")
    shop.database(database.dsn, REACHABLE, READY)
    shop.channel("orders", READY)
    shop.channel("audit", condition("Ready", "False", "SecretConflict", "belongs to another"), placed=False)
    assert await asyncio.to_thread(diagnose) == {f"BusChannel {SHOP}/audit ready": "SecretConflict"}
    assert await asyncio.to_thread(diagnose, "orders") == {}


@on_one_version
async def test_pods(shop: Shop, diagnose: Diagnose, database: postgres.Database) -> None:
    orders = await database.create_channel(f"{SHOP}.orders")
    shop.database(database.dsn, REACHABLE, READY)
    shop.channel("orders", READY)
    shop.pod("complete", status=RUNNING, channels="orders", injected="orders")
    shop.pod("killed", status=RUNNING, channels="orders", injected="orders")
    shop.pod("without", channels="orders")
    shop.pod("lost", channels="missing", injected="missing")
    shop.pod("silent")
    shop.pod("bare", channels="orders", injected="orders", **{"inject-runtime": "true"})
    async with database.session() as admin:
        # Its BusChannel, and a peer that is in a pod and logs in with a credential that was replaced.
        await admin.execute("update pgmq_bus.channel set owner_reference = $1", f"{SHOP}/orders@cluster")
        session = await orders.connect()
        await Peer.join(session, orders.name, host="complete")
        # And one that ended without leaving, so that nobody could restart it.
        ended = await Peer.join(session, orders.name, host="killed")
        silent = "update pgmq_bus.peer set last_seen = last_seen - interval '5 minutes' where queue = $1"
        await admin.execute(silent, ended.queue)
        await admin.execute(
            "insert into pgmq_bus.login select (jsonb_populate_record(l, jsonb_build_object("
            "'role', l.role || 'x', 'generation', l.generation + 1))).* from pgmq_bus.login as l"
        )
    found = await asyncio.to_thread(diagnose)
    pods = {title: code for title, code in found.items() if title.startswith("Pod ")}
    assert pods == {
        f"Pod {SHOP}/complete credential": "CredentialStillUsed",
        f"Pod {SHOP}/without binding": "BindingMissing",
        f"Pod {SHOP}/lost request": "ChannelNotFound",
        f"Pod {SHOP}/silent request": "RequestInvalid",
        f"Pod {SHOP}/bare runtime": "RuntimeNotInjected",
    }
    only = await asyncio.to_thread(diagnose, "pod/without")
    assert only[f"Pod {SHOP}/without binding"] == "BindingMissing"
    assert not any("complete credential" in title for title in only)
    await session.close()


@on_one_version
async def test_a_peer_whose_pod_is_gone(shop: Shop, diagnose: Diagnose, database: postgres.Database) -> None:
    """Nobody is told to look at it, nor to restart it; one whose pod is there is."""
    orders = await database.create_channel(f"{SHOP}.orders")
    shop.database(database.dsn, REACHABLE, READY)
    shop.channel("orders", READY)
    shop.pod("hangs", labels={})
    session = await orders.connect()
    async with database.session() as admin:
        await admin.execute("update pgmq_bus.channel set owner_reference = $1", f"{SHOP}/orders@cluster")
        for host in ("hangs", "gone"):
            peer = await Peer.join(session, orders.name, host=host)
        await peer.publish(1)
        log = await admin.fetchval("select 'pgmq.q_' || queue from pgmq_bus.channel")
        await admin.execute(f"update {log} set enqueued_at = enqueued_at - interval '1 minute'")
        await admin.execute("update pgmq_bus.peer set last_seen = last_seen - interval '1 minute', login = 'withdrawn'")
    readers = f"BusChannel {SHOP}/orders readers"
    for target in ((), ("orders",)):
        found = await asyncio.to_thread(diagnose, *target, messages=True)
        assert "ended without leaving: pod gone, which is gone. It counts until peerTimeout is over" in found[readers]
    assert "pod hangs uses a credential" in found[f"BusChannel {SHOP}/orders credentials in use"]
    shop.kube.delete(f"/api/v1/namespaces/{SHOP}/pods/hangs")
    assert await asyncio.to_thread(diagnose) == {readers: "PeerSilent"}
    await session.close()


def test_pods_that_ask_without_the_label(shop: Shop, diagnose: Diagnose) -> None:
    """Nobody looks at them, so that they have no binding; but to leave the bus alone is no mistake."""
    shop.channel("orders", READY, placed=False)
    shop.pod("bare", labels={}, channels="orders", status=crashing("CrashLoopBackOff"))
    shop.pod("yes", labels={"pgmqbus.dev/inject": "yes"}, channels="orders")
    shop.pod("out", labels={"pgmqbus.dev/inject": "false"}, channels="orders")
    shop.pod("another", labels={})
    expected = {f"Pod {SHOP}/{name} request": "RequestInvalid" for name in ("bare", "yes")}
    for arguments in ((), ("orders",)):
        assert diagnose(*arguments) == expected
    said = diagnose("pod/bare", messages=True)[f"Pod {SHOP}/bare request"]
    assert said.startswith(f"pod {SHOP}/bare asks for BusChannel 'orders' by the annotation pgmqbus.dev/channels")
    assert 'without the label pgmqbus.dev/inject: "true"' in said
    skipped = diagnose("pod/bare", skipped=True)
    for check in ("binding", "runtime", "running", "joined", "credential"):
        assert skipped[f"Pod {SHOP}/bare {check}"].startswith("because of ")
    # Of one that has nothing to do with the bus nothing is said to be well.
    assert diagnose("pod/another") == {}
    assert f"Pod {SHOP}/another request" in diagnose("pod/another", skipped=True)


def test_pods_that_do_not_run(shop: Shop, diagnose: Diagnose) -> None:
    shop.channel("orders", READY, placed=False)
    shop.pod("crashes", status=crashing("CrashLoopBackOff"), channels="orders", injected="orders")
    shop.pod("unpulled", status=crashing("ImagePullBackOff", "Pending"), channels="orders", injected="orders")
    shop.pod("starts", channels="orders", injected="orders")
    assert diagnose() == {f"Pod {SHOP}/{name} running": "PodNotRunning" for name in ("crashes", "unpulled")}
    assert "it is CrashLoopBackOff" in diagnose(messages=True)[f"Pod {SHOP}/crashes running"]
    skipped = diagnose(skipped=True)
    assert skipped[f"Pod {SHOP}/crashes joined"] == "because of running"
    assert skipped[f"Pod {SHOP}/starts running"] == "the pod is Pending"


def test_a_pod_that_waits_for_its_secret(shop: Shop, diagnose: Diagnose) -> None:
    """Nothing is well of it, and what is wrong is its channel's."""
    shop.channel("orders", condition("Ready", "False", "DatabaseNotFound", "no BusDatabase"), placed=False)
    shop.channel("audit", condition("Ready", "False", "DatabaseNotFound", "no BusDatabase"), placed=False)
    shop.kube.patch(f"{API}/buschannels/audit/status", {"status": {"secretRef": {"name": "audit-bus"}}})
    for name in ("orders", "audit"):
        shop.pod(name, status=crashing("ContainerCreating", "Pending"), channels=name, injected=name)
    failures = {f"BusChannel {SHOP}/{name} ready": "DatabaseNotFound" for name in ("orders", "audit")}
    assert diagnose() == failures
    skipped = diagnose(skipped=True)
    said = f"Secret orders-bus is not there yet: see BusChannel {SHOP}/orders"
    assert skipped[f"Pod {SHOP}/orders binding"] == said
    assert skipped[f"Pod {SHOP}/orders running"] == "because of binding"
    assert f"Pod {SHOP}/audit binding" not in skipped
    assert skipped[f"Pod {SHOP}/audit running"] == "the pod is ContainerCreating"
    assert diagnose("pod/orders", skipped=True)[f"Pod {SHOP}/orders binding"] == said


@on_one_version
async def test_a_pod_in_which_nobody_joins(shop: Shop, diagnose: Diagnose, database: postgres.Database) -> None:
    """It is given time to: two minutes, which no test waits for."""
    orders = await database.create_channel(f"{SHOP}.orders")
    shop.database(database.dsn, REACHABLE, READY)
    shop.channel("orders", READY)
    for name in ("idle", "busy"):
        shop.pod(name, status=RUNNING, channels="orders", injected="orders")
    shop.pod("done", status={"phase": "Succeeded"}, channels="orders", injected="orders")
    async with database.session() as admin:
        await admin.execute("update pgmq_bus.channel set owner_reference = $1", f"{SHOP}/orders@cluster")
    session = await orders.connect()
    await Peer.join(session, orders.name, host="busy")
    joined = f"Pod {SHOP}/idle joined"
    assert await asyncio.to_thread(diagnose) == {}
    skipped = await asyncio.to_thread(diagnose, skipped=True)
    assert skipped[joined] == "the pod is new, and may join yet"
    later = SETTLED + timedelta(minutes=1)
    assert await asyncio.to_thread(diagnose, ahead=later) == {joined: "NotJoined"}
    said = await asyncio.to_thread(diagnose, "pod/idle", ahead=later, messages=True)
    assert said[joined].startswith(f"nobody in pod {SHOP}/idle has joined 'orders'")
    assert f"kubectl exec -n {SHOP} idle -- python -m bus_runtime.doctor" in said[joined]
    await session.close()


async def test_pods_that_a_channel_selects(shop: Shop, diagnose: Diagnose) -> None:
    """They did not ask; those that were there before, or came while the webhook was away, have no binding."""
    shop.channel("orders", READY, placed=False, injection={"podSelector": {"matchLabels": {"app": "web"}}})
    shop.channel("audit", READY, placed=False)
    shop.pod("before", labels={"app": "web"})
    shop.pod("after", labels={"app": "web"}, injected="orders")
    shop.pod("another", labels={"app": "api"})
    shop.pod("out", labels={"app": "web", "pgmqbus.dev/inject": "false"})
    for arguments in ((), ("orders",)):
        found = await asyncio.to_thread(diagnose, *arguments)
        assert {title: code for title, code in found.items() if title.startswith("Pod ")} == {
            f"Pod {SHOP}/before binding": "BindingMissing"
        }
    assert not [title for title in await asyncio.to_thread(diagnose, "audit") if title.startswith("Pod ")]
    only = await asyncio.to_thread(diagnose, "pod/before", messages=True)
    said = only[f"Pod {SHOP}/before binding"]
    assert said.startswith(f"pod {SHOP}/before was created without the binding of BusChannel 'orders'")
    assert "kubectl rollout restart" in said


@on_one_version
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_what_pods_connect_to_may_be_a_pooler(
    shop: Shop, diagnose: Diagnose, server: postgres.Server, database: postgres.Database, mode: str
) -> None:
    with pgbouncer(server, mode, pool_size=5) as pooler:
        shop.database(database.dsn, REACHABLE, READY, clientEndpoint={"host": "127.0.0.1", "port": pooler.port})
        found = await asyncio.to_thread(diagnose)
        said = await asyncio.to_thread(diagnose, messages=True)
    expected = {f"BusDatabase {SHOP}/main client endpoint": "PoolerInTransactionMode"}
    assert found == (expected if mode == "transaction" else {})
    if mode == "transaction":
        (message,) = said.values()
        assert f"spec.clientEndpoint of BusDatabase {SHOP}/main is a pooler in transaction mode" in message
        assert "Its session mode" in message
    # It need not be reached from here, nor know the administrator.
    said = await asyncio.to_thread(diagnose, skipped=True)
    assert f"127.0.0.1:{pooler.port}" in said[f"BusDatabase {SHOP}/main client endpoint"]


def test_a_database_that_the_operator_reaches_and_we_do_not(shop: Shop, diagnose: Diagnose) -> None:
    shop.database(f"postgresql://postgres:x@127.0.0.1:{free_port()}/app", REACHABLE, READY)
    shop.channel("orders", READY)
    assert diagnose() == {}
    said = diagnose(skipped=True)
    command = f"kubectl exec -n NAMESPACE deploy/pgmq-bus -- busctl doctor --output json -n {SHOP}"
    assert command in said[f"BusDatabase {SHOP}/main connection"]
    assert f"BusChannel {SHOP}/orders readers" in said


async def test_what_could_not_be_looked_at_is_not_said_to_be_well(
    shop: Shop, diagnose: Diagnose, apiserver: Path
) -> None:
    """The last line counts it, and says where it can be; the exit status is that of what was found."""
    shop.database(f"postgresql://postgres:x@127.0.0.1:{free_port()}/app", REACHABLE, READY)
    shop.channel("orders", READY)
    shop.pod("worker", status=RUNNING, channels="orders", injected="orders")

    def look() -> subprocess.CompletedProcess[str]:
        return busctl_program.run("doctor", "-n", SHOP, KUBECONFIG=str(apiserver))

    done = await asyncio.to_thread(look)
    # Of the database eight, of the channel four, of the pod two.
    unmade = f"14 checks could not be made: kubectl exec -n NAMESPACE deploy/pgmq-bus -- busctl doctor -n {SHOP} "
    assert f"\n1 of 4 needs attention, and {unmade}" in done.stderr
    async with webhook(shop.kube, timedelta(0)), asyncio.timeout(120):
        # The API server takes a moment to know of it.
        while (done := await asyncio.to_thread(look)).returncode:
            await asyncio.sleep(0.1)
    assert f"\nfound nothing wrong, but {unmade}" in done.stderr
    shown = done.stdout.splitlines()
    for title in (f"BusDatabase {SHOP}/main", f"BusChannel {SHOP}/orders", f"Pod {SHOP}/worker"):
        assert f"– {title}" in shown  # noqa: RUF001


def test_a_database_that_nobody_reaches(shop: Shop, diagnose: Diagnose) -> None:
    down = condition("Reachable", "False", "ConnectionFailed", "cannot be reached")
    shop.database(f"postgresql://postgres:x@127.0.0.1:{free_port()}/app", down)
    found = diagnose()
    assert found[f"BusDatabase {SHOP}/main connection"] == "ConnectionFailed"


def token_with(shop: Shop, *, buses: Sequence[str], pods: Sequence[str]) -> str:
    """A token of an account that may do this with BusChannels and BusDatabases, and that with pods."""
    namespace = f"/api/v1/namespaces/{SHOP}"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SHOP}"
    shop.make(f"{namespace}/serviceaccounts", {"metadata": {"name": "developer"}})
    rules = [
        {"apiGroups": [GROUP], "resources": ["buschannels", "busdatabases"], "verbs": [*buses]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*pods]},
    ]
    shop.make(f"{rbac}/roles", {"metadata": {"name": "developer"}, "rules": rules})
    binding = {
        "metadata": {"name": "developer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "developer"},
        "subjects": [{"kind": "ServiceAccount", "name": "developer", "namespace": SHOP}],
    }
    shop.make(f"{rbac}/rolebindings", binding)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token: str = shop.kube.create(f"{namespace}/serviceaccounts/developer/token", request)["status"]["token"]
    return token


@pytest.mark.parametrize("verb", ["list", "get"])
def test_a_pod_by_whoever_may_only_list_or_get(shop: Shop, diagnose: Diagnose, verb: str) -> None:
    shop.channel("orders", READY, placed=False)
    shop.pod("without", channels="orders")
    shop.pod("another", channels="missing")
    token = token_with(shop, buses=("list",), pods=(verb,))
    assert diagnose("pod/without", token=token) == {f"Pod {SHOP}/without binding": "BindingMissing"}


def test_a_pod_that_is_not_there(shop: Shop, apiserver: Path) -> None:
    done = busctl_program.run("doctor", "pod/missing", "-n", SHOP, KUBECONFIG=str(apiserver))
    assert done.returncode == 1
    said = f"error: there is no pod {SHOP}/missing: kubectl get pods -n {SHOP} shows all [NotFound]"
    assert said in done.stderr.splitlines()


def test_an_application_developer(shop: Shop, diagnose: Diagnose) -> None:
    """May read BusChannels and pods, and is told what of the rest could not be looked at, and why."""
    shop.database("postgresql://postgres:x@127.0.0.1:1/app", REACHABLE, READY)
    shop.channel("orders", condition("Ready", "False", "ChannelConflict", "belongs to another"))
    token = token_with(shop, buses=("get", "list"), pods=("get", "list"))
    assert diagnose(token=token) == {f"BusChannel {SHOP}/orders ready": "ChannelConflict"}
    said = diagnose(token=token, skipped=True)
    assert "cannot get resource" in said[f"BusDatabase {SHOP}/main connection"]
    assert "-- busctl doctor --output json -n " in said[f"BusDatabase {SHOP}/main connection"]
    assert "cannot create resource" in diagnose(token=token, skipped=True, injection=True)["Injection webhook webhook"]


def webhook_of(client: Manifest, served: str) -> Manifest:
    """The chart's, for pods of one namespace only."""
    return {
        "name": "inject.pgmqbus.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        # As short as can be: nothing answers where there are no nodes.
        "timeoutSeconds": 1,
        "clientConfig": client,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "objectSelector": {"matchLabels": {"pgmqbus.dev/inject": "true"}},
        "namespaceSelector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [served]}]
        },
    }


@asynccontextmanager
async def webhook(kube: KubeClient, age: timedelta, *, listens: bool = True, served: str = SHOP) -> AsyncIterator[None]:
    """The operator's webhook, with certificates of that age, for pods of one namespace only."""
    bundle = plan_certificates(None, ("localhost",), datetime.now(UTC) - age)
    context = new_server_context()
    load_key_pair(context, bundle.certificate, bundle.key)

    async def resolve(_namespace: str, channel: str) -> str | None:
        return None

    async def select(_namespace: str, _labels: Mapping[str, str]) -> tuple[str, ...]:
        return ()

    server = WebhookServer(make_app(resolve, select))
    await server.start("127.0.0.1", 0, context)
    port = server.port
    if not listens:
        await server.stop()
    authority = base64.b64encode(bundle.ca_certificates).decode()
    hook = webhook_of({"url": f"https://localhost:{port}/mutate-pods", "caBundle": authority}, served)
    kube.create(WEBHOOKS, {"metadata": {"name": NAME}, "webhooks": [hook]})
    yield
    kube.delete(f"{WEBHOOKS}/{NAME}")
    if listens:
        await server.stop()
        # One that is amid a handshake is not the server's yet: it has to end before the event loop does.
        async with asyncio.timeout(60):
            while is_connected(port):
                await asyncio.sleep(0.01)


def is_connected(port: int) -> bool:
    """Whether this end of a connection to the port is open: see proc_net_tcp(5), ESTABLISHED and CLOSE_WAIT."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state in ("01", "08") for _, local, _, state, *_ in lines)


@pytest.mark.parametrize(
    ("age", "listens", "expected"),
    [
        (timedelta(0), True, {}),
        (timedelta(0), False, {"Injection webhook webhook": "WebhookUnreachable"}),
        (timedelta(days=400), True, {"Injection webhook webhook": "CertificateExpired"}),
    ],
    ids=["well", "unreachable", "expired"],
)
async def test_the_webhook(shop: Shop, diagnose: Diagnose, age: timedelta, listens: bool, expected: Codes) -> None:
    async with webhook(shop.kube, age, listens=listens), asyncio.timeout(120):
        # The API server takes a moment to know of it.
        while await asyncio.to_thread(diagnose, injection=True) != expected:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("age", "what"),
    [(timedelta(days=400), "certificate expired"), (timedelta(days=20 * 365), "certificate's authority expired")],
    ids=["certificate", "authority"],
)
async def test_the_expired_certificate_of_a_service(
    shop: Shop, diagnose: Diagnose, apiserver: Path, age: timedelta, what: str
) -> None:
    """As the chart has it: the certificate is in the operator's Secret, which the operator wrote that long ago."""
    namespace = "default"
    secret = f"{NAME}-tls"
    path = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
    service = {"namespace": namespace, "name": NAME, "path": "/mutate-pods"}
    async with await new_client_from_config(config_file=str(apiserver)) as client:
        store = KubernetesSecretStore(KubeApi(client), name=secret, namespace=namespace)
        certificates = CertificateManager(
            store, service=NAME, namespace=namespace, clock=lambda: datetime.now(UTC) - age
        )
        await certificates.ensure()
    assert certificates.ca_bundle is not None
    if "authority" in what:
        # Somebody restored the configuration of then, and the operator has renewed its certificate.
        shop.kube.delete(path)
    authority = base64.b64encode(certificates.ca_bundle).decode()
    hook = webhook_of({"service": service, "caBundle": authority}, SHOP)
    shop.kube.create(WEBHOOKS, {"metadata": {"name": NAME}, "webhooks": [hook]})
    try:
        async with asyncio.timeout(120):
            # The API server takes a moment to know of it.
            while not (found := await asyncio.to_thread(diagnose, injection=True)):
                await asyncio.sleep(0.1)
        said = await asyncio.to_thread(diagnose, injection=True, messages=True)
    finally:
        shop.kube.delete(f"{WEBHOOKS}/{NAME}")
        shop.kube.delete(path)
    assert found == {"Injection webhook webhook": "CertificateExpired"}
    assert f"the webhook's {what} at " in said["Injection webhook webhook"]
    assert "the operator renews it 30 days before its end" in said["Injection webhook webhook"]


async def test_a_namespace_that_is_not_the_webhooks_business(shop: Shop, diagnose: Diagnose) -> None:
    async with webhook(shop.kube, timedelta(0), listens=False, served="elsewhere"):
        assert await asyncio.to_thread(diagnose, injection=True) == {}
        said = await asyncio.to_thread(diagnose, injection=True, skipped=True)
    assert "scope.namespaces" in said["Injection webhook webhook"]


def test_an_operator_that_is_down(shop: Shop, diagnose: Diagnose) -> None:
    """Its Deployment, of which no pod runs: there is no node."""
    labels = {"app.kubernetes.io/name": "pgmq-bus"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "none"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    body = {"metadata": {"name": "bus", "labels": labels}, "spec": spec}
    shop.make(f"/apis/apps/v1/namespaces/{SHOP}/deployments", body)
    assert diagnose(injection=True)["Injection webhook operator"] == "OperatorDown"
    said = diagnose(injection=True, messages=True)["Injection webhook operator"]
    assert f"no pod of Deployment {SHOP}/bus is ready" in said
    assert f"kubectl get pods -n {SHOP} -l app.kubernetes.io/name=pgmq-bus" in said


def test_no_webhook(shop: Shop, diagnose: Diagnose) -> None:
    assert shop.kube.get(f"{WEBHOOKS}/{NAME}") is None
    assert diagnose(injection=True) == {"Injection webhook webhook": "WebhookConfigurationNotFound"}
