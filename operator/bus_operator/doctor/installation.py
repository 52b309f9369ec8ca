"""What `helm test` asks: is there what the chart installs, does it work together, and as the API server sees it?"""

import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bus_operator import definitions
from bus_operator.cluster_client import ClusterClient
from bus_operator.doctor.findings import Checks, Finding, UnseenError
from bus_operator.errors import BusError, NotFoundError
from bus_operator.model import GROUP
from bus_operator.pod_requests import CHANNELS_ANNOTATION, LABEL, WEBHOOK, WEBHOOK_CONFIGURATIONS

PLURALS = ("buschannels", "busdatabases")

ASKED_FOR = "helm-test"
"""The BusChannel that the pod asks for. That there is none of that name is no hindrance."""

_TIMEOUT = 5.0
"""Seconds: what the API server waits for the webhook."""

_LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Installation:
    """What the chart installed."""

    name: str
    """Of the Lease and of the webhook's configuration."""
    namespace: str
    release: str
    """The version of the chart's definitions."""
    metrics: str | None = None
    """Where metrics are served; None: they are not, or not to everybody."""


@dataclass(frozen=True)
class InstallationFacts:
    """What the checks judge. A BusError or a text says why something is not known or does not work."""

    installation: Installation
    definitions: Mapping[str, Mapping[str, Any] | BusError]
    holder: str | BusError | None
    """Who renewed the Lease while it was watched; None: nobody did."""
    webhook: Mapping[str, Any] | BusError | None
    """None: there is none of that name in the configuration."""
    review: Mapping[str, Any] | Exception | None
    """What it answered when it was asked about a pod; None: it was not asked."""
    scrape: str | Exception | None
    """What the metrics say; None: they were not read."""


def gather(client: ClusterClient, installation: Installation, *, patience: float = 10.0) -> InstallationFacts:
    """Asks the API server, the webhook and the metrics.

    Args:
        client: As whom.
        installation: What is looked for.
        patience: Seconds in which the Lease must be renewed.
    """
    found = {f"{plural}.{GROUP}": _or_error(_getter(client, plural)) for plural in PLURALS}
    webhook = _or_error(lambda: _find(client, installation.name))
    review = _ask(webhook["clientConfig"], installation.namespace) if isinstance(webhook, Mapping) else None
    scrape = _read(installation.metrics) if installation.metrics else None
    return InstallationFacts(installation, found, _leader(client, installation, patience), webhook, review, scrape)


def _getter(client: ClusterClient, plural: str) -> Callable[[], Mapping[str, Any]]:
    return lambda: client.get(f"{definitions.COLLECTION}/{plural}.{GROUP}")


def _or_error(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except BusError as exc:
        return exc


def _find(client: ClusterClient, name: str) -> Mapping[str, Any] | None:
    webhooks: list[Mapping[str, Any]] = client.get(f"{WEBHOOK_CONFIGURATIONS}/{name}").get("webhooks") or []
    return next((webhook for webhook in webhooks if webhook["name"] == WEBHOOK), None)


def _leader(client: ClusterClient, installation: Installation, patience: float) -> str | BusError | None:
    """Watched rather than compared with a clock: those of machines differ."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{installation.namespace}/leases/{installation.name}"
    first: str | None = None
    deadline = time.monotonic() + patience
    while True:
        try:
            spec = client.get(path).get("spec") or {}
        except NotFoundError:
            spec = {}
        except BusError as exc:
            return exc
        holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
        if holder and first is not None and renewed != first:
            return str(holder)
        first = first or renewed
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_EVERY)


def _ask(config: Mapping[str, Any], namespace: str) -> Mapping[str, Any] | Exception:
    """The webhook itself, as the API server would: through its Service, trusting the authority of its configuration."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helm-test", "labels": {LABEL: "true"}, "annotations": {CHANNELS_ANNOTATION: ASKED_FOR}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "helm-test",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": namespace,
            "dryRun": True,
            "object": pod,
        },
    }
    try:
        # Without an authority nobody trusts it, and the error says so.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if authority := config.get("caBundle"):
            context.load_verify_locations(cadata=base64.b64decode(authority).decode())
        request = urllib.request.Request(  # noqa: S310 - the configuration's own
            _url(config), data=json.dumps(review).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310
            response: Mapping[str, Any] = json.load(answer)["response"]
            return response
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return exc


def _url(config: Mapping[str, Any]) -> str:
    if service := config.get("service"):
        host = f"{service['name']}.{service['namespace']}.svc"
        return f"https://{host}:{service.get('port', 443)}{service.get('path', '/')}"
    return str(config["url"])


def _read(url: str) -> str | Exception:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - the chart's own
            text: str = answer.read().decode()
            return text
    except (OSError, ValueError) as exc:
        return exc


CHECKS: Checks[InstallationFacts] = Checks()


@CHECKS.check("definitions")
def _definitions(facts: InstallationFacts) -> Iterator[Finding]:
    """Both are served, and none is older than the chart."""
    for name, found in facts.definitions.items():
        if isinstance(found, NotFoundError):
            yield Finding("DefinitionMissing", f"definition {name} is not installed. Install it: {definitions.BY_HAND}")
        elif isinstance(found, BusError):
            raise UnseenError(str(found))
        else:
            yield from _definition(name, found, facts.installation.release)


def _definition(name: str, found: Mapping[str, Any], release: str) -> Iterator[Finding]:
    version = definitions.version_of(found)
    if version < definitions.parse_version(release):
        stated = f"is of version {definitions.version_text(version)}" if any(version) else "states no version"
        yield Finding(
            "DefinitionTooOld",
            f"definition {name} {stated}, older than the chart ({release}): the API server drops fields that it does"
            f" not know. Bring it up to date: {definitions.BY_HAND}",
        )
    if not definitions.is_served(found):
        yield Finding("DefinitionNotServed", f"definition {name} is not served: see its status.conditions")


@CHECKS.check("leader")
def _leads(facts: InstallationFacts) -> Iterator[Finding]:
    """Somebody reconciles, and is alive."""
    if isinstance(facts.holder, BusError):
        raise UnseenError(str(facts.holder))
    if facts.holder is None:
        namespace, name = facts.installation.namespace, facts.installation.name
        yield Finding(
            "NobodyLeads",
            f"nobody renews the Lease {namespace}/{name}, so nothing is reconciled. Does the operator run, and what"
            f" does it say? kubectl logs -n {namespace} -l app.kubernetes.io/component=operator --tail=-1",
        )


@CHECKS.check("webhook")
def _webhook(facts: InstallationFacts) -> Iterator[Finding]:
    """It answers through its Service, with a certificate that the API server trusts, and gives a pod its binding."""
    name, namespace = facts.installation.name, facts.installation.namespace
    if isinstance(facts.webhook, BusError) and not isinstance(facts.webhook, NotFoundError):
        raise UnseenError(str(facts.webhook))
    if not isinstance(facts.webhook, Mapping):
        yield Finding(
            "WebhookConfigurationNotFound",
            f"there is no MutatingWebhookConfiguration {name} with the webhook {WEBHOOK}: no pod gets a binding until"
            " helm upgrade has put it back",
        )
    elif not facts.webhook["clientConfig"].get("caBundle"):
        yield Finding(
            "WebhookUnreachable",
            f"MutatingWebhookConfiguration {name} has no caBundle yet, so the API server trusts no certificate: the"
            " operator writes it at its start, or cert-manager's injector does",
        )
    elif isinstance(facts.review, Exception):
        yield Finding(
            "WebhookUnreachable",
            f"{_url(facts.webhook['clientConfig'])} does not answer with a certificate that the caBundle vouches for:"
            f" {facts.review}. Are the operator's pods ready? kubectl get pods -n {namespace}",
        )
    elif facts.review is not None and not (facts.review.get("allowed") and facts.review.get("patch")):
        yield Finding(
            "WebhookUnreachable", f"{_url(facts.webhook['clientConfig'])} answers, and gives a pod that asks no binding"
        )


@CHECKS.check("metrics")
def _metrics(facts: InstallationFacts) -> Iterator[Finding]:
    """Prometheus can read them."""
    if facts.installation.metrics is None:
        raise UnseenError("they are switched off, or a NetworkPolicy says who may read them")
    if isinstance(facts.scrape, Exception) or "pgmq_bus_build_info{" not in (facts.scrape or ""):
        why = facts.scrape if isinstance(facts.scrape, Exception) else "what is there are not the operator's metrics"
        yield Finding("MetricsUnreachable", f"{facts.installation.metrics} cannot be read: {why}")
