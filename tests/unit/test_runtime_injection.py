"""Pods that ask for bus_runtime, before and after the patch, which is applied as the API server does."""

import copy
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import pytest

from bus_operator import pods
from bus_operator.doctor.pod import CHECKS, PodFacts
from bus_operator.injection import PodBinding, inject
from bus_operator.pod_requests import requested_channels
from bus_operator.runtime_injection import RuntimeImage

Pod = dict[str, Any]

ORDERS = PodBinding("orders", "orders-bus")
IMAGE = RuntimeImage("registry.example/pgmq-bus:0.1.0", "0.1.0", "Always")
MOUNT = {"name": "pgmq-bus-runtime", "mountPath": "/pgmq-bus-runtime", "readOnly": True}
VARIABLE = {"name": "PYTHONPATH", "value": "/pgmq-bus-runtime/path"}
VOLUME = {"name": "pgmq-bus-runtime", "emptyDir": {"sizeLimit": "128Mi"}}
COPIER = {
    "name": "pgmq-bus-runtime",
    "image": "registry.example/pgmq-bus:0.1.0",
    "imagePullPolicy": "Always",
    "command": ["cp", "-Rf", "/opt/pgmq-bus-runtime/.", "/pgmq-bus-runtime/"],
    "resources": {
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "100m", "memory": "64Mi"},
    },
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "volumeMounts": [{"name": "pgmq-bus-runtime", "mountPath": "/pgmq-bus-runtime"}],
}


def pod(*containers: Pod, **spec: Any) -> Pod:
    return {"metadata": {"name": "web"}, "spec": {"containers": list(containers or [{"name": "app"}]), **spec}}


def injected(before: Pod, *bindings: PodBinding, warnings: tuple[str, ...] = ()) -> Pod:
    """The patched pod; a second look at it changes nothing and says the same."""
    original = copy.deepcopy(before)
    injection = inject(before, bindings, with_runtime=True, runtime=IMAGE)
    assert before == original
    assert injection.warnings == warnings
    after: Pod = jsonpatch.JsonPatch(list(injection.patch)).apply(before)
    again = inject(after, bindings, with_runtime=True, runtime=IMAGE)
    assert again.patch == ()
    assert again.warnings == warnings
    return after


def test_a_pod_gets_an_init_container_that_copies_a_volume_and_the_path_to_it() -> None:
    assert injected(pod()) == {
        "metadata": {"name": "web", "annotations": {"pgmqbus.dev/injected-runtime": "0.1.0"}},
        "spec": {
            "initContainers": [COPIER],
            "containers": [{"name": "app", "env": [VARIABLE], "volumeMounts": [MOUNT]}],
            "volumes": [VOLUME],
        },
    }


def test_it_comes_before_the_others_and_beside_bindings() -> None:
    after = injected(pod({"name": "app"}, {"name": "side"}, initContainers=[{"name": "migrate"}]), ORDERS)
    copier, migrate = after["spec"]["initContainers"]
    assert copier == COPIER
    assert [volume["name"] for volume in after["spec"]["volumes"]] == ["pgmqbus-orders", "pgmq-bus-runtime"]
    for container in (migrate, *after["spec"]["containers"]):
        assert [v["name"] for v in container["env"]] == ["SERVICE_BINDING_ROOT", "PGMQ_BUS_ADDRESS", "PYTHONPATH"]
        assert [m["mountPath"] for m in container["volumeMounts"]] == ["/bindings/orders", "/pgmq-bus-runtime"]
    assert after["metadata"]["annotations"] == {
        "pgmqbus.dev/injected": "orders",
        "pgmqbus.dev/injected-runtime": "0.1.0",
    }


@pytest.mark.parametrize(
    ("value", "extended"),
    [
        ("/app", "/app:/pgmq-bus-runtime/path"),
        # What is written there keeps its meaning: an empty part is the current directory.
        ("/app:", "/app::/pgmq-bus-runtime/path"),
        ("$(HOME)/lib", "$(HOME)/lib:/pgmq-bus-runtime/path"),
        ("", "/pgmq-bus-runtime/path"),
        ("/pgmq-bus-runtime/path:/app", "/pgmq-bus-runtime/path:/app"),
    ],
)
def test_a_containers_own_path_comes_first(value: str, extended: str) -> None:
    own = {"name": "app", "env": [{"name": "A", "value": "1"}, {"name": "PYTHONPATH", "value": value}]}
    (container,) = injected(pod(own), ORDERS)["spec"]["containers"]
    assert container["env"][-1] == {"name": "PYTHONPATH", "value": extended}
    assert [v["name"] for v in container["env"]] == ["SERVICE_BINDING_ROOT", "PGMQ_BUS_ADDRESS", "A", "PYTHONPATH"]


def test_of_two_paths_the_last_is_what_the_program_sees() -> None:
    own = [{"name": "PYTHONPATH", "value": "/a"}, {"name": "PYTHONPATH"}]
    (container,) = injected(pod({"name": "app", "env": own}))["spec"]["containers"]
    assert container["env"] == [own[0], VARIABLE]


def test_a_path_from_elsewhere_is_left_alone_and_told() -> None:
    own = {"name": "PYTHONPATH", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "path"}}}
    warning = (
        "container app: PYTHONPATH is not given in the pod, so bus_runtime is mounted and not found: add"
        " /pgmq-bus-runtime/path to the value where it comes from"
    )
    (container,) = injected(pod({"name": "app", "env": [own]}), warnings=(warning,))["spec"]["containers"]
    assert container == {"name": "app", "env": [own], "volumeMounts": [MOUNT]}


def test_something_else_at_the_place() -> None:
    own = {"name": "mine", "mountPath": "/pgmq-bus-runtime/"}
    before = pod({"name": "app", "volumeMounts": [own]}, {"name": "other"})
    warning = "container app: no bus_runtime, something else is mounted at /pgmq-bus-runtime"
    app, other = injected(before, warnings=(warning,))["spec"]["containers"]
    assert app == {"name": "app", "volumeMounts": [own]}
    assert other["volumeMounts"] == [MOUNT]
    alone = pod({"name": "app", "volumeMounts": [own]})
    assert injected(alone, warnings=(warning,)) == alone


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {"volumes": [{"name": "pgmq-bus-runtime", "configMap": {}}]},
            "the pod has a volume pgmq-bus-runtime of its own",
        ),
        (
            {"initContainers": [{"name": "pgmq-bus-runtime"}]},
            "the pod has an init container pgmq-bus-runtime of its own",
        ),
        ({"containers": [{"name": "pgmq-bus-runtime"}]}, "the pod has a container pgmq-bus-runtime of its own"),
        ({"os": {"name": "windows"}}, "it is for Linux"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "it is for Linux"),
    ],
)
def test_what_is_in_the_way_is_told_and_bindings_are_injected_all_the_same(spec: Pod, why: str) -> None:
    before = pod(**spec)
    after = injected(before, ORDERS, warnings=(f"bus_runtime was not injected: {why}",))
    without = inject(before, [ORDERS])
    assert after == jsonpatch.JsonPatch(list(without.patch)).apply(before)


def test_an_operator_that_injects_none() -> None:
    injection = inject(pod(), [], with_runtime=True)
    assert injection.patch == ()
    assert injection.warnings == (
        "bus_runtime was not injected: this operator injects none (the chart's runtimeInjection.enabled)",
    )


@pytest.mark.parametrize(
    ("own", "user"), [({"runAsUser": 0}, 65532), ({"runAsUser": 1000}, None), ({}, None), (None, None)]
)
def test_only_in_a_pod_of_roots_it_names_its_user(own: Pod | None, user: int | None) -> None:
    """Elsewhere it is the image's or the pod's: a platform that chooses users refuses others."""
    copier = injected(pod(securityContext=own))["spec"]["initContainers"][0]
    assert copier["securityContext"].get("runAsUser") == user


def test_a_container_that_another_webhook_adds_gets_it_too() -> None:
    after = injected(pod())
    after["spec"]["containers"].append({"name": "sidecar"})
    after["spec"]["initContainers"].insert(0, {"name": "network"})
    again = injected(after)["spec"]
    assert [c["name"] for c in again["initContainers"]] == ["network", "pgmq-bus-runtime"]
    assert again["initContainers"][1] == COPIER
    for container in (*again["containers"], again["initContainers"][0]):
        assert (container["env"], container["volumeMounts"]) == ([VARIABLE], [MOUNT])


def test_no_binding_of_any_name_takes_the_volumes_name() -> None:
    after = injected(pod(), PodBinding("runtime", "runtime-bus"))
    assert [volume["name"] for volume in after["spec"]["volumes"]] == ["pgmqbus-runtime", "pgmq-bus-runtime"]


@pytest.mark.parametrize(
    ("value", "runtime", "warned"),
    [("true", True, False), ("false", False, False), ("yes", False, True), ("", False, True), (True, False, True)],
)
@pytest.mark.parametrize("label", ["true", None])
def test_what_the_annotation_may_say(label: str | None, value: object, runtime: bool, warned: bool) -> None:
    metadata = {
        "labels": {"pgmqbus.dev/inject": label} if label else {},
        "annotations": {"pgmqbus.dev/channels": "orders", "pgmqbus.dev/inject-runtime": value},
    }
    request = requested_channels({"metadata": metadata}, ["orders"])
    assert (request.channels, request.runtime) == (("orders",), runtime)
    expected = 'annotation pgmqbus.dev/inject-runtime is neither "true" nor "false": bus_runtime is not injected'
    assert request.warnings == ((expected,) if warned else ())


@pytest.mark.parametrize("label", ["false", None])
def test_who_asks_for_no_injection_gets_no_runtime(label: str | None) -> None:
    metadata = {
        "labels": {"pgmqbus.dev/inject": label} if label else {},
        "annotations": {"pgmqbus.dev/inject-runtime": "true"},
    }
    assert not requested_channels({"metadata": metadata}).runtime


def test_it_is_for_pods_without_channels_as_well() -> None:
    metadata = {"labels": {"pgmqbus.dev/inject": "true"}, "annotations": {"pgmqbus.dev/inject-runtime": "true"}}
    request = requested_channels({"metadata": metadata})
    assert request.runtime
    assert "no BusChannel is named" in request.warnings[0]


@pytest.mark.parametrize(("injected", "state"), [({}, "failed"), ({"pgmqbus.dev/injected-runtime": "0.1.0"}, "ok")])
def test_the_doctor_names_a_pod_that_was_created_without(injected: dict[str, str], state: str) -> None:
    metadata = {
        "namespace": "shop",
        "name": "worker-1",
        "uid": "uid-1",
        "creationTimestamp": "2026-05-04T03:02:01Z",
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": "orders", "pgmqbus.dev/inject-runtime": "true", **injected},
    }
    now = datetime(2026, 5, 4, 4, tzinfo=UTC)
    facts = PodFacts(pods.Pod.from_body({"metadata": metadata}, lambda *_: ()), None, {"orders"}, None, now)
    found = {outcome.title: outcome for outcome in CHECKS.examine(facts)}["runtime"]
    assert found.state == state
    assert [finding.code for finding in found.findings] == (["RuntimeNotInjected"] if state == "failed" else [])
