"""Pods before and after the patch, which is applied as the API server does (RFC 6902, package jsonpatch)."""

import copy
import re
from typing import Any

import jsonpatch
import pytest

from bus_operator.injection import PodBinding, inject, volume_name
from bus_operator.pod_requests import MalformedPodError

ORDERS = PodBinding("orders", "orders-bus")
AUDIT = PodBinding("audit", "audit-custom")

ORDERS_VOLUME = {"name": "pgmqbus-orders", "secret": {"secretName": "orders-bus"}}
ORDERS_MOUNT = {"name": "pgmqbus-orders", "mountPath": "/bindings/orders", "readOnly": True}
ROOT = {"name": "SERVICE_BINDING_ROOT", "value": "/bindings"}
ADDRESS = {"name": "PGMQ_BUS_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}

Pod = dict[str, Any]


def pod(*containers: Pod, **spec: Any) -> Pod:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": {"pgmqbus.dev/channels": "orders,audit"}},
        "spec": {"containers": list(containers or [{"name": "app", "image": "app"}]), **spec},
    }


def injected(before: Pod, *bindings: PodBinding) -> Pod:
    """The patched pod, with checks that hold for every patch: input untouched, valid, idempotent."""
    original = copy.deepcopy(before)
    injection = inject(before, bindings)
    assert before == original
    after: Pod = jsonpatch.JsonPatch(list(injection.patch)).apply(before)
    assert_valid(after)
    assert inject(after, bindings).patch == ()
    return after


def assert_valid(pod: Pod) -> None:
    """The rules of the API server's pod validation that a bad patch could break."""
    volumes = [volume["name"] for volume in pod["spec"].get("volumes") or []]
    assert len(set(volumes)) == len(volumes)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in volumes)
    for container in (pod["spec"].get("initContainers") or []) + (pod["spec"].get("containers") or []):
        paths = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        assert len(set(paths)) == len(paths)
        assert all(":" not in path for path in paths)
        assert {mount["name"] for mount in container.get("volumeMounts") or []} <= set(volumes)


def test_a_bare_pod_gets_volume_mount_variable_and_annotation() -> None:
    assert injected({"spec": {"containers": [{"name": "app"}]}}, ORDERS) == {
        "metadata": {"annotations": {"pgmqbus.dev/injected": "orders"}},
        "spec": {
            "containers": [{"name": "app", "env": [ROOT, ADDRESS], "volumeMounts": [ORDERS_MOUNT]}],
            "volumes": [ORDERS_VOLUME],
        },
    }


def test_every_container_init_container_and_sidecar_gets_every_binding() -> None:
    after = injected(
        pod(
            {"name": "app"},
            {"name": "proxy"},
            initContainers=[{"name": "migrate"}, {"name": "logs", "restartPolicy": "Always"}],
        ),
        ORDERS,
        AUDIT,
    )
    audit_mount = {"name": "pgmqbus-audit", "mountPath": "/bindings/audit", "readOnly": True}
    expected = {"env": [ROOT, ADDRESS], "volumeMounts": [ORDERS_MOUNT, audit_mount]}
    assert after["spec"]["containers"] == [{"name": "app", **expected}, {"name": "proxy", **expected}]
    assert after["spec"]["initContainers"] == [
        {"name": "migrate", **expected},
        {"name": "logs", "restartPolicy": "Always", **expected},
    ]
    assert after["spec"]["volumes"] == [
        ORDERS_VOLUME,
        {"name": "pgmqbus-audit", "secret": {"secretName": "audit-custom"}},
    ]
    assert after["metadata"]["annotations"] == {
        "pgmqbus.dev/channels": "orders,audit",
        "pgmqbus.dev/injected": "orders,audit",
    }


@pytest.mark.parametrize("absent", [None, []])
def test_null_and_empty_lists_are_as_absent_ones(absent: list[Any] | None) -> None:
    before = pod({"name": "app", "env": absent, "volumeMounts": absent}, volumes=absent, initContainers=absent)
    before["metadata"]["annotations"] = None
    after = injected(before, ORDERS)
    assert after["spec"]["containers"] == [{"name": "app", "env": [ROOT, ADDRESS], "volumeMounts": [ORDERS_MOUNT]}]
    assert after["spec"]["volumes"] == [ORDERS_VOLUME]
    assert after["metadata"]["annotations"] == {"pgmqbus.dev/injected": "orders"}


def test_what_the_pod_has_stays_in_place() -> None:
    data = {"name": "data", "emptyDir": {}}
    after = injected(
        pod(
            {
                "name": "app",
                "env": [{"name": "URI_FILE", "value": "$(SERVICE_BINDING_ROOT)/orders/uri"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            volumes=[data],
        ),
        ORDERS,
    )
    assert after["spec"]["volumes"] == [data, ORDERS_VOLUME]
    assert after["spec"]["containers"][0] == {
        "name": "app",
        # First, since a variable can only refer to one before it.
        "env": [ROOT, ADDRESS, {"name": "URI_FILE", "value": "$(SERVICE_BINDING_ROOT)/orders/uri"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, ORDERS_MOUNT],
    }


@pytest.mark.parametrize(
    ("root", "mounted_at"),
    [
        ("/bindings", "/bindings/orders"),
        ("/platform/bindings/", "/platform/bindings/orders"),
        ("//platform/./bindings", "/platform/bindings/orders"),
        ("/", "/orders"),
    ],
)
def test_a_containers_own_root_is_respected(root: str, mounted_at: str) -> None:
    own = {"name": "SERVICE_BINDING_ROOT", "value": root}
    after = injected(pod({"name": "app", "env": [own]}, {"name": "other"}), ORDERS)
    app, other = after["spec"]["containers"]
    assert app["env"] == [ADDRESS, own]
    assert [mount["mountPath"] for mount in app["volumeMounts"]] == [mounted_at]
    assert other["volumeMounts"] == [ORDERS_MOUNT]
    assert after["spec"]["volumes"] == [ORDERS_VOLUME]


@pytest.mark.parametrize("own", [{"value": "10.0.0.1"}, {"valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}])
def test_a_containers_own_address_is_respected(own: dict[str, Any]) -> None:
    own = {"name": "PGMQ_BUS_ADDRESS", **own}
    after = injected(pod({"name": "app", "env": [own]}, {"name": "other"}), ORDERS)
    app, other = after["spec"]["containers"]
    assert app["env"] == [ROOT, own]
    assert other["env"] == [ROOT, ADDRESS]


def test_of_two_roots_the_last_is_what_the_program_sees() -> None:
    env = [{"name": "SERVICE_BINDING_ROOT", "value": value} for value in ("/first", "/last")]
    after = injected(pod({"name": "app", "env": env}), ORDERS)
    assert after["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == "/last/orders"


@pytest.mark.parametrize(
    "variable",
    [
        {"valueFrom": {"configMapKeyRef": {"name": "settings", "key": "root"}}},
        {"value": "$(HOME_DIR)/bindings"},
        {"value": "bindings"},
        {"value": "/a:b"},
        {"value": ""},
        {},
    ],
)
def test_a_root_that_cannot_be_known_or_used_excludes_the_container(variable: Pod) -> None:
    unknown = {"name": "app", "env": [{"name": "SERVICE_BINDING_ROOT", **variable}]}
    warning = (
        "container app: no bus binding mounted, SERVICE_BINDING_ROOT must be a literal absolute path"
        " or absent (then it is /bindings)"
    )

    alone = pod(unknown)
    assert injected(alone, ORDERS) == alone, "neither volume nor annotation when no container gets the binding"
    assert inject(alone, [ORDERS]).warnings == (warning,)

    both = pod(unknown, {"name": "other"})
    after = injected(both, ORDERS)
    assert after["spec"]["containers"][0] == unknown
    assert after["spec"]["containers"][1]["volumeMounts"] == [ORDERS_MOUNT]
    assert after["metadata"]["annotations"]["pgmqbus.dev/injected"] == "orders"
    assert inject(both, [ORDERS]).warnings == (warning,)


@pytest.mark.parametrize("path", ["/bindings/orders", "/bindings/orders/", "bindings/orders"])
def test_a_mount_at_the_path_is_left_alone(path: str) -> None:
    mount = {"name": "by-hand", "mountPath": path}
    volume = {"name": "by-hand", "projected": {"sources": [{"secret": {"name": "elsewhere"}}]}}
    after = injected(pod({"name": "app", "volumeMounts": [mount]}, volumes=[volume]), ORDERS)
    assert after["spec"]["containers"] == [{"name": "app", "env": [ROOT, ADDRESS], "volumeMounts": [mount]}]
    assert after["spec"]["volumes"] == [volume]
    assert after["metadata"]["annotations"]["pgmqbus.dev/injected"] == "orders"


def test_a_volume_of_the_secret_is_reused() -> None:
    volume = {"name": "mine", "secret": {"secretName": "orders-bus", "defaultMode": 0o440}}
    elsewhere = {"name": "mine", "mountPath": "/etc/orders"}
    after = injected(pod({"name": "app", "volumeMounts": [elsewhere]}, volumes=[volume]), ORDERS)
    assert after["spec"]["volumes"] == [volume]
    assert after["spec"]["containers"][0]["volumeMounts"] == [
        elsewhere,
        {"name": "mine", "mountPath": "/bindings/orders", "readOnly": True},
    ]


@pytest.mark.parametrize(
    "secret", [{"items": [{"key": "uri", "path": "uri"}]}, {"optional": True}, {"secretName": "another"}]
)
def test_a_volume_that_is_not_the_whole_required_secret_is_not_reused(secret: Pod) -> None:
    volume = {"name": "mine", "secret": {"secretName": "orders-bus", **secret}}
    after = injected(pod(volumes=[volume]), ORDERS)
    assert after["spec"]["volumes"] == [volume, ORDERS_VOLUME]


def test_a_taken_volume_name_is_avoided() -> None:
    volume = {"name": "pgmqbus-orders", "emptyDir": {}}
    after = injected(pod(volumes=[volume]), ORDERS)
    added = after["spec"]["volumes"][1]
    assert added["secret"] == {"secretName": "orders-bus"}
    assert added["name"].startswith("pgmqbus-orders-")
    assert after["spec"]["containers"][0]["volumeMounts"][0]["name"] == added["name"]


@pytest.mark.parametrize(
    ("mount", "volume"),
    [
        ({"mountPath": "/bindings"}, {"secret": {"secretName": "all"}}),
        ({"mountPath": "/bindings/"}, {"configMap": {"name": "all"}}),
        ({"mountPath": "/bindings"}, {"projected": {"sources": []}}),
        ({"mountPath": "/bindings", "readOnly": True}, {"emptyDir": {}}),
    ],
)
def test_no_mount_inside_a_read_only_one(mount: Pod, volume: Pod) -> None:
    """The runtime could not create the directory: the container would not start."""
    container = {"name": "app", "volumeMounts": [{"name": "all", **mount}]}
    before = pod(container, {"name": "other"}, volumes=[{"name": "all", **volume}])
    after = injected(before, ORDERS)
    assert after["spec"]["containers"][0] == container
    assert after["spec"]["containers"][1]["volumeMounts"] == [ORDERS_MOUNT]
    assert inject(before, [ORDERS]).warnings == (
        "container app: binding orders not mounted, its parent /bindings is a read-only mount",
    )


def test_a_mount_inside_a_writable_one_or_beside_a_read_only_one_is_made() -> None:
    mounts = [{"name": "work", "mountPath": "/bindings"}, {"name": "ro", "mountPath": "/bindings/ord"}]
    volumes = [{"name": "work", "emptyDir": {}}, {"name": "ro", "secret": {"secretName": "x"}}]
    after = injected(pod({"name": "app", "volumeMounts": mounts}, volumes=volumes), ORDERS)
    assert after["spec"]["containers"][0]["volumeMounts"] == [*mounts, ORDERS_MOUNT]


def test_reinvocation_serves_a_container_that_another_webhook_added() -> None:
    after = injected(pod(), ORDERS)
    # What the API server's defaulting adds in between.
    after["spec"]["volumes"][0]["secret"]["defaultMode"] = 420
    assert inject(after, [ORDERS]).patch == ()
    after["spec"]["containers"].append({"name": "sidecar"})
    again = injected(after, ORDERS)
    assert again["spec"]["containers"][1] == {
        "name": "sidecar",
        "env": [ROOT, ADDRESS],
        "volumeMounts": [ORDERS_MOUNT],
    }
    assert len(again["spec"]["volumes"]) == 1


def test_a_stale_injected_annotation_is_corrected() -> None:
    before = pod()
    before["metadata"]["annotations"]["pgmqbus.dev/injected"] = "forged"
    assert injected(before, AUDIT)["metadata"]["annotations"]["pgmqbus.dev/injected"] == "audit"
    assert "pgmqbus.dev/injected" not in injected(before)["metadata"]["annotations"]


def test_nothing_asked_nothing_done() -> None:
    before = pod({"name": "app", "env": [{"name": "SERVICE_BINDING_ROOT", "valueFrom": {}}]})
    assert inject(before, []) == inject({}, [])
    assert inject(before, []).patch == ()
    assert inject(before, []).warnings == ()


@pytest.mark.parametrize("spec", [{}, {"containers": None}, {"containers": []}, None])
def test_a_pod_without_containers_is_left_to_the_api_server_to_refuse(spec: Pod | None) -> None:
    assert inject({"metadata": {}, "spec": spec}, [ORDERS]).patch == ()


def test_a_static_pods_mirror_is_not_patched() -> None:
    before = pod()
    before["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "hash"
    assert injected(before, ORDERS) == before
    assert inject(before, [ORDERS]).warnings == ("a static pod cannot use Secrets: no bus binding was injected",)


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        ({"spec": []}, "/spec is not an object"),
        ({"spec": {"containers": "app"}}, "/spec/containers is not a list of objects"),
        ({"spec": {"containers": [None]}}, "/spec/containers is not a list of objects"),
        ({"spec": {"containers": [{"env": {}}]}}, "/spec/containers/0/env is not a list of objects"),
        (
            {"spec": {"initContainers": [{}, {"volumeMounts": ["x"]}]}},
            "/spec/initContainers/1/volumeMounts is not a list of objects",
        ),
        ({"spec": {"volumes": 1, "containers": [{}]}}, "/spec/volumes is not a list of objects"),
        ({"metadata": {"annotations": "x"}}, "/metadata/annotations is not an object"),
    ],
)
def test_what_is_not_a_pod_is_named(malformed: Pod, message: str) -> None:
    with pytest.raises(MalformedPodError, match=f"^{re.escape(message)}$"):
        inject(malformed, [ORDERS])


LONG = "a" * 63


@pytest.mark.parametrize(
    ("channel", "pattern"),
    [
        ("orders", "pgmqbus-orders"),
        ("a" * 55, "pgmqbus-" + "a" * 55),
        ("a" * 56, "pgmqbus-a{44}-[0-9a-f]{10}"),
        (LONG, "pgmqbus-a{44}-[0-9a-f]{10}"),
        ("eu.orders", "pgmqbus-eu-orders-[0-9a-f]{10}"),
        ("a" * 43 + "." + "b" * 19, "pgmqbus-a{43}-[0-9a-f]{10}"),
    ],
)
def test_volume_names_are_labels(channel: str, pattern: str) -> None:
    assert re.fullmatch(pattern, volume_name(channel))
    assert len(volume_name(channel)) <= 63
    assert volume_name(channel) == volume_name(channel)


def test_similar_channels_get_volumes_of_their_own() -> None:
    names = ["eu.orders", "eu-orders", volume_name("eu.orders").removeprefix("pgmqbus-"), LONG, "a" * 62]
    after = injected(pod(), *(PodBinding(name, f"{name}-bus") for name in names))
    assert len(after["spec"]["volumes"]) == len(names)
    by_name = {volume["name"]: volume["secret"]["secretName"] for volume in after["spec"]["volumes"]}
    for mount in after["spec"]["containers"][0]["volumeMounts"]:
        assert by_name[mount["name"]] == mount["mountPath"].removeprefix("/bindings/") + "-bus"
