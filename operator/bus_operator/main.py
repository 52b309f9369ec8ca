"""The operator's process: watches, election, reconciler, admission webhook and probes in one event loop.

Every replica watches and serves the webhook; the one that holds the Lease reconciles.
"""

import asyncio
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import aiohttp
import kopf
from kubernetes.aio.client.exceptions import ApiException

from bus_operator import gauges, handlers, kube_api, logs
from bus_operator.canary import Canary
from bus_operator.certificate_store import KubernetesSecretStore, ensure_ca_bundle
from bus_operator.certificates import service_names
from bus_operator.channel_metrics import ChannelMetrics
from bus_operator.controller import Controller
from bus_operator.definition_age import DefinitionAge
from bus_operator.election import Elector, FencedApi
from bus_operator.errors import BusError, NamespaceUnreadableError, StartError
from bus_operator.health import HealthServer
from bus_operator.kube import Kube
from bus_operator.kube_api import KubeApi, words_of
from bus_operator.metrics import MetricsServer
from bus_operator.runtime_injection import RuntimeImage
from bus_operator.serving_certificates import CertificateManager, FileCertificates, ServingCertificate
from bus_operator.settings import Settings
from bus_operator.webhook import WebhookServer, make_app
from bus_operator.webhook_probe import webhook_answers
from bus_operator.webhook_scope import WebhookScope

logger = logging.getLogger(__name__)

CERTIFICATE_CHECK = 60.0
"""Seconds between looks at the certificate and the caBundle, which an upgrade of the chart may empty."""

CERTIFICATE_RETRY = 2.0
"""Seconds until the next attempt while there is nothing to serve yet."""


class Operator:
    """Everything that runs, wired together once."""

    def __init__(self, settings: Settings, api: KubeApi) -> None:
        self._settings = settings
        self._api = api
        self._elector = Elector(
            api,
            name=settings.lease_name,
            namespace=settings.operator_namespace,
            identity=settings.pod_name or f"{socket.gethostname()}-{secrets.token_hex(4)}",
            lead=self._lead,
        )
        fenced = FencedApi(api, lambda: self._elector.leading)
        self._kube = Kube(
            fenced,
            secrets_role=settings.secrets_role,
            service_account=(settings.operator_namespace, settings.service_account),
            namespaces=settings.namespaces,
        )
        self._controller = Controller(
            self._kube,
            resync=settings.resync_seconds,
            workers=settings.workers,
            credential_unused=timedelta(seconds=settings.credential_unused_seconds),
            verification_interval=settings.verification_interval_seconds,
        )
        self._canary = Canary(
            self._kube,
            self._controller.inventory,
            leading=lambda: self._elector.leading,
            interval=settings.canary_seconds,
            namespaces=settings.namespaces,
        )
        self._definitions = DefinitionAge(api)
        self._webhook_scope = WebhookScope(fenced, settings.webhook_configuration, self._controller.inventory)
        self._certificate: ServingCertificate
        if settings.webhook_cert_dir is not None:
            self._certificate = FileCertificates(Path(settings.webhook_cert_dir))
        else:
            store = KubernetesSecretStore(api, name=settings.webhook_tls_secret, namespace=settings.operator_namespace)
            self._certificate = CertificateManager(
                store, service=settings.webhook_service, namespace=settings.operator_namespace
            )
        self._webhook = WebhookServer(make_app(self._secret_name, self._selecting, runtime=_runtime_image(settings)))
        self._health = HealthServer(lambda: self._canary.deaf, self._ready)
        channels = ChannelMetrics(
            self._controller.inventory,
            lambda: self._controller.surveys,
            self._controller.overdue_rotations,
            limit=settings.metrics_max_channels,
        )
        self._metrics = MetricsServer(
            gauges.of_operator(self._controller, self._elector, self._canary, self._certificate, self._definitions),
            [channels.families],
        )

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises StartError when a port cannot be had."""
        stop = asyncio.Event()
        _on_signals(stop.set)
        with _listening("BUS_HEALTH_PORT", self._settings.health_port):
            await self._health.start(self._settings.health_port)
        if self._settings.metrics_port:
            with _listening("BUS_METRICS_PORT", self._settings.metrics_port):
                await self._metrics.start(self._settings.metrics_port)
        end_watching = asyncio.Event()
        parts = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(self._controller.run()),
            asyncio.create_task(self._stand_for_election()),
            asyncio.create_task(self._canary.run()),
            asyncio.create_task(self._definitions.run()),
            asyncio.create_task(self._serve_webhook()),
        ]
        watching = asyncio.create_task(self._watch(stop, end_watching))
        try:
            await asyncio.wait([*parts, watching], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # kopf is the last to go: it would wait for all other tasks of the loop.
            for task in parts:
                task.cancel()
            results = await asyncio.gather(*parts, return_exceptions=True)
            await self._webhook.stop()
            await self._health.stop()
            await self._metrics.stop()
            if self._controller.listed.is_set():
                end_watching.set()
            else:
                watching.cancel()
            results += await asyncio.gather(watching, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _watch(self, stop: asyncio.Event, end: asyncio.Event) -> None:
        # Not before the definitions are there: kopf looks for them once.
        await self._controller.listed.wait()
        registry = kopf.OperatorRegistry()
        handlers.register(registry, self._controller, self._canary)
        started = asyncio.Event()
        signals = asyncio.create_task(_take_signals_back(started, stop.set))
        try:
            await kopf.operator(
                registry=registry,
                settings=handlers.settings(self._controller.page_size),
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                standalone=True,
                ready_flag=started,
                stop_flag=end,
            )
        finally:
            signals.cancel()

    async def _stand_for_election(self) -> None:
        # Not before everything was listed: who cannot see cannot lead.
        await self._controller.listed.wait()
        await self._elector.run()

    async def _lead(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.lead())
            group.create_task(self._webhook_scope.run())

    async def _ready(self) -> bool:
        """Whether the webhook answers, for the readiness probe."""
        settings = self._settings
        name, *_ = service_names(settings.webhook_service, settings.operator_namespace)
        return self._webhook.healthy and await webhook_answers(self._webhook.port, name, self._certificate.ca_bundle)

    async def _serve_webhook(self) -> None:
        """Listens as soon as there is a certificate, and keeps it and its authority current."""
        started = False
        while True:
            try:
                await self._certificate.ensure()
                if not started:
                    port = self._settings.webhook_port
                    with _listening("BUS_WEBHOOK_PORT", port):
                        await self._webhook.start(None, port, self._certificate.ssl_context)
                    started = True
                if self._certificate.ca_bundle is not None:
                    await ensure_ca_bundle(self._api, self._settings.webhook_configuration, self._certificate.ca_bundle)
            except StartError:
                raise
            except (BusError, ApiException, aiohttp.ClientError, TimeoutError) as exc:
                logger.warning("webhook certificate: %s", words_of(exc))
            await asyncio.sleep(CERTIFICATE_CHECK if started else CERTIFICATE_RETRY)

    async def _secret_name(self, namespace: str, channel: str) -> str | None:
        """The Secret of a BusChannel, for the webhook."""
        resource = self._controller.inventory.channels.get((namespace, channel))
        if resource is None:
            # The watch may not have got this far yet.
            resource = await self._kube.read_resource("BusChannel", (namespace, channel))
        return resource.channel_spec().secret_name(channel) if resource is not None else None

    async def _selecting(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The BusChannels that select a pod, for the webhook. Raises NamespaceUnreadableError."""
        await self._controller.listed.wait()
        inventory = self._controller.inventory
        selecting = inventory.selecting(namespace, labels)
        if not selecting and namespace in inventory.unread:
            raise NamespaceUnreadableError("what selects pods is not known", namespace)
        return selecting


def _runtime_image(settings: Settings) -> RuntimeImage | None:
    if settings.runtime_image is None:
        return None
    # The image has both: one distribution holds the operator and the runtime.
    return RuntimeImage(settings.runtime_image, version("pgmq-bus"), settings.runtime_pull_policy)


def _on_signals(callback: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, callback)


async def _take_signals_back(started: asyncio.Event, callback: Callable[[], None]) -> None:
    """kopf installs handlers of its own when it starts; with those, our tasks would be the last to hear of the end."""
    await started.wait()
    _on_signals(callback)


@contextmanager
def _listening(variable: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StartError(f"cannot listen on port {port}, choose another in {variable}: {exc}") from exc


async def run(settings: Settings) -> None:
    """Runs the operator. Raises StartError when it cannot even start."""
    async with kube_api.connect() as api:
        await Operator(settings, api).run()


def main() -> None:
    """The console script. Exit status: 0 asked to stop, 1 failed, 2 wrong usage."""
    if sys.argv[1:]:
        print("usage: bus-operator\n\nIt is set up by environment variables (BUS_*), as the Helm chart sets them.")  # noqa: T201
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_level, settings.log_format)
        asyncio.run(run(settings))
    except BusError as exc:
        sys.exit(f"bus-operator: {exc}")
