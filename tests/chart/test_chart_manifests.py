"""What the chart renders to: the operator, its webhook, its rights, the development PostgreSQL."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

Manifest = dict[str, Any]
Render = Callable[..., Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "dev-postgres": {"devPostgres": {"enabled": True}},
    "cert-manager": {"webhook": {"certManager": {"enabled": True}}},
    "all": {
        "devPostgres": {"enabled": True},
        "webhook": {"certManager": {"enabled": True}},
        "secretNamespaces": ["default", "shop"],
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"annotations": {"example.org/role": "bus"}},
        "podAnnotations": {"example.org/a": "b"},
        "podLabels": {"team": "bus"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "log": {"level": "debug", "format": "json"},
        "resyncSeconds": 5,
        "verificationIntervalSeconds": 7200,
        "replicas": 3,
        "credentialUnusedSeconds": 300,
    },
}
OF_TEST = {
    (kind, "bus-pgmq-bus-test")
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Pod")
}
every_variant = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)


def kinds(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}


def pod_specs(manifests: Any) -> list[Manifest]:
    workloads = [manifest for kind in ("Deployment", "StatefulSet", "Job") for manifest in manifests.of(kind)]
    return [workload["spec"]["template"]["spec"] for workload in workloads] + [
        pod["spec"] for pod in manifests.of("Pod")
    ]


def operator_pod(manifests: Any) -> Manifest:
    spec: Manifest = manifests.one("Deployment", "bus-pgmq-bus")["spec"]["template"]["spec"]
    return spec


def environment(manifests: Any) -> dict[str, Any]:
    (container,) = operator_pod(manifests)["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_objects(render: Render) -> None:
    default = {
        ("ServiceAccount", "bus-pgmq-bus"),
        ("ClusterRole", "bus-pgmq-bus"),
        ("ClusterRole", "bus-pgmq-bus-edit"),
        ("ClusterRole", "bus-pgmq-bus-secrets"),
        ("ClusterRole", "bus-pgmq-bus-view"),
        ("ClusterRoleBinding", "bus-pgmq-bus"),
        ("PodDisruptionBudget", "bus-pgmq-bus"),
        ("Role", "bus-pgmq-bus-lease"),
        ("Role", "bus-pgmq-bus-webhook-tls"),
        ("RoleBinding", "bus-pgmq-bus-lease"),
        ("RoleBinding", "bus-pgmq-bus-secrets"),
        ("RoleBinding", "bus-pgmq-bus-webhook-tls"),
        ("Service", "bus-pgmq-bus-metrics"),
        ("Service", "bus-pgmq-bus-webhook"),
        ("Deployment", "bus-pgmq-bus"),
        ("MutatingWebhookConfiguration", "bus-pgmq-bus"),
        ("ServiceAccount", "bus-pgmq-bus-definitions"),
        ("ClusterRole", "bus-pgmq-bus-definitions"),
        ("ClusterRoleBinding", "bus-pgmq-bus-definitions"),
        ("Job", "bus-pgmq-bus-definitions"),
        ("ServiceAccount", "bus-pgmq-bus-uninstall"),
        ("ClusterRole", "bus-pgmq-bus-uninstall"),
        ("ClusterRoleBinding", "bus-pgmq-bus-uninstall"),
        ("Job", "bus-pgmq-bus-uninstall"),
        *OF_TEST,
    }
    assert kinds(render()) == default
    assert kinds(render(VARIANTS["dev-postgres"])) - default == {
        ("Secret", "bus-pgmq-bus-dev-postgres"),
        ("Service", "bus-pgmq-bus-dev-postgres"),
        ("StatefulSet", "bus-pgmq-bus-dev-postgres"),
    }
    with_cert_manager = kinds(render(VARIANTS["cert-manager"]))
    assert with_cert_manager - default == {
        ("Issuer", "bus-pgmq-bus-webhook-tls"),
        ("Certificate", "bus-pgmq-bus-webhook-tls"),
    }
    assert default - with_cert_manager == {
        ("Role", "bus-pgmq-bus-webhook-tls"),
        ("RoleBinding", "bus-pgmq-bus-webhook-tls"),
    }


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("bus", {}, "bus-pgmq-bus"),
        ("pgmq-bus", {}, "pgmq-bus"),
        ("bus", {"nameOverride": "messages"}, "bus-messages"),
        ("bus", {"fullnameOverride": "messages"}, "messages"),
        ("r" * 53, {}, "r" * 40),
    ],
)
def test_names(render: Render, release: str, values: dict[str, Any], name: str) -> None:
    manifests = render({**values, "devPostgres": {"enabled": True}}, release=release)
    assert [m["metadata"]["name"] for m in manifests.of("Deployment")] == [name]
    for manifest in manifests:
        assert manifest["metadata"]["name"].startswith(name)
        assert len(manifest["metadata"]["name"]) <= 63


@every_variant
def test_common_labels(render: Render, values: dict[str, Any]) -> None:
    for manifest in render(values):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "pgmq-bus"
        assert labels["app.kubernetes.io/instance"] == "bus"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


@every_variant
def test_selectors_find_their_pods_and_no_others(render: Render, values: dict[str, Any]) -> None:
    manifests = render(values)
    workloads = manifests.of("Deployment") + manifests.of("StatefulSet")
    pods = {m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"] for m in workloads}
    selectors = {m["metadata"]["name"]: m["spec"]["selector"]["matchLabels"] for m in workloads}
    selectors |= {
        m["metadata"]["name"].removesuffix("-webhook").removesuffix("-metrics"): m["spec"]["selector"]
        for m in manifests.of("Service")
    }
    assert selectors.keys() == pods.keys()
    for (name, selector), (pod, labels) in itertools.product(selectors.items(), pods.items()):
        assert (selector.items() <= labels.items()) == (name == pod)


def test_operator_environment(render: Render) -> None:
    expected = {
        "BUS_OPERATOR_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "BUS_POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "BUS_LEASE_NAME": "bus-pgmq-bus",
        "BUS_SERVICE_ACCOUNT": "bus-pgmq-bus",
        "BUS_WEBHOOK_SERVICE": "bus-pgmq-bus-webhook",
        "BUS_WEBHOOK_CONFIGURATION": "bus-pgmq-bus",
        "BUS_WEBHOOK_TLS_SECRET": "bus-pgmq-bus-webhook-tls",
        "BUS_WEBHOOK_PORT": "9443",
        "BUS_HEALTH_PORT": "8080",
        "BUS_METRICS_PORT": "8081",
        "BUS_METRICS_MAX_CHANNELS": "1000",
        "BUS_LOG_LEVEL": "INFO",
        "BUS_LOG_FORMAT": "text",
        "BUS_RESYNC_SECONDS": "60",
        "BUS_CREDENTIAL_UNUSED_SECONDS": "120",
        "BUS_VERIFICATION_INTERVAL_SECONDS": "3600",
        "BUS_RUNTIME_IMAGE": operator_pod(render())["containers"][0]["image"],
        "BUS_RUNTIME_PULL_POLICY": "IfNotPresent",
    }
    assert environment(render()) == expected
    changed = {
        "BUS_WEBHOOK_CERT_DIR": "/etc/pgmq-bus/webhook-tls",
        "BUS_LOG_LEVEL": "DEBUG",
        "BUS_LOG_FORMAT": "json",
        "BUS_RESYNC_SECONDS": "5",
        "BUS_CREDENTIAL_UNUSED_SECONDS": "300",
        "BUS_VERIFICATION_INTERVAL_SECONDS": "7200",
    }
    assert environment(render(VARIANTS["all"])) == expected | changed


def test_where_pods_get_the_runtime_from(render: Render) -> None:
    mine = {"repository": "registry.example/bus", "tag": "1.2", "pullPolicy": "Always"}
    env = environment(render({"image": mine}))
    assert (env["BUS_RUNTIME_IMAGE"], env["BUS_RUNTIME_PULL_POLICY"]) == ("registry.example/bus:1.2", "Always")
    other = "mirror.example/bus@sha256:" + "0" * 64
    assert environment(render({"runtimeInjection": {"image": other}}))["BUS_RUNTIME_IMAGE"] == other
    assert not [name for name in environment(render({"runtimeInjection": {"enabled": False}})) if "RUNTIME" in name]


@every_variant
def test_names_in_the_environment_exist(render: Render, values: dict[str, Any]) -> None:
    manifests = render(values)
    env = environment(manifests)
    service = manifests.one("Service", env["BUS_WEBHOOK_SERVICE"])
    webhook = manifests.one("MutatingWebhookConfiguration", env["BUS_WEBHOOK_CONFIGURATION"])
    assert manifests.one("ServiceAccount", env["BUS_SERVICE_ACCOUNT"])
    assert manifests.one("ClusterRole", env["BUS_SERVICE_ACCOUNT"] + "-secrets")
    assert webhook["webhooks"][0]["clientConfig"]["service"]["name"] == service["metadata"]["name"]
    ports = {port["name"]: port["containerPort"] for port in operator_pod(manifests)["containers"][0]["ports"]}
    variables = {"webhook": "BUS_WEBHOOK_PORT", "health": "BUS_HEALTH_PORT", "metrics": "BUS_METRICS_PORT"}
    assert ports == {name: int(env[variable]) for name, variable in variables.items()}
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "webhook"}]


def test_operator_pod(render: Render) -> None:
    manifests = render()
    spec = operator_pod(manifests)
    (container,) = spec["containers"]
    version = manifests.one("Deployment", "bus-pgmq-bus")["metadata"]["labels"]["app.kubernetes.io/version"]
    assert container["image"] == f"pgmq-bus:{version}"
    assert container["command"] == ["bus-operator"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["serviceAccountName"] == "bus-pgmq-bus"
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_operator_pod_options(render: Render) -> None:
    values = VARIANTS["all"] | {"image": {"repository": "example.org/bus", "tag": "2.0"}}
    manifests = render(values)
    spec = operator_pod(manifests)
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert spec[name] == values[name]
    metadata = manifests.one("Deployment", "bus-pgmq-bus")["spec"]["template"]["metadata"]
    assert metadata["annotations"] == values["podAnnotations"]
    assert metadata["labels"]["team"] == "bus"
    assert spec["containers"][0]["image"] == "example.org/bus:2.0"
    account = manifests.one("ServiceAccount", "bus-pgmq-bus")
    assert account["metadata"]["annotations"] == {"example.org/role": "bus"}


def test_an_image_by_its_digest(render: Render) -> None:
    """In every pod of the chart's but the development PostgreSQL, and in those that bus_runtime is injected into."""
    pinned = "example.org/bus@sha256:" + "0a" * 32
    repository, _, digest = pinned.partition("@")
    manifests = render(VARIANTS["all"] | {"image": {"repository": repository, "tag": "2.0", "digest": digest}})
    images = [container["image"] for spec in pod_specs(manifests) for container in spec["containers"]]
    # The operator, the hooks before an upgrade and after an uninstallation, and helm test.
    assert sorted(images) == [*[pinned] * 4, "postgres:17"]
    assert environment(manifests)["BUS_RUNTIME_IMAGE"] == pinned


@every_variant
def test_no_pod_of_the_chart_needs_the_webhook(render: Render, values: dict[str, Any]) -> None:
    """Whatever BusChannels select: the webhook is the operator's own."""
    manifests = render(values)
    workloads = [manifest for kind in ("Deployment", "StatefulSet", "Job") for manifest in manifests.of(kind)]
    assert len(workloads) >= 3
    for pod in [*(workload["spec"]["template"] for workload in workloads), *manifests.of("Pod")]:
        assert pod["metadata"]["labels"]["pgmqbus.dev/inject"] == "false"


@every_variant
def test_the_operator_may_change_its_own_webhook_configuration(render: Render, values: dict[str, Any]) -> None:
    """Also if somebody else sees to the authority: the namespaces where BusChannels select pods are its business."""
    manifests = render(values)
    own = ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "bus-pgmq-bus")
    assert {right for right in rules(manifests, "ClusterRole", "bus-pgmq-bus") if right[:2] == own[:2]} == {
        (*own, "get"),
        (*own, "patch"),
    }


@every_variant
def test_pods_satisfy_the_restricted_profile(render: Render, values: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root."""
    for spec in pod_specs(render(values)):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all({"emptyDir", "secret"} & volume.keys() for volume in spec.get("volumes", ()))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_webhook(render: Render) -> None:
    configuration = render().one("MutatingWebhookConfiguration", "bus-pgmq-bus")
    assert "annotations" not in configuration["metadata"]
    assert configuration["webhooks"] == [
        {
            "name": "inject.pgmqbus.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {
                    "name": "bus-pgmq-bus-webhook",
                    "namespace": "bus-system",
                    "path": "/mutate-pods",
                    "port": 443,
                }
            },
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                    "operations": ["CREATE"],
                    "scope": "Namespaced",
                }
            ],
            "objectSelector": {"matchLabels": {"pgmqbus.dev/inject": "true"}},
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
                ]
            },
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
    ]


def test_cert_manager(render: Render) -> None:
    manifests = render(VARIANTS["cert-manager"])
    certificate = manifests.one("Certificate", "bus-pgmq-bus-webhook-tls")["spec"]
    assert certificate["dnsNames"][0] == "bus-pgmq-bus-webhook.bus-system.svc"
    assert manifests.one("Issuer", certificate["issuerRef"]["name"])["spec"] == {"selfSigned": {}}
    configuration = manifests.one("MutatingWebhookConfiguration", "bus-pgmq-bus")
    assert configuration["metadata"]["annotations"] == {
        "cert-manager.io/inject-ca-from": "bus-system/bus-pgmq-bus-webhook-tls"
    }
    spec = operator_pod(manifests)
    (mount,) = (m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "webhook-tls")
    assert mount["mountPath"] == environment(manifests)["BUS_WEBHOOK_CERT_DIR"]
    (volume,) = (v for v in spec["volumes"] if v["name"] == "webhook-tls")
    assert volume["secret"] == {"secretName": certificate["secretName"]}


def rules(manifests: Any, kind: str, name: str) -> list[tuple[str, str, str, str]]:
    """(API group, resource, resource name or *, verb), one for each right of a role."""
    return [
        (group, resource, name, verb)
        for rule in manifests.one(kind, name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    ]


DEFINITIONS = {
    ("apiextensions.k8s.io", "customresourcedefinitions", f"{plural}.pgmqbus.dev", "get")
    for plural in ("buschannels", "busdatabases")
}


def test_cluster_wide_rights(render: Render) -> None:
    bus = [
        ("pgmqbus.dev", r, "*", v) for r in ("busdatabases", "buschannels") for v in ("get", "list", "watch", "patch")
    ]
    assert set(rules(render(), "ClusterRole", "bus-pgmq-bus")) == {
        *bus,
        ("pgmqbus.dev", "busdatabases/status", "*", "patch"),
        ("pgmqbus.dev", "buschannels/status", "*", "patch"),
        *(("", "namespaces", "*", verb) for verb in ("get", "list", "watch")),
        ("", "events", "*", "create"),
        ("", "pods", "*", "list"),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "bus-pgmq-bus", "get"),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "bus-pgmq-bus", "patch"),
        *DEFINITIONS,
    }


@every_variant
def test_no_right_to_secrets_holds_cluster_wide(render: Render, values: dict[str, Any]) -> None:
    manifests = render(values)
    with_secrets = {
        role["metadata"]["name"]
        for role in manifests.of("ClusterRole")
        if any(resource in {"secrets", "*"} for rule in role["rules"] for resource in rule["resources"])
    }
    bound = {binding["roleRef"]["name"] for binding in manifests.of("ClusterRoleBinding")}
    aggregated = {
        role["metadata"]["name"]
        for role in manifests.of("ClusterRole")
        if any(label.startswith("rbac.authorization") for label in role["metadata"]["labels"])
    }
    assert with_secrets == {"bus-pgmq-bus-secrets"}
    hooks = {f"bus-pgmq-bus-{hook}" for hook in ("definitions", "uninstall", "test")}
    assert bound == {"bus-pgmq-bus", *hooks}
    assert not with_secrets & (bound | aggregated)


@pytest.mark.parametrize(
    ("listed", "release_namespace", "bound"),
    [
        (["default"], "bus-system", {"default", "bus-system"}),
        (["default", "shop"], "bus-system", {"default", "shop", "bus-system"}),
        ([], "bus-system", {"bus-system"}),
        (["default"], "default", {"default"}),
    ],
)
def test_secrets_are_granted_namespace_by_namespace(
    render: Render, listed: list[str], release_namespace: str, bound: set[str]
) -> None:
    manifests = render({"secretNamespaces": listed}, namespace=release_namespace)
    bindings = [b for b in manifests.of("RoleBinding") if b["roleRef"]["name"] == "bus-pgmq-bus-secrets"]
    assert sorted(binding["metadata"]["namespace"] for binding in bindings) == sorted(bound)
    for binding in bindings:
        assert binding["roleRef"]["kind"] == "ClusterRole"
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "bus-pgmq-bus", "namespace": release_namespace}
        ]


def test_rights_to_secrets_where_granted(render: Render) -> None:
    assert {verb for *_, verb in rules(render(), "ClusterRole", "bus-pgmq-bus-secrets")} == {
        "get",
        "watch",
        "create",
        "patch",
    }


def test_webhook_certificate_rights(render: Render) -> None:
    tls = "bus-pgmq-bus-webhook-tls"
    assert set(rules(render(), "Role", tls)) == {
        ("", "secrets", tls, "get"),
        ("", "secrets", tls, "patch"),
        ("", "secrets", "*", "create"),
    }


def test_definitions_are_upgraded(render: Render) -> None:
    """Before everything else, with rights to these two alone."""
    name = "bus-pgmq-bus-definitions"
    manifests = render()
    hooks = {(m["kind"], m["metadata"]["annotations"]["helm.sh/hook-weight"]) for m in manifests if name in str(m)}
    assert hooks == {("ServiceAccount", "-2"), ("ClusterRole", "-2"), ("ClusterRoleBinding", "-1"), ("Job", "0")}
    for manifest in (m for m in manifests if m["metadata"]["name"] == name):
        annotations = manifest["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert set(rules(manifests, "ClusterRole", name)) == {
        ("apiextensions.k8s.io", "customresourcedefinitions", f"{plural}.pgmqbus.dev", verb)
        for plural in ("buschannels", "busdatabases")
        for verb in ("get", "patch")
    }
    pod = manifests.one("Job", name)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == name
    (container,) = pod["containers"]
    assert container["image"] == operator_pod(manifests)["containers"][0]["image"]
    assert container["command"] == ["busctl", "upgrade-definitions"]
    assert kinds(manifests) - kinds(render({"crds": {"upgrade": False}})) == {(kind, name) for kind, _ in hooks}


def test_the_test_of_an_installation(render: Render) -> None:
    """helm test, with rights to read what it looks at, by name, and no others."""
    name = "bus-pgmq-bus-test"
    manifests = render()
    of_test = [manifest for manifest in manifests if manifest["metadata"]["name"] == name]
    assert kinds(of_test) == OF_TEST
    for manifest in of_test:
        # helm test --logs wants the log of every hook. The pod stays, for its log.
        hook = {"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation"}
        assert manifest["metadata"].get("annotations", {}) == (hook if manifest["kind"] == "Pod" else {})
    assert set(rules(manifests, "ClusterRole", name)) == {
        *DEFINITIONS,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "bus-pgmq-bus", "get"),
    }
    assert rules(manifests, "Role", name) == [("coordination.k8s.io", "leases", "bus-pgmq-bus", "get")]
    pod = manifests.one("Pod", name)["spec"]
    assert pod["serviceAccountName"] == name
    (container,) = pod["containers"]
    assert container["image"] == operator_pod(manifests)["containers"][0]["image"]
    assert container["command"] == ["busctl", "check-installation"]
    url = "http://bus-pgmq-bus-metrics.bus-system.svc:8081/metrics"
    assert container["args"] == ["--name=bus-pgmq-bus", "--namespace=bus-system", f"--metrics={url}", "--wait=60"]


@pytest.mark.parametrize("metrics", [{"enabled": False}, {"networkPolicy": {"enabled": True}}])
def test_metrics_that_a_test_may_not_read_are_left_alone(render: Render, metrics: dict[str, Any]) -> None:
    (container,) = render({"metrics": metrics}).one("Pod", "bus-pgmq-bus-test")["spec"]["containers"]
    assert not any(argument.startswith("--metrics") for argument in container["args"])


def test_scope(render: Render) -> None:
    """With a list of namespaces nearly all rights are Roles in those."""
    manifests = render({"scope": {"namespaces": ["shop", "depot"]}})
    own = ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "bus-pgmq-bus")
    assert set(rules(manifests, "ClusterRole", "bus-pgmq-bus")) == {
        *(("", "namespaces", name, "get") for name in ("kube-system", "shop", "depot")),
        (*own, "get"),
        (*own, "patch"),
        *DEFINITIONS,
    }
    for name in ("bus-pgmq-bus", "bus-pgmq-bus-uninstall"):
        for kind in ("Role", "RoleBinding"):
            found = {m["metadata"]["namespace"] for m in manifests.of(kind) if m["metadata"]["name"] == name}
            assert found == {"shop", "depot"}
    bound = {m["metadata"]["name"] for m in manifests.of("ClusterRoleBinding")}
    assert bound == {"bus-pgmq-bus", "bus-pgmq-bus-definitions", "bus-pgmq-bus-test"}
    secrets = {m["metadata"]["namespace"] for m in manifests.of("RoleBinding") if "-secrets" in m["metadata"]["name"]}
    assert secrets == {"shop", "depot", "bus-system"}
    assert environment(manifests)["BUS_NAMESPACES"] == "shop,depot"
    (webhook,) = manifests.one("MutatingWebhookConfiguration", "bus-pgmq-bus")["webhooks"]
    assert webhook["namespaceSelector"]["matchExpressions"] == [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "depot"]}
    ]
    (container,) = manifests.one("Job", "bus-pgmq-bus-uninstall")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--namespace=shop", "--namespace=depot"]


def test_uninstalling(render: Render) -> None:
    """After everything else is gone, with rights of its own, and no trace is left of what succeeded."""
    name = "bus-pgmq-bus-uninstall"
    manifests = render()
    hooks = {(m["kind"], m["metadata"]["annotations"]["helm.sh/hook-weight"]) for m in manifests if name in str(m)}
    assert hooks == {("ServiceAccount", "-2"), ("ClusterRole", "-2"), ("ClusterRoleBinding", "-1"), ("Job", "0")}
    for manifest in (m for m in manifests if m["metadata"]["name"] == name):
        annotations = manifest["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "post-delete"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert set(rules(manifests, "ClusterRole", name)) == {
        ("pgmqbus.dev", "buschannels", "*", verb) for verb in ("list", "get", "patch")
    }
    pod = manifests.one("Job", name)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == name
    (container,) = pod["containers"]
    assert container["image"] == operator_pod(manifests)["containers"][0]["image"]
    assert container["command"] + container["args"] == ["busctl", "release-finalizers", "--all-namespaces"]
    assert kinds(manifests) - kinds(render({"uninstall": {"releaseFinalizers": False}})) == {
        (kind, name) for kind, _ in hooks
    }


@pytest.mark.parametrize("replicas", [1, 2, 9])
def test_replicas(render: Render, replicas: int) -> None:
    """Nodes can be drained, a single node is enough, and an upgrade never leaves the webhook without a pod."""
    manifests = render({"replicas": replicas})
    spec = manifests.one("Deployment", "bus-pgmq-bus")["spec"]
    assert spec["replicas"] == replicas
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = spec["selector"]["matchLabels"]
    constraints = spec["template"]["spec"]["topologySpreadConstraints"]
    assert {item["topologyKey"] for item in constraints} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for item in constraints:
        assert item["whenUnsatisfiable"] == "ScheduleAnyway"
        assert item["labelSelector"]["matchLabels"] == labels
    budgets = manifests.of("PodDisruptionBudget")
    assert len(budgets) == (replicas > 1)
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"] == labels


def test_lease_rights(render: Render) -> None:
    manifests = render()
    lease = environment(manifests)["BUS_LEASE_NAME"]
    assert set(rules(manifests, "Role", "bus-pgmq-bus-lease")) == {
        ("coordination.k8s.io", "leases", lease, "get"),
        ("coordination.k8s.io", "leases", lease, "patch"),
        ("coordination.k8s.io", "leases", "*", "create"),
    }


def test_users_rights(render: Render) -> None:
    manifests = render()
    aggregation = {
        role["metadata"]["name"]: {
            label.removeprefix("rbac.authorization.k8s.io/aggregate-to-")
            for label in role["metadata"]["labels"]
            if label.startswith("rbac.authorization.k8s.io/")
        }
        for role in manifests.of("ClusterRole")
    }
    assert aggregation["bus-pgmq-bus-view"] == {"view", "edit", "admin"}
    assert aggregation["bus-pgmq-bus-edit"] == {"edit", "admin"}
    assert {verb for *_, verb in rules(manifests, "ClusterRole", "bus-pgmq-bus-view")} == {
        "get",
        "list",
        "watch",
    }
    assert {resource for _, resource, *_ in rules(manifests, "ClusterRole", "bus-pgmq-bus-edit")} == {"buschannels"}


def test_dev_postgres(render: Render) -> None:
    manifests = render({"devPostgres": {"enabled": True, "image": "example.org/pg:18", "runAsUser": 70}})
    name = "bus-pgmq-bus-dev-postgres"
    secret = manifests.one("Secret", name)["stringData"]
    password = secret["password"]
    assert len(password) == 32
    assert secret["uri"] == f"postgresql://postgres:{password}@{name}.bus-system.svc:5432/bus?sslmode=disable"
    pod = manifests.one("StatefulSet", name)["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "example.org/pg:18"
    assert {entry["name"]: entry.get("value") for entry in container["env"]} == {
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": None,
        "POSTGRES_DB": "bus",
        "PGDATA": "/pgdata/data",
    }
    assert container["env"][1]["valueFrom"] == {"secretKeyRef": {"name": name, "key": "password"}}
    assert container["readinessProbe"]["exec"]["command"][0] == "pg_isready"
    assert pod["spec"]["securityContext"]["runAsUser"] == pod["spec"]["securityContext"]["fsGroup"] == 70
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert password not in str(pod)


def test_dev_postgres_pod_survives_an_upgrade_of_the_chart(render: Render) -> None:
    """A changed pod template would replace the pod, and the data with it."""
    manifests = render(VARIANTS["dev-postgres"])
    pod = manifests.one("StatefulSet", "bus-pgmq-bus-dev-postgres")["spec"]["template"]
    assert "app.kubernetes.io/version" not in pod["metadata"]["labels"]
    assert "helm.sh/chart" not in pod["metadata"]["labels"]
    assert "annotations" not in pod["metadata"]
