"""The chart on a real API server: it installs, upgrades, and gives the operator the rights it should have."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import wait_until
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from bus_operator.webhook_scope import with_selected

pytestmark = pytest.mark.cluster

CHART = str(Path(__file__).parents[2] / "charts" / "pgmq-bus")
NAMESPACE = "bus-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:pgmq-bus"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def release(run: Run, api: client.ApiClient, definitions: dict[str, Any]) -> Iterator[Run]:
    """The chart, installed in a namespace that enforces Pod Security's restricted profile; a way to run Helm on it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    client.CoreV1Api(api).create_namespace({"metadata": {"name": NAMESPACE, "labels": labels}})

    def helm(command: str, *arguments: str) -> str:
        return run("helm", command, "pgmq-bus", *arguments, "--namespace", NAMESPACE)

    # The definitions are there already, and Helm leaves those alone.
    assert len(definitions) == 2
    helm("install", CHART, "--no-hooks", "--set", "devPostgres.enabled=true")
    yield helm
    # No kubelet is there to run hooks.
    helm("uninstall", "--no-hooks")


def test_installs_the_definitions_too(run: Run) -> None:
    """As documented in values.yaml, and fit for an upgrade of them."""
    shown = run("helm", "show", "crds", CHART)
    applied = run("kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=shown)
    assert applied.count("serverside-applied") == 2


def manifests_in(notes: str) -> list[str]:
    return [block.partition("END\n")[0] for block in notes.split("<<'END'\n")[1:]]


@pytest.mark.parametrize(("scope", "home"), [("shop,depot", "shop"), (f"shop,{NAMESPACE}", NAMESPACE)])
def test_notes_with_a_scope_name_namespaces_in_it(release: Run, run: Run, scope: str, home: str) -> None:
    arguments = ("--namespace", NAMESPACE, "--dry-run=client", "--set", f"scope.namespaces={{{scope}}}")
    notes = run("helm", "install", "scoped", CHART, *arguments).partition("NOTES:\n")[2]
    namespaces = [yaml.safe_load(manifest)["metadata"]["namespace"] for manifest in manifests_in(notes)]
    assert namespaces == [home, "shop"]
    assert f"kubectl create secret generic postgres-admin -n {home} " in notes
    assert f"in these namespaces: {scope.replace(',', ', ')}. For one more, add it to scope.namespaces." in notes
    assert "kubectl create rolebinding" not in notes


def test_notes_are_commands_that_work(release: Run, run: Run) -> None:
    notes = json.loads(release("status", "--output", "json"))["info"]["notes"]
    manifests = manifests_in(notes)
    assert [yaml.safe_load(manifest)["kind"] for manifest in manifests] == ["BusDatabase", "BusChannel"]
    for manifest in manifests:
        run("kubectl", "apply", "--dry-run=server", "-f", "-", stdin=manifest)
    (grant,) = (line.split() for line in notes.splitlines() if "kubectl create rolebinding" in line)
    run(*(word.replace("NAMESPACE", "kube-public") for word in grant), "--dry-run=server")


@pytest.mark.parametrize("upgraded", [True, False])
def test_notes_after_an_upgrade_are_about_upgrading(release: Run, run: Run, upgraded: bool) -> None:
    """The first steps were gone through; by hand, only what the chart was told not to do."""
    values = ("--reuse-values", "--set", f"crds.upgrade={str(upgraded).lower()}")
    notes = release("upgrade", CHART, "--dry-run=client", *values).partition("NOTES:\n")[2]
    assert manifests_in(notes) == []
    assert f"helm test pgmq-bus -n {NAMESPACE} --logs" in notes
    assert "docs/upgrading.md" in notes
    _, *commands = [line.split() for line in notes.splitlines() if line.startswith("    ")]
    run(*commands.pop(0))
    if not upgraded:
        command = " ".join(commands.pop(0)).replace("CHART", CHART)
        shown, applied = (part.split() for part in command.split(" | "))
        run(*applied, "--dry-run=server", stdin=run(*shown))
    assert commands == []


@pytest.mark.parametrize(
    ("namespace", "verb", "resource", "name", "allowed"),
    [
        ("", "list", "buschannels.pgmqbus.dev", "", True),
        ("", "watch", "busdatabases.pgmqbus.dev", "", True),
        ("shop", "patch", "buschannels.pgmqbus.dev/status", "orders", True),
        ("shop", "patch", "buschannels.pgmqbus.dev", "orders", True),
        ("shop", "create", "buschannels.pgmqbus.dev", "", False),
        ("shop", "delete", "buschannels.pgmqbus.dev", "orders", False),
        ("", "get", "namespaces", "shop", True),
        ("", "watch", "namespaces", "", True),
        ("", "patch", "namespaces", "shop", False),
        ("shop", "create", "events", "", True),
        ("", "list", "secrets", "", False),
        ("", "watch", "secrets", "", False),
        ("shop", "get", "secrets", "orders-bus", False),
        ("shop", "create", "secrets", "", False),
        ("shop", "patch", "secrets", "orders-bus", False),
        ("kube-system", "get", "secrets", "any", False),
        ("default", "get", "secrets", "any", True),
        ("default", "list", "secrets", "", False),
        ("default", "watch", "secrets", "", True),
        ("default", "create", "secrets", "", True),
        ("default", "patch", "secrets", "any", True),
        ("default", "delete", "secrets", "any", False),
        (NAMESPACE, "get", "secrets", "pgmq-bus-dev-postgres", True),
        (NAMESPACE, "patch", "secrets", "pgmq-bus-webhook-tls", True),
        ("", "patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "pgmq-bus", True),
        ("", "patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "another", False),
        ("", "list", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", False),
        ("", "get", "customresourcedefinitions.apiextensions.k8s.io", "buschannels.pgmqbus.dev", True),
        ("", "patch", "customresourcedefinitions.apiextensions.k8s.io", "buschannels.pgmqbus.dev", False),
        ("", "get", "customresourcedefinitions.apiextensions.k8s.io", "another.example.org", False),
        ("default", "list", "pods", "", True),
        ("default", "get", "pods", "any", False),
        (NAMESPACE, "patch", "leases.coordination.k8s.io", "pgmq-bus", True),
        (NAMESPACE, "patch", "leases.coordination.k8s.io", "another", False),
        ("kube-system", "get", "leases.coordination.k8s.io", "kube-scheduler", False),
        ("default", "create", "pods", "", False),
        ("", "create", "clusterrolebindings.rbac.authorization.k8s.io", "", False),
        ("default", "create", "rolebindings.rbac.authorization.k8s.io", "", False),
    ],
)
def test_rights(
    release: Run, api: client.ApiClient, namespace: str, verb: str, resource: str, name: str, allowed: bool
) -> None:
    resource, _, subresource = resource.partition("/")
    plural, _, group = resource.partition(".")
    review = {
        "spec": {
            "user": OPERATOR,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": group,
                "resource": plural,
                "subresource": subresource,
                "name": name,
            },
        }
    }
    answer = client.AuthorizationV1Api(api).create_subject_access_review(review)
    assert answer.status.allowed == allowed, answer.status


def test_a_namespace_is_opted_in_with_one_command(release: Run, run: Run, api: client.ApiClient) -> None:
    """The one that the notes, and the condition SecretAccessDenied, give."""
    client.CoreV1Api(api).create_namespace({"metadata": {"name": "later"}})
    get_secret = ("kubectl", "auth", "can-i", "get", "secrets", "--namespace=later", f"--as={OPERATOR}")
    with pytest.raises(AssertionError):
        run(*get_secret)
    role = "pgmq-bus-secrets"
    account = f"--serviceaccount={NAMESPACE}:pgmq-bus"
    run("kubectl", "create", "rolebinding", role, "-n", "later", f"--clusterrole={role}", account)
    assert run(*get_secret) == "yes\n"


@pytest.mark.parametrize("value", ["secretNamespaces", "scope.namespaces"])
def test_a_listed_namespace_that_does_not_exist(
    run: Run, api: client.ApiClient, definitions: dict[str, Any], value: str
) -> None:
    """Nothing is made. The command works when the one that helps was run."""
    assert definitions
    missing = f"missing-{value.partition('.')[0].lower()}"
    install = (
        "helm", "upgrade", "--install", "incomplete", CHART, "--no-hooks", "--namespace", "incomplete-system",
        "--create-namespace", "--set", f"{value}={{incomplete-system,default,{missing}}}",
    )  # fmt: skip
    # Without a cluster to ask, as Argo CD renders it, nothing is said.
    assert missing in run(*install, "--dry-run=client")
    with pytest.raises(AssertionError) as refused:
        run(*install)
    said = f"namespace {missing} of {value} does not exist: kubectl create namespace {missing}, or leave it out"
    assert said in str(refused.value)
    assert "incomplete" not in run("helm", "list", "--all-namespaces", "--all")
    run("kubectl", "create", "namespace", missing)
    run(*install)
    run("helm", "uninstall", "incomplete", "--no-hooks", "--namespace", "incomplete-system")


def test_a_chart_that_this_one_is_part_of_may_make_the_namespaces(
    run: Run, api: client.ApiClient, definitions: dict[str, Any], tmp_path: Path
) -> None:
    assert definitions
    platform = tmp_path / "platform"
    shutil.copytree(CHART, platform / "charts" / "pgmq-bus")
    (platform / "templates").mkdir()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "of-platform"}}
    (platform / "templates" / "namespace.yaml").write_text(yaml.safe_dump(namespace))
    (platform / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "platform", "version": "1.0.0"}))
    release = ("platform", "--no-hooks", "--namespace", "platform-system")
    values = "pgmq-bus.secretNamespaces={of-platform}"
    run("helm", "install", *release, str(platform), "--create-namespace", "--set", values)
    bindings = client.RbacAuthorizationV1Api(api).list_namespaced_role_binding("of-platform").items
    assert [item.metadata.name for item in bindings] == ["platform-pgmq-bus-secrets"]
    run("helm", "uninstall", *release)


def pod_of(workload: Any) -> dict[str, Any]:
    pod: dict[str, Any] = client.ApiClient().sanitize_for_serialization(workload.spec.template)
    return pod | {"metadata": pod["metadata"] | {"name": "attempt"}}


def test_pods_are_admitted_under_the_restricted_profile(release: Run, api: client.ApiClient) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    operator = pod_of(apps.read_namespaced_deployment("pgmq-bus", NAMESPACE))
    postgres = pod_of(apps.read_namespaced_stateful_set("pgmq-bus-dev-postgres", NAMESPACE))
    for pod in (operator, postgres):
        core.create_namespaced_pod(NAMESPACE, pod, dry_run="All")
        pod["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
        with pytest.raises(ApiException, match="violates PodSecurity"):
            core.create_namespaced_pod(NAMESPACE, pod, dry_run="All")


def test_run_time_state_survives_upgrade_and_rollback(release: Run, api: client.ApiClient) -> None:
    """What the operator writes to the webhook configuration, and the development PostgreSQL's password."""
    webhooks, core = client.AdmissionregistrationV1Api(api), client.CoreV1Api(api)

    def configured() -> list[dict[str, Any]]:
        configuration = webhooks.read_mutating_webhook_configuration("pgmq-bus")
        sent: list[dict[str, Any]] = api.sanitize_for_serialization(configuration)["webhooks"]
        return sent

    def state() -> tuple[list[dict[str, Any]], dict[str, str]]:
        return configured(), core.read_namespaced_secret("pgmq-bus-dev-postgres", NAMESPACE).data

    bundle = base64.b64encode(Path(api.configuration.ssl_ca_cert).read_bytes()).decode()
    (asked,) = configured()
    asked["clientConfig"]["caBundle"] = bundle
    # A namespace that is not there: other tests' pods are none of this one's business.
    webhooks.patch_mutating_webhook_configuration("pgmq-bus", {"webhooks": with_selected([asked], {"nowhere"})})
    before = state()
    assert [webhook["name"] for webhook in before[0]] == ["inject.pgmqbus.dev", "select.pgmqbus.dev"]
    assert {webhook["clientConfig"]["caBundle"] for webhook in before[0]} == {bundle}
    password = base64.b64decode(before[1]["password"]).decode()
    assert (
        f"postgres:{password}@pgmq-bus-dev-postgres.bus-system.svc:5432" in base64.b64decode(before[1]["uri"]).decode()
    )
    release("upgrade", CHART, "--no-hooks", "--reuse-values", "--set", "resyncSeconds=30")
    assert state() == before
    release("upgrade", CHART, "--no-hooks", "--reuse-values", "--set", "resyncSeconds=60")
    assert state() == before
    release("rollback", "1", "--no-hooks")
    assert state() == before


def test_uninstalling(run: Run, api: client.ApiClient, definitions: dict[str, Any]) -> None:
    """Helm waits for the hook, whose pod this test stands in for, and leaves nothing behind."""
    assert definitions
    namespace, name = "gone-system", "gone-pgmq-bus-uninstall"
    client.CoreV1Api(api).create_namespace({"metadata": {"name": namespace}})
    batch, rbac = client.BatchV1Api(api), client.RbacAuthorizationV1Api(api)
    run("helm", "install", "gone", CHART, "--no-hooks", "--namespace", namespace)
    with ThreadPoolExecutor() as background:
        uninstalling = background.submit(run, "helm", "uninstall", "gone", "--namespace", namespace)

        def job() -> Any:
            return [job for job in batch.list_namespaced_job(namespace).items if job.metadata.name == name]

        wait_until(job, "the hook's job is made")
        # By now the operator has no rights any more: it could not put its finalizer on again.
        assert "gone-pgmq-bus" not in {item.metadata.name for item in rbac.list_cluster_role_binding().items}
        assert name in {item.metadata.name for item in rbac.list_cluster_role_binding().items}
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        conditions = [
            {"type": type_, "status": "True", "lastTransitionTime": now} for type_ in ("SuccessCriteriaMet", "Complete")
        ]
        status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
        batch.patch_namespaced_job_status(name, namespace, {"status": status})
        uninstalling.result(30)
    assert batch.list_namespaced_job(namespace).items == []
    configurations = client.AdmissionregistrationV1Api(api).list_mutating_webhook_configuration()
    for listed in (rbac.list_cluster_role(), rbac.list_cluster_role_binding(), configurations):
        assert not [item for item in listed.items if item.metadata.name.startswith("gone-")]
    accounts = client.CoreV1Api(api).list_namespaced_service_account(namespace).items
    assert not [item for item in accounts if item.metadata.name.startswith("gone-")]
