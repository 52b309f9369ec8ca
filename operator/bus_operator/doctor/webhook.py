"""What gives pods their bindings: the operator's process and its webhook."""

import base64
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from bus_operator.cluster_client import ClusterClient
from bus_operator.doctor.findings import Checks, Finding, Outcome, UnseenError
from bus_operator.errors import BusError, NotFoundError
from bus_operator.injection import INJECTED_ANNOTATION
from bus_operator.pod_requests import CHANNELS_ANNOTATION, LABEL, WEBHOOK, WEBHOOK_CONFIGURATIONS

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_SELECTOR = "app.kubernetes.io/name=pgmq-bus"
_CONNECT_TIMEOUT = 3.0


@dataclass(frozen=True)
class InjectionFacts:
    """What the checks of the operator and its webhook judge. A BusError says why something is not known."""

    deployments: list[dict[str, Any]] | BusError
    webhook: Mapping[str, Any] | BusError | None
    """The webhook's part of its configuration; None: there is none."""
    namespace: str
    """Where a pod was asked for."""
    injected: bool | BusError
    """Whether the API server gives a pod that asks what it asks for: one that is not really made."""
    certificate: bytes | BusError | None = None
    """What the webhook serves, in PEM; None where that is in no Secret of ours."""
    handshake: OSError | None = None
    """What came of connecting to it, where it has a URL that is reached from here."""
    is_pod: bool = False
    """Whether it is asked as a pod's service account, which has the rights for its own work only."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def gather(client: ClusterClient, namespace: str) -> InjectionFacts:
    """Asks the API server.

    Args:
        client: As whom.
        namespace: Where a pod might be made. None is: it is a dry run.
    """
    try:
        deployments: list[dict[str, Any]] | BusError = list(client.items(_DEPLOYMENTS, label_selector=_SELECTOR))
    except BusError as exc:
        deployments = exc
    try:
        webhook: Mapping[str, Any] | BusError | None = _find(client)
    except BusError as exc:
        webhook = exc
    facts = InjectionFacts(
        deployments, webhook, namespace, _is_injected(client, namespace), is_pod=client.access.is_pod
    )
    if facts.injected is True or not isinstance(webhook, Mapping):
        return facts
    service = webhook["clientConfig"].get("service")
    if service is None:
        return replace(facts, handshake=_shake_hands(webhook["clientConfig"]))
    return replace(facts, certificate=_certificate(client, service))


def _find(client: ClusterClient) -> Mapping[str, Any] | None:
    for configuration in client.items(WEBHOOK_CONFIGURATIONS):
        for webhook in configuration.get("webhooks") or ():
            if webhook["name"] == WEBHOOK:
                found: Mapping[str, Any] = webhook
                return found
    return None


def _is_injected(client: ClusterClient, namespace: str) -> bool | BusError:
    pod = {
        "metadata": {
            "generateName": "busctl-doctor-",
            "labels": {LABEL: "true"},
            "annotations": {CHANNELS_ANNOTATION: "busctl-doctor"},
        },
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "none",
                    "image": "none",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    try:
        answer = client.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    except BusError as exc:
        return exc
    return INJECTED_ANNOTATION in (answer["metadata"].get("annotations") or {})


def _certificate(client: ClusterClient, service: Mapping[str, Any]) -> bytes | BusError | None:
    """The operator's Secret is called as its Service is."""
    path = f"/api/v1/namespaces/{service['namespace']}/secrets/{service['name']}-tls"
    try:
        data = client.get(path).get("data") or {}
        return base64.b64decode(data["tls.crt"]) if "tls.crt" in data else None
    except NotFoundError:
        return None
    except BusError as exc:
        return exc


def _shake_hands(config: Mapping[str, Any]) -> OSError | None:
    parts = urlsplit(config["url"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if config.get("caBundle"):
            context.load_verify_locations(cadata=base64.b64decode(config["caBundle"]).decode())
        else:
            context.load_default_certs()
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=_CONNECT_TIMEOUT) as connection:
            context.wrap_socket(connection, server_hostname=parts.hostname).close()
    except OSError as exc:
        return exc
    return None


CHECKS: Checks[InjectionFacts] = Checks()


def examine(facts: InjectionFacts) -> list[Outcome]:
    """What the checks find; one outcome where the same is in the way of all of them."""
    outcomes = CHECKS.examine(facts)
    if outcomes[0].unseen and len({outcome.unseen for outcome in outcomes}) == 1:
        return [replace(outcomes[0], title=" and ".join(outcome.title for outcome in outcomes))]
    return outcomes


@CHECKS.check("operator")
def _operator(facts: InjectionFacts) -> Iterator[Finding]:
    """Not there, or none of its pods is ready."""
    if isinstance(facts.deployments, BusError):
        raise UnseenError(_unseen(facts.deployments, facts), out_of_reach=True)
    if not facts.deployments:
        raise UnseenError(f"no Deployment has the label {_SELECTOR}")
    for deployment in facts.deployments:
        metadata = deployment["metadata"]
        if not (deployment.get("status") or {}).get("readyReplicas"):
            yield Finding(
                "OperatorDown",
                f"no pod of Deployment {metadata['namespace']}/{metadata['name']} is ready: pods go on with their"
                f" bindings, and nothing else is done: kubectl get pods -n {metadata['namespace']} -l {_SELECTOR}",
            )


@CHECKS.check("webhook")
def _webhook(facts: InjectionFacts) -> Iterator[Finding]:
    """Whether pods that ask get their bindings: by asking for one, without making it."""
    if facts.injected is True:
        return
    if facts.webhook is None:
        yield Finding(
            "WebhookConfigurationNotFound",
            "no MutatingWebhookConfiguration has the webhook inject.pgmqbus.dev: no pod gets a binding until it is"
            " installed, by helm upgrade of the chart",
        )
        return
    if isinstance(facts.injected, BusError):
        raise UnseenError(_unseen(facts.injected, facts), out_of_reach=True)
    if isinstance(facts.webhook, Mapping) and not _covers(facts.webhook, facts.namespace):
        raise UnseenError(
            f"it is not asked about pods of namespace {facts.namespace}: see scope.namespaces of the chart"
        )
    if expired := _expired(facts):
        yield Finding(
            "CertificateExpired",
            f"pods that ask get no binding, since the webhook's {expired}: the operator renews it 30 days"
            " before its end, unless it is down or may not write its Secret; with cert-manager, see its Certificate",
        )
        return
    why = ""
    if facts.handshake is not None:
        why = f" (from here: {facts.handshake})"
    yield Finding(
        "WebhookUnreachable",
        f"pods that ask get no binding: the API server does not reach the webhook, or does not trust it{why}. Are the"
        " operator's pods ready, and does a NetworkPolicy let the API server's machines reach them?",
    )


def _unseen(error: BusError, facts: InjectionFacts) -> str:
    if facts.is_pod and error.reason == "Forbidden":
        return "a pod's service account may not see it: run busctl doctor with your own kubeconfig for this"
    return str(error)


def _covers(webhook: Mapping[str, Any], namespace: str) -> bool:
    """Whether pods of the namespace are its business, as far as that is a matter of the namespace's name."""
    for part in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or ():
        if part["key"] == "kubernetes.io/metadata.name" and part["operator"] in ("In", "NotIn"):
            listed = namespace in (part.get("values") or ())
            if listed != (part["operator"] == "In"):
                return False
    return True


def _expired(facts: InjectionFacts) -> str | None:
    """When which certificate ended; None where none has, as far as is known."""
    if isinstance(facts.handshake, ssl.SSLCertVerificationError) and "expired" in facts.handshake.verify_message:
        return "certificate has expired"
    pems = [("certificate", facts.certificate)]
    if isinstance(facts.webhook, Mapping):
        pems.append(("certificate's authority", base64.b64decode(facts.webhook["clientConfig"].get("caBundle") or "")))
    from bus_operator.certificates import expiry

    for what, pem in pems:
        if isinstance(pem, bytes) and pem and expiry(pem) < facts.now:
            return f"{what} expired at {expiry(pem):%Y-%m-%dT%H:%M:%SZ}"
    return None
