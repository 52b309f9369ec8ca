"""The mutating admission webhook over HTTPS: AdmissionReview v1 in, AdmissionReview v1 out.

It never refuses a pod. A pod that asks for a binding which is not ready yet gets it all the same, since a pod with a
`secret` volume waits until the Secret exists; the difference is an admission warning that `kubectl` shows at once. A
pod that did not ask and is selected by a BusChannel waits for nothing: its volume is optional.

Pods hold credentials in their environment: only names of pods, namespaces and channels are logged.
"""

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from bus_operator import naming, tallies
from bus_operator.injection import PodBinding, inject
from bus_operator.pod_requests import MalformedPodError, Request, labels_of, may_be_selected, requested_channels, shown
from bus_operator.runtime_injection import RuntimeImage

logger = logging.getLogger(__name__)

Resolve = Callable[[str, str], Awaitable[str | None]]
"""(namespace, BusChannel name) -> name of its Secret, or None when there is no such BusChannel. It may raise."""

Select = Callable[[str, Mapping[str, str]], Awaitable[Sequence[str]]]
"""(namespace, labels of a pod) -> names of the BusChannels that select it. It may raise."""

PATH = "/mutate-pods"
MAX_BODY_BYTES = 3 * 1024 * 1024
"""The API server's own limit for a request body (MaxRequestBodyBytes in k8s.io/apiserver)."""

LOOKUP_TIMEOUT_SECONDS = 2.0
"""Twice this is well under the webhook's timeoutSeconds: slow look-ups must leave time for the answer."""

_API_VERSION = "admission.k8s.io/v1"

_LONGEST_NAME = 253


def make_app(
    resolve: Resolve,
    select: Select,
    *,
    runtime: RuntimeImage | None = None,
    lookup_timeout: float = LOOKUP_TIMEOUT_SECONDS,
) -> web.Application:
    """The application with its one route, `POST /mutate-pods`.

    Answers 200 with `allowed: true` to every well-formed AdmissionReview, 400 with a text that names the field
    to a malformed one, 413 to a body of more than 3 MiB. `runtime` is where pods get bus_runtime from, if
    they do. `lookup_timeout` (seconds) bounds the question what selects a pod, and then the look-ups of its channels,
    which run at the same time.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post(PATH, _PodWebhook(resolve, select, runtime, lookup_timeout).mutate_pods)
    return app


class WebhookServer:
    """Serves the application over TLS.

    New connections use what the SSL context holds when they are made, so a renewed certificate that is loaded
    into the same context (`ServingCertificate.ensure()`) is served without a restart.
    """

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        self._server: asyncio.Server | None = None

    async def start(self, host: str | None, port: int, ssl_context: ssl.SSLContext) -> None:
        """Listens on `host` (None: every interface, IPv4 and IPv6) and `port` (0: a free one).

        Raises OSError when the address cannot be bound.
        """
        await self._runner.setup()
        handler = self._runner.server
        assert handler is not None  # noqa: S101  set by setup()
        self._server = await asyncio.get_running_loop().create_server(handler, host, port, ssl=ssl_context)
        logger.info("webhook listens on port %d", self.port)

    async def stop(self) -> None:
        """Stops listening, lets running requests end for up to five seconds, closes the connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that is listened on. Raises RuntimeError before start()."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the webhook server is not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def healthy(self) -> bool:
        """Whether connections are accepted: for the readiness probe."""
        return self._server is not None and self._server.is_serving()


@dataclass(frozen=True)
class _PodWebhook:
    resolve: Resolve
    select: Select
    runtime: RuntimeImage | None
    lookup_timeout: float

    async def mutate_pods(self, request: web.Request) -> web.Response:
        begun = time.monotonic()
        outcome = "malformed"
        try:
            response = await self._review(_parse(await request.read()))
            outcome = _outcome(response)
        except (_MalformedReviewError, MalformedPodError) as error:
            logger.warning("malformed AdmissionReview: %s", error)
            raise web.HTTPBadRequest(text=f"malformed AdmissionReview: {error}\n") from error
        finally:
            tallies.admitted(outcome, time.monotonic() - begun)
        body = {"apiVersion": _API_VERSION, "kind": "AdmissionReview", "response": response}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _review(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The `response` of an AdmissionReview for its `request`."""
        response: dict[str, Any] = {"uid": _string(request, "uid"), "allowed": True}
        if not _is_pod_creation(request):
            return response
        pod = request.get("object")
        if not isinstance(pod, Mapping):
            raise _MalformedReviewError("request.object is not an object")
        # The pod's own namespace may still be empty here.
        namespace = _string(request, "namespace")
        # Not only the API server may write here, and it becomes part of a path.
        if not naming.is_namespace(namespace):
            raise _MalformedReviewError("request.namespace is not the name of a namespace")

        selecting, selection_warnings = await self._selecting(namespace, pod)
        asked = requested_channels(pod, selecting)
        bindings, lookup_warnings = await self._look_up(namespace, asked)
        injection = inject(pod, bindings, with_runtime=asked.runtime, runtime=self.runtime)
        if injection.patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(orjson.dumps(injection.patch)).decode("ascii")
        if warnings := [*selection_warnings, *asked.warnings, *lookup_warnings, *injection.warnings]:
            response["warnings"] = warnings
        metadata = pod.get("metadata") or {}
        # Where a BusChannel selects pods all others of the namespace come here as well, for nothing.
        concerned = asked.channels or asked.runtime or warnings
        logger.log(
            logging.INFO if concerned else logging.DEBUG,
            "pod %s/%s %s %s: %d patch operations, %d warnings",
            namespace,
            str(metadata.get("name") or metadata.get("generateName"))[:_LONGEST_NAME],
            "asks for" if asked.asked else "is selected by",
            ",".join(asked.channels) or "nothing",
            len(injection.patch),
            len(warnings),
        )
        return response

    async def _selecting(self, namespace: str, pod: Mapping[str, Any]) -> tuple[Sequence[str], list[str]]:
        """The BusChannels that select the pod, if that matters; none and a warning where it is not found out."""
        if not may_be_selected(pod):
            return (), []
        try:
            async with asyncio.timeout(self.lookup_timeout):
                return await self.select(namespace, labels_of(pod)), []
        except Exception as error:  # whatever it is, the pod must not be refused
            logger.warning("what selects a pod in %s is not found out: %s: %s", namespace, type(error).__name__, error)
            return (), ["not found out which BusChannels select the pod: it gets none of their bindings"]

    async def _look_up(self, namespace: str, request: Request) -> tuple[list[PodBinding], list[str]]:
        """The channels' Secrets; the default name and a warning where there is none or it is not found out."""
        missing: list[str] = []
        failed: list[str] = []

        async def secret_of(channel: str) -> str:
            try:
                async with asyncio.timeout(self.lookup_timeout):
                    secret = await self.resolve(namespace, channel)
            except Exception as error:  # whatever it is, the pod must not be refused
                kind = type(error).__name__
                logger.warning("BusChannel %s/%s not looked up: %s: %s", namespace, channel, kind, error)
                failed.append(channel)
                return naming.binding_secret(channel)
            if secret is None:
                missing.append(channel)
                return naming.binding_secret(channel)
            return secret

        secrets = await asyncio.gather(*(secret_of(channel) for channel in request.channels))
        warnings = []
        if missing:
            warnings.append(
                f"no BusChannel {shown(missing)} in namespace {namespace} yet: the pod waits until there is"
                " and its Secret is written"
            )
        if failed:
            warnings.append(
                f"BusChannel {shown(failed)} could not be looked up: the default name <BusChannel>-bus is"
                " used for its Secret, and the pod waits for that"
            )
        bindings = [
            PodBinding(channel, secret, optional=not request.asked)
            for channel, secret in zip(request.channels, secrets, strict=True)
        ]
        return bindings, warnings


def _outcome(response: Mapping[str, Any]) -> str:
    if "warnings" in response:
        return "incomplete"
    return "injected" if "patch" in response else "unchanged"


class _MalformedReviewError(ValueError):
    """The body is no AdmissionReview v1 with a request; the message names the field."""


def _parse(body: bytes) -> Mapping[str, Any]:
    """The `request` of an AdmissionReview."""
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _MalformedReviewError(f"the body is not JSON: {error}") from error
    if not isinstance(review, dict):
        raise _MalformedReviewError("the body is not an object")
    if (review.get("apiVersion"), review.get("kind")) != (_API_VERSION, "AdmissionReview"):
        raise _MalformedReviewError(f"apiVersion and kind are not {_API_VERSION} and AdmissionReview")
    request = review.get("request")
    if not isinstance(request, dict):
        raise _MalformedReviewError("request is not an object")
    return request


def _is_pod_creation(request: Mapping[str, Any]) -> bool:
    kind = request.get("kind")
    if not isinstance(kind, Mapping):
        raise _MalformedReviewError("request.kind is not an object")
    return (
        (kind.get("group"), kind.get("version"), kind.get("kind")) == ("", "v1", "Pod")
        and request.get("operation") == "CREATE"
        and not request.get("subResource")
    )


def _string(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise _MalformedReviewError(f"request.{key} is not a string or is empty")
    return value
