"""What Kubernetes' own roles view, edit and admin let a user do with BusChannels and BusDatabases: docs/access.md.

Kubernetes adds the chart's roles to its own, so its controller for that runs here; no other controller does.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from control_plane import GROUP, VERSION, ApiError, KubeClient, Manifest, wait_until

from hack.cluster.layout import cache_directory

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts" / "pgmq-bus"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
NAMESPACE = "users-access-test"
READ = {"get", "list", "watch"}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}
PROMISED = {
    "view": {"buschannels": READ, "busdatabases": READ},
    "edit": {"buschannels": READ | WRITE, "busdatabases": READ},
    "admin": {"buschannels": READ | WRITE, "busdatabases": READ},
}
"""As the table in docs/access.md has it."""

SPECS = {"buschannels": {"channel": "kept"}, "busdatabases": {"connectionSecretRef": {"name": "admin"}}}
KINDS = {"buschannels": "BusChannel", "busdatabases": "BusDatabase"}


@pytest.fixture(scope="module")
def users(
    apiserver: Path, kube: KubeClient, definitions: dict[str, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, KubeClient]]:
    """A user for each of the three roles, who has it in one namespace."""
    assert definitions
    helm = Path(sys.executable).parent / "helm"
    command = [helm, "template", "users", CHART, "-s", "templates/rbac-users.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    roles = list(yaml.safe_load_all(rendered))
    for role in roles:
        kube.apply(f"{ROLES}/{role['metadata']['name']}", role)
    kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings"
    for role in PROMISED:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{role}-user"}
        kube.create(bindings, {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]})
    log = tmp_path_factory.mktemp("controller") / "log"
    with log.open("wb") as output:
        # One binary holds all programs of Kubernetes, and goes by what it is called.
        controller = subprocess.Popen(
            [
                "kube-controller-manager", f"--kubeconfig={apiserver}", "--leader-elect=false", "--secure-port=0",
                "--controllers=clusterrole-aggregation-controller",
            ],
            executable=cache_directory() / "bin" / "kubectl", stdout=output, stderr=output,
        )  # fmt: skip

    def added(role: str) -> bool:
        assert controller.poll() is None, log.read_text()
        return GROUP in groups_of(kube, role)

    try:
        for role in PROMISED:
            wait_until(lambda role=role: added(role), f"the chart's roles are part of {role}", 60)
        yield {role: kube.impersonating(f"{role}-user") for role in PROMISED}
        for role in roles:
            kube.delete(f"{ROLES}/{role['metadata']['name']}")
        for role in PROMISED:
            wait_until(lambda role=role: not added(role), f"{role} is as it was", 60)
    finally:
        controller.terminate()
        controller.wait(30)


def groups_of(kube: KubeClient, role: str) -> set[str]:
    return {group for rule in kube.get(f"{ROLES}/{role}")["rules"] or () for group in rule.get("apiGroups", ())}


@pytest.fixture
def stored(kube: KubeClient) -> Iterator[None]:
    """A resource of each kind, called `present`, whose status says something."""
    for plural, spec in SPECS.items():
        kube.create(collection(plural), manifest(plural, "present", spec))
        kube.patch(f"{collection(plural)}/present/status", {"status": {"observedGeneration": 1}})
    yield
    for plural in SPECS:
        kube.request("DELETE", collection(plural))


def collection(plural: str, namespace: str = NAMESPACE) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"


def manifest(plural: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KINDS[plural], "metadata": {"name": name}, "spec": spec}


def reviewed(kube: KubeClient, role: str, resource: str, namespace: str = NAMESPACE) -> set[str]:
    """The verbs that the API server says the role's user may use."""
    plural, _, subresource = resource.partition("/")
    allowed = set()
    for verb in READ | WRITE:
        attributes = {
            "namespace": namespace, "verb": verb, "group": GROUP, "resource": plural, "subresource": subresource,
        }  # fmt: skip
        spec = {"user": f"{role}-user", "groups": ["system:authenticated"], "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        if kube.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]:
            allowed.add(verb)
    return allowed


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("role", PROMISED)
@pytest.mark.parametrize("plural", SPECS)
def test_what_the_api_server_says(kube: KubeClient, role: str, plural: str) -> None:
    assert reviewed(kube, role, plural) == PROMISED[role][plural]
    assert reviewed(kube, role, f"{plural}/status") == set()
    assert reviewed(kube, role, plural, namespace="default") == set()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("role", PROMISED)
@pytest.mark.parametrize("plural", SPECS)
def test_what_it_does(users: dict[str, KubeClient], role: str, plural: str) -> None:
    user, present = users[role], f"{collection(plural)}/present"
    assert user.get(present)["status"] == {"observedGeneration": 1}
    listed = user.get(collection(plural))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["present"]
    tries = {
        "update": ("PUT", present, user.get(present)),
        "create": ("POST", collection(plural), manifest(plural, "another", SPECS[plural])),
        "patch": ("PATCH", present, {"metadata": {"labels": {"team": "orders"}}}),
        "delete": ("DELETE", f"{collection(plural)}/another", None),
        "deletecollection": ("DELETE", collection(plural), None),
    }
    assert tries.keys() == WRITE
    status = ("PATCH", f"{present}/status", {"status": {"observedGeneration": 7}})
    elsewhere = ("POST", collection(plural, "default"), manifest(plural, "another", SPECS[plural]))
    refused = {verb for verb, attempt in tries.items() if is_refused(user, *attempt)}
    assert WRITE - refused == PROMISED[role][plural] - READ
    assert is_refused(user, *status)
    assert is_refused(user, *elsewhere)


def is_refused(user: KubeClient, method: str, path: str, body: Manifest | None) -> bool:
    """Tries it; an error other than that it is forbidden is a failure of the test."""
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        user.request(method, path, body, content)
    except ApiError as error:
        if error.status != 403:
            raise
        return True
    return False
