"""The webhook on generated pods and bodies: no pod is refused or broken, and no request keeps the others waiting."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import fuzzing
import jsonpatch
import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from bus_operator.injection import MAX_MOUNTS, MAX_WARNINGS, Injection, PodBinding, inject
from bus_operator.pod_requests import MalformedPodError, requested_channels
from bus_operator.runtime_injection import PYTHON_PATH, RuntimeImage
from bus_operator.webhook import PATH, make_app

Json = dict[str, Any]

RUNTIME = RuntimeImage("pgmq-bus:0.1.0", "0.1.0")

odd = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.sampled_from(["", "/", "a~b/c"]),
    lambda items: st.lists(items, max_size=2) | st.dictionaries(st.text(max_size=4), items, max_size=2),
    max_leaves=3,
)
volume_names = st.sampled_from(["data", "pgmqbus-orders", "pgmqbus-audit", "pgmqbus-a-b", "pgmq-bus-runtime", "~/x"])
paths = st.sampled_from(
    [
        "/",
        "/bindings",
        "/bindings/",
        "/bindings/orders",
        "//bindings//orders/.",
        "/bindings/../etc",
        "etc",
        "",
        "/a/b",
        "/pgmq-bus-runtime",
    ]
)
roots = paths | st.sampled_from(["/own//root/", "$(HOME)/b", "/a:b", "/" + "a" * 2000, "/\u2603", "/a\x00"])


def mostly(good: st.SearchStrategy[Any], one_in: int = 12) -> st.SearchStrategy[Any]:
    """Good ones, and now and then what nobody would write."""
    return st.integers(1, one_in).flatmap(lambda number: odd if number == one_in else good)


def members(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=optional)


def listed(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return mostly(st.lists(items, max_size=3) | st.none())


secrets = members(
    secretName=st.sampled_from(["orders-bus", "audit-bus"]), items=mostly(st.just([])), optional=st.booleans()
)
volumes = members(
    name=mostly(volume_names), secret=mostly(secrets), emptyDir=st.just({}), projected=mostly(st.just({}))
)
mounts = members(name=mostly(volume_names), mountPath=mostly(paths), readOnly=mostly(st.booleans()))
variables = members(
    name=st.sampled_from(["SERVICE_BINDING_ROOT", "PGMQ_BUS_ADDRESS", "PYTHONPATH", "X"]),
    value=mostly(roots),
    valueFrom=odd,
)
containers = members(
    name=mostly(st.sampled_from(["app", "app", "pgmq-bus-runtime"])), env=listed(variables), volumeMounts=listed(mounts)
)
channels = st.sampled_from(
    ["orders", "audit", "eu.orders", "a" * 63, "a" * 64, "Orders", "a/b", "~1", "", " ", "\u2603", "a\n"]
)
annotations = members(
    **{
        "pgmqbus.dev/channels": mostly(st.lists(channels, max_size=5).map(",".join)),
        "pgmqbus.dev/injected": mostly(st.sampled_from(["orders", "", "orders,audit"])),
        "pgmqbus.dev/inject-runtime": mostly(st.sampled_from(["true", "true", "false", ""])),
        "pgmqbus.dev/injected-runtime": mostly(st.sampled_from(["0.1.0", ""])),
        "kubernetes.io/config.mirror": st.just("x"),
        "other": st.just(""),
    }
)
labels = mostly(st.fixed_dictionaries({"pgmqbus.dev/inject": mostly(st.just("true"))}) | st.none())
pods = members(
    metadata=mostly(members(name=mostly(st.just("p")), labels=labels, annotations=mostly(annotations | st.none()))),
    spec=mostly(members(volumes=listed(volumes), containers=listed(containers), initContainers=listed(containers))),
)


def injected(pod: Json, selecting: tuple[str, ...]) -> Injection | None:
    try:
        asked = requested_channels(pod, selecting)
        bindings = [PodBinding(name, f"{name}-bus", optional=not asked.asked) for name in asked.channels]
        return inject(pod, bindings, with_runtime=asked.runtime, runtime=RUNTIME)
    except MalformedPodError:
        return None


@fuzzing.examples(400)
@given(pod=pods, selecting=st.sampled_from([(), ("orders",)]))
def test_a_patch_applies_once_and_takes_nothing_away(pod: Json, selecting: tuple[str, ...]) -> None:
    before = orjson.dumps(pod)
    injection = injected(pod, selecting)
    if injection is None:
        return
    assert all(0 < len(warning) <= 256 for warning in injection.warnings)
    after = jsonpatch.JsonPatch(json.loads(orjson.dumps(injection.patch))).apply(pod)
    assert orjson.dumps(pod) == before
    again = injected(after, selecting)
    assert again is not None
    assert again.patch == ()
    if not injection.patch:
        # As of a static pod's mirror, whose shape nobody has looked at then.
        return
    for kind in ("containers", "initContainers"):
        olds, news = ((each.get("spec") or {}).get(kind) or [] for each in (pod, after))
        # The one that copies the runtime comes first.
        assert len(news) - len(olds) in ((0, 1) if kind == "initContainers" else (0,))
        for old, new in zip(olds, news[len(news) - len(olds) :], strict=True):
            for field in ("env", "volumeMounts"):
                added = list(new.get(field) or ())
                for item in old.get(field) or ():
                    added.remove(item if item in added else item | {"value": extended(item)})
            targets = [mount.get("mountPath") for mount in added]
            assert len(targets) == len(set(map(str, targets)))
    assert (after.get("spec") or {}).keys() - (pod.get("spec") or {}).keys() <= {"volumes", "initContainers"}


def extended(variable: Json) -> str:
    """A PYTHONPATH with ours at its end."""
    assert variable["name"] == "PYTHONPATH"
    return ":".join(filter(None, [variable.get("value"), PYTHON_PATH]))


def review(pod: Any, **request: Any) -> Json:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "u", "kind": kind, "namespace": "shop", "operation": "CREATE", "object": pod, **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


async def resolve(_namespace: str, channel: str) -> str | None:
    return None if channel == "audit" else f"{channel}-bus"


async def select(_namespace: str, _labels: Mapping[str, str]) -> Sequence[str]:
    return ()


@pytest.fixture
async def client() -> Any:
    async with TestClient(TestServer(make_app(resolve, select, runtime=RUNTIME))) as client:
        yield client


bodies = (
    st.builds(review, mostly(pods, 4)).map(json.dumps).map(str.encode)
    | st.dictionaries(
        st.sampled_from(["uid", "kind", "namespace", "operation", "object", "subResource"]), odd, max_size=2
    ).map(lambda changes: json.dumps(review({}, **changes)).encode())
    | st.tuples(st.builds(review, pods), st.integers(0, 400)).map(lambda made: json.dumps(made[0]).encode()[: made[1]])
    | st.binary(max_size=30)
)


@fuzzing.examples(150)
@given(body=bodies)
async def test_a_body_is_answered_with_the_pod_let_through_or_told_to_be_malformed(body: bytes) -> None:
    async with TestClient(TestServer(make_app(resolve, select))) as client:
        answer = await client.post(PATH, data=body)
        text = await answer.text()
    assert answer.status in (200, 400), text
    if answer.status == 200:
        assert json.loads(text)["response"]["allowed"] is True
    else:
        assert text.startswith("malformed AdmissionReview: ")


LABELLED = {
    "labels": {"pgmqbus.dev/inject": "true"},
    "annotations": {"pgmqbus.dev/channels": ",".join(map("c{}".format, range(100)))},
}


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [{}] * 200_000},
        {"containers": [{"env": [{"name": "SERVICE_BINDING_ROOT", "value": "x"}]}] * 100},
        {
            "containers": [{"volumeMounts": [{"mountPath": "/", "name": "v"}] * 20_000}],
            "volumes": [{"name": "v"}] * 20_000,
        },
        {"containers": [{"volumeMounts": [{"mountPath": "/bindings", "name": "v"}]}] * 100, "volumes": [{}] * 50_000},
        {"containers": [{"env": [{"name": "SERVICE_BINDING_ROOT", "value": "/a" * 1_000_000}]}]},
        {"containers": [{"env": [{"name": "SERVICE_BINDING_ROOT", "value": "/" + "a" * 1000}]}] * 100},
        {"containers": [{}], "volumes": [{"secret": {"secretName": f"c{n}"}} for n in range(50_000)]},
    ],
    ids=["containers", "warnings", "mounts and volumes", "volumes", "deep root", "long root", "secrets"],
)
def test_a_huge_pod_costs_little(spec: Json) -> None:
    pod = {"metadata": LABELLED, "spec": spec}
    begun = time.process_time()
    injection = injected(pod, ())
    assert injection is not None
    assert time.process_time() - begun < 10
    assert len(injection.warnings) <= MAX_WARNINGS + 1
    assert len(injection.patch) <= 2 * MAX_MOUNTS
    assert len(orjson.dumps(injection.patch)) < 16 * 1024 * 1024


async def test_slow_clients_keep_nobody_waiting(client: Any) -> None:
    url = client.make_url(PATH)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode()
    writers = []
    for number in range(64):
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head[: -(number % 5) or None] + b"{" * (number % 3))
        writers.append(writer)
    async with aiohttp.ClientSession() as session, asyncio.timeout(5):
        for _ in range(20):
            async with session.post(url, json=review({"spec": {}})) as answer:
                assert answer.status == 200
    for writer in writers:
        writer.close()
