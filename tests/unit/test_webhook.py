"""Real HTTPS requests to the running webhook, verified against its authority as strictly as Python can."""

import asyncio
import base64
import copy
import io
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import jsonpatch
import pytest

from bus_operator.certificates import CertificateBundle, plan_certificates, service_names
from bus_operator.runtime_injection import RuntimeImage
from bus_operator.serving_certificates import load_key_pair, new_server_context
from bus_operator.webhook import MAX_BODY_BYTES, WebhookServer, make_app

RUNTIME = RuntimeImage("pgmq-bus:0.1.0", "0.1.0")
NAMES = service_names("pgmq-bus", "bus-system")

Json = dict[str, Any]
Post = Callable[..., Awaitable[tuple[int, bytes]]]


def new_bundle() -> CertificateBundle:
    return plan_certificates(None, NAMES, datetime.now(UTC))


def trusting(bundle: CertificateBundle) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=bundle.ca_certificates.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


class Channels:
    """BusChannels as the operator knows them: (namespace, name) -> Secret, None or what is raised."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str | Exception] = {}
        self.asked: list[tuple[str, str]] = []
        self.hangs = False
        self.selecting: dict[str, tuple[str, ...]] = {}
        self.selection_hangs = False

    async def select(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The BusChannels of namespace shop that select pods, by the label `app`."""
        if self.selection_hangs:
            await asyncio.Event().wait()
        return self.selecting.get(labels.get("app", ""), ()) if namespace == "shop" else ()

    async def resolve(self, namespace: str, channel: str) -> str | None:
        self.asked.append((namespace, channel))
        if self.hangs:
            await asyncio.Event().wait()
        found = self.known.get((namespace, channel))
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def channels() -> Channels:
    channels = Channels()
    channels.known["shop", "orders"] = "orders-bus"
    channels.known["shop", "audit"] = "audit-credentials"
    return channels


@pytest.fixture(scope="module")
def bundle() -> CertificateBundle:
    return new_bundle()


@pytest.fixture
def context(bundle: CertificateBundle) -> ssl.SSLContext:
    context = new_server_context()
    load_key_pair(context, bundle.certificate, bundle.key)
    return context


@pytest.fixture
async def server(channels: Channels, context: ssl.SSLContext) -> AsyncIterator[WebhookServer]:
    server = WebhookServer(make_app(channels.resolve, channels.select, runtime=RUNTIME, lookup_timeout=0.2))
    await server.start("127.0.0.1", 0, context)
    yield server
    await server.stop()


@pytest.fixture
async def post(server: WebhookServer, bundle: CertificateBundle) -> AsyncIterator[Post]:
    context = trusting(bundle)
    async with aiohttp.ClientSession() as session:

        async def post(body: Any, method: str = "POST", path: str = "/mutate-pods") -> tuple[int, bytes]:
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
            async with session.request(
                method,
                f"https://127.0.0.1:{server.port}{path}",
                data=data,
                headers={"Content-Type": "application/json"},
                ssl=context,
                server_hostname="pgmq-bus.bus-system.svc",
            ) as response:
                return response.status, await response.read()

        yield post


def pod(channels: str | None = "orders,audit") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-7d4b-",
            "labels": {"pgmqbus.dev/inject": "true"},
            "annotations": {} if channels is None else {"pgmqbus.dev/channels": channels},
        },
        "spec": {"containers": [{"name": "app", "env": [{"name": "API_TOKEN", "value": "t0p-s3cret"}]}]},
    }


def review(pod: Any, **request: Any) -> Json:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            **request,
        },
    }


async def admit(post: Post, review: Json) -> Json:
    """The response, with what must hold for every one."""
    status, body = await post(review)
    assert status == 200, body
    answer = json.loads(body)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Json = answer["response"]
    assert response["uid"] == review["request"]["uid"]
    assert response["allowed"] is True
    assert ("patch" in response) == ("patchType" in response)
    assert all(len(warning) <= 256 for warning in response.get("warnings", []))
    return response


def patched(pod: Json, response: Json) -> Json:
    assert response["patchType"] == "JSONPatch"
    after: Json = jsonpatch.JsonPatch(json.loads(base64.b64decode(response["patch"], validate=True))).apply(pod)
    return after


def secrets_of(pod: Json) -> list[str]:
    return [volume["secret"]["secretName"] for volume in pod["spec"].get("volumes", [])]


async def test_a_pod_gets_the_secrets_of_its_channels(post: Post, channels: Channels) -> None:
    response = await admit(post, review(pod()))
    after = patched(pod(), response)
    assert secrets_of(after) == ["orders-bus", "audit-credentials"]
    (container,) = after["spec"]["containers"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/bindings/orders", "/bindings/audit"]
    assert container["env"][0] == {"name": "SERVICE_BINDING_ROOT", "value": "/bindings"}
    assert after["metadata"]["annotations"]["pgmqbus.dev/injected"] == "orders,audit"
    assert "warnings" not in response
    assert channels.asked == [("shop", "orders"), ("shop", "audit")]


async def test_a_pod_gets_the_runtime_if_it_asks(post: Post) -> None:
    asking = pod()
    asking["metadata"]["annotations"]["pgmqbus.dev/inject-runtime"] = "true"
    response = await admit(post, review(asking))
    after = patched(asking, response)
    assert [container["image"] for container in after["spec"]["initContainers"]] == [RUNTIME.reference]
    assert after["metadata"]["annotations"]["pgmqbus.dev/injected-runtime"] == RUNTIME.version
    assert "warnings" not in response
    assert "patch" not in await admit(post, review(after))


async def test_a_patched_pod_is_not_patched_again(post: Post) -> None:
    after = patched(pod(), await admit(post, review(pod())))
    assert "patch" not in await admit(post, review(after))


async def test_a_channel_that_is_not_there_yet(post: Post) -> None:
    response = await admit(post, review(pod("orders,later")))
    assert secrets_of(patched(pod("orders,later"), response)) == ["orders-bus", "later-bus"]
    assert response["warnings"] == [
        "no BusChannel 'later' in namespace shop yet: the pod waits until there is and its Secret is written"
    ]


async def test_a_channel_of_another_namespace_is_not_used(post: Post) -> None:
    response = await admit(post, review(pod("audit"), namespace="blog"))
    assert secrets_of(patched(pod("audit"), response)) == ["audit-bus"]
    assert response["warnings"][0].startswith("no BusChannel 'audit' in namespace blog yet")


LOOKUP_WARNING = (
    "BusChannel 'audit' could not be looked up: the default name <BusChannel>-bus is used for its Secret,"
    " and the pod waits for that"
)


async def test_a_failing_look_up_does_not_keep_the_pod_from_starting(post: Post, channels: Channels) -> None:
    channels.known["shop", "audit"] = ConnectionError("API server is gone")
    response = await admit(post, review(pod()))
    assert secrets_of(patched(pod(), response)) == ["orders-bus", "audit-bus"]
    assert response["warnings"] == [LOOKUP_WARNING]


async def test_a_hanging_look_up_is_given_up(post: Post, channels: Channels) -> None:
    channels.hangs = True
    response = await asyncio.wait_for(admit(post, review(pod("audit"))), 5)
    assert secrets_of(patched(pod("audit"), response)) == ["audit-bus"]
    assert response["warnings"] == [LOOKUP_WARNING]


async def test_many_slow_look_ups_wait_together(post: Post, channels: Channels) -> None:
    channels.hangs = True
    names = ",".join(f"c{n}" for n in range(50))
    response = await asyncio.wait_for(admit(post, review(pod(names))), 5)
    assert len(secrets_of(patched(pod(names), response))) == 50


async def test_bad_names_are_warned_of_and_the_others_injected(post: Post, channels: Channels) -> None:
    response = await admit(post, review(pod("Orders!, orders")))
    assert secrets_of(patched(pod("Orders!, orders"), response)) == ["orders-bus"]
    (warning,) = response["warnings"]
    assert "'Orders!'" in warning
    assert channels.asked == [("shop", "orders")]


async def test_asking_without_naming_a_channel(post: Post) -> None:
    response = await admit(post, review(pod(None)))
    assert "patch" not in response
    assert 'pgmqbus.dev/channels: "orders,audit"' in response["warnings"][0]


def unlabelled(**labels: str) -> Json:
    return pod(None) | {"metadata": {"generateName": "web-7d4b-", "labels": labels}}


async def test_a_pod_that_is_selected_waits_for_nothing(post: Post, channels: Channels) -> None:
    channels.selecting["web"] = ("audit", "orders")
    response = await admit(post, review(unlabelled(app="web")))
    after = patched(unlabelled(app="web"), response)
    assert after["spec"]["volumes"] == [
        {"name": "pgmqbus-audit", "secret": {"secretName": "audit-credentials", "optional": True}},
        {"name": "pgmqbus-orders", "secret": {"secretName": "orders-bus", "optional": True}},
    ]
    assert after["metadata"]["annotations"]["pgmqbus.dev/injected"] == "audit,orders"
    assert "warnings" not in response
    assert "patch" not in await admit(post, review(after)), "it is seen again"
    sidecar = copy.deepcopy(after)
    sidecar["spec"]["containers"].append({"name": "sidecar"})
    again = patched(sidecar, await admit(post, review(sidecar)))
    assert again["spec"]["volumes"] == after["spec"]["volumes"]
    assert len(again["spec"]["containers"][1]["volumeMounts"]) == 2


async def test_a_pod_that_asks_waits_even_if_it_is_selected(post: Post, channels: Channels) -> None:
    channels.selecting["web"] = ("audit",)
    asking = pod("orders")
    asking["metadata"]["labels"]["app"] = "web"
    after = patched(asking, await admit(post, review(asking)))
    assert after["spec"]["volumes"] == [{"name": "pgmqbus-orders", "secret": {"secretName": "orders-bus"}}]


async def test_pods_that_nothing_selects_are_left_alone_in_silence(
    post: Post, channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channels.selecting["web"] = ("audit",)
    for other, namespace in ((unlabelled(app="db"), "shop"), (unlabelled(app="web"), "blog")):
        assert set(await admit(post, review(other, namespace=namespace))) == {"uid", "allowed"}
    opted_out = unlabelled(app="web", **{"pgmqbus.dev/inject": "false"})
    assert set(await admit(post, review(opted_out))) == {"uid", "allowed"}
    assert channels.asked == []
    assert "web-7d4b-" not in caplog.text


async def test_what_selects_is_not_found_out(post: Post, channels: Channels) -> None:
    """As when a replica has just started: pods that did not ask start without, the others are not delayed by it."""
    channels.selection_hangs = True
    response = await asyncio.wait_for(admit(post, review(unlabelled(app="web"))), 5)
    assert "patch" not in response
    assert response["warnings"] == ["not found out which BusChannels select the pod: it gets none of their bindings"]
    assert "warnings" not in await admit(post, review(pod()))


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "subResource": "eviction"},
        {"subResource": "ephemeralcontainers"},
    ],
)
async def test_only_the_creation_of_pods_is_patched(post: Post, channels: Channels, request_: Json) -> None:
    response = await admit(post, review(pod(), **request_))
    assert set(response) == {"uid", "allowed"}
    assert channels.asked == []


WITHOUT_REQUEST = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"NaN", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "the body is not JSON"),
        (b"null", "the body is not an object"),
        ([], "the body is not an object"),
        ("AdmissionReview", "the body is not an object"),
        ({}, "apiVersion and kind are not admission.k8s.io/v1 and AdmissionReview"),
        ({**review(pod()), "apiVersion": "admission.k8s.io/v1beta1"}, "apiVersion and kind are not"),
        ({**review(pod()), "kind": ["AdmissionReview"]}, "apiVersion and kind are not"),
        (WITHOUT_REQUEST, "request is not an object"),
        ({**WITHOUT_REQUEST, "request": "x"}, "request is not an object"),
        (review(pod(), uid=None), "request.uid is not a string or is empty"),
        (review(pod(), uid=7), "request.uid is not a string or is empty"),
        (review(pod(), uid=""), "request.uid is not a string or is empty"),
        (review(pod(), kind="Pod"), "request.kind is not an object"),
        (review(None), "request.object is not an object"),
        (review("pod"), "request.object is not an object"),
        (review(pod(), namespace=None), "request.namespace is not a string or is empty"),
        (review(pod(), namespace=["shop"]), "request.namespace is not a string or is empty"),
        (review(pod(), namespace="../../../../api/v1/pods?x="), "request.namespace is not the name of a namespace"),
        (review(pod(), namespace="shop\n"), "request.namespace is not the name of a namespace"),
        (review({"metadata": 1}), "/metadata is not an object"),
        (review({"metadata": {"labels": []}}), "/metadata/labels is not an object"),
        (review({**pod(), "spec": "x"}), "/spec is not an object"),
        (review({**pod(), "spec": {"containers": {}}}), "/spec/containers is not a list of objects"),
        (review({**pod(), "spec": {"containers": [[]]}}), "/spec/containers is not a list of objects"),
        (review({**pod(), "spec": {"containers": [{"env": 1}]}}), "/spec/containers/0/env is not a list"),
    ],
)
async def test_malformed_reviews_are_told_what_is_wrong(post: Post, body: Any, text: str) -> None:
    status, answer = await post(body)
    assert status == 400
    assert answer.decode().startswith(f"malformed AdmissionReview: {text}")


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": {"generateName": 5, "labels": {"pgmqbus.dev/inject": "true"}}},
        {"metadata": {"labels": {"pgmqbus.dev/inject": ["true"]}}},
        {**pod(), "spec": {"containers": [{"name": 5, "env": [{"name": None, "value": 1}], "volumeMounts": [{}]}]}},
        {
            **pod(),
            "spec": {"volumes": [{"name": {}, "secret": []}], "containers": [{"volumeMounts": [{"mountPath": 1}]}]},
        },
        {**pod(), "spec": None},
    ],
)
async def test_odd_pods_are_left_to_the_api_server_to_refuse(post: Post, odd: Json) -> None:
    await admit(post, review(odd))


async def test_a_body_that_is_too_large_is_refused(post: Post) -> None:
    status, _ = await post(b" " * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert (await post(review(pod())))[0] == 200


async def test_nothing_else_is_served(post: Post) -> None:
    assert (await post(b"", method="GET"))[0] == 405
    assert (await post(review(pod()), path="/"))[0] == 404


async def test_the_log_names_the_pod_and_nothing_of_its_environment(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await admit(post, review(pod()))
    broken = pod()
    broken["spec"]["containers"].append("t0p-s3cret")
    assert (await post(review(broken)))[0] == 400
    assert "pod shop/web-7d4b- asks for orders,audit: 5 patch operations, 0 warnings" in caplog.text
    assert "t0p-s3cret" not in caplog.text


async def test_clients_that_trust_another_authority_are_not_answered(
    server: WebhookServer, bundle: CertificateBundle
) -> None:
    for context, hostname in (
        (trusting(new_bundle()), NAMES[0]),
        (trusting(bundle), "pgmq-bus.elsewhere.svc"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=hostname)


async def served_certificate(server: WebhookServer, bundle: CertificateBundle, name: str = NAMES[0]) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(bundle), server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return ssl.DER_cert_to_PEM_cert(der)


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_of_the_service_is_served(server: WebhookServer, bundle: CertificateBundle, name: str) -> None:
    assert await served_certificate(server, bundle, name) == bundle.certificate.decode()


async def test_a_reloaded_certificate_is_served_to_new_connections_and_open_ones_go_on(
    server: WebhookServer, context: ssl.SSLContext, bundle: CertificateBundle, post: Post
) -> None:
    assert (await post(review(pod())))[0] == 200
    renewed = new_bundle()
    load_key_pair(context, renewed.certificate, renewed.key)
    assert await served_certificate(server, renewed) == renewed.certificate.decode()
    # This session's open connection trusts only the old authority.
    assert (await post(review(pod())))[0] == 200


async def test_healthy_while_it_accepts_connections(channels: Channels, context: ssl.SSLContext) -> None:
    server = WebhookServer(make_app(channels.resolve, channels.select))
    assert not server.healthy
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.port
    await server.start("127.0.0.1", 0, context)
    port = server.port
    assert server.healthy
    await server.stop()
    assert not server.healthy
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_stopping_what_never_started(channels: Channels) -> None:
    await WebhookServer(make_app(channels.resolve, channels.select)).stop()


async def test_a_taken_port_is_an_error(server: WebhookServer, channels: Channels, context: ssl.SSLContext) -> None:
    second = WebhookServer(make_app(channels.resolve, channels.select))
    with pytest.raises(OSError, match="address already in use"):
        await second.start("127.0.0.1", server.port, context)
    assert not second.healthy
    await second.stop()
