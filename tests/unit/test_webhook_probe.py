"""The readiness probe's own question: does the webhook answer, as the API server would ask it."""

import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bus_operator import webhook_probe
from bus_operator.certificates import CertificateBundle, plan_certificates, service_names
from bus_operator.serving_certificates import load_key_pair, new_server_context
from bus_operator.webhook import WebhookServer, make_app
from bus_operator.webhook_probe import webhook_answers

NAME, *_ = NAMES = service_names("pgmq-bus", "bus-system")


def new_bundle() -> CertificateBundle:
    return plan_certificates(None, NAMES, datetime.now(UTC))


async def look_nothing_up(_namespace: str, _of: object) -> Any:
    raise AssertionError("a probe is about no pod")


@pytest.fixture
def bundle() -> CertificateBundle:
    return new_bundle()


@pytest.fixture
def context(bundle: CertificateBundle) -> ssl.SSLContext:
    context = new_server_context()
    load_key_pair(context, bundle.certificate, bundle.key)
    return context


@pytest.fixture
async def server(context: ssl.SSLContext) -> AsyncIterator[WebhookServer]:
    server = WebhookServer(make_app(look_nothing_up, look_nothing_up))
    await server.start("127.0.0.1", 0, context)
    yield server
    await server.stop()


async def test_it_answers(server: WebhookServer, bundle: CertificateBundle) -> None:
    assert await webhook_answers(server.port, NAME, bundle.ca_certificates)
    assert await webhook_answers(server.port, NAME, None), "somebody else says whom to trust"


async def test_a_certificate_that_the_api_server_would_not_accept(
    server: WebhookServer, bundle: CertificateBundle
) -> None:
    assert not await webhook_answers(server.port, NAME, new_bundle().ca_certificates)
    assert not await webhook_answers(server.port, "another.bus-system.svc", bundle.ca_certificates)


async def test_a_renewed_certificate(server: WebhookServer, context: ssl.SSLContext, bundle: CertificateBundle) -> None:
    """Of another authority: each probe sees what new connections see."""
    assert await webhook_answers(server.port, NAME, bundle.ca_certificates)
    renewed = new_bundle()
    load_key_pair(context, renewed.certificate, renewed.key)
    assert not await webhook_answers(server.port, NAME, bundle.ca_certificates)
    assert await webhook_answers(server.port, NAME, renewed.ca_certificates)


async def test_nobody_listens(server: WebhookServer, bundle: CertificateBundle) -> None:
    port = server.port
    await server.stop()
    assert not await webhook_answers(port, NAME, bundle.ca_certificates)


async def test_it_accepts_and_is_silent(bundle: CertificateBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe answers all the same, before the kubelet gives it up."""
    monkeypatch.setattr(webhook_probe, "TIMEOUT", 0.2)
    # The kernel takes the connection, and nobody reads from it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not await webhook_answers(silent.getsockname()[1], NAME, bundle.ca_certificates)
