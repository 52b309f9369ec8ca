"""Whether the webhook answers as it would answer the API server: a review over TLS, to the process itself."""

import asyncio
import logging
import ssl
from functools import lru_cache

import aiohttp

from bus_operator.webhook import PATH

logger = logging.getLogger(__name__)

TIMEOUT = 3.0
"""Seconds, less than the probe's own."""

# No pod: it is allowed at once, and nothing is looked up or logged.
_REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {"uid": "readiness", "kind": {"group": "", "version": "v1", "kind": "Binding"}, "operation": "CREATE"},
}


async def webhook_answers(port: int, server_name: str, ca_bundle: bytes | None) -> bool:
    """Whether a verifier that trusts `ca_bundle` gets an answer from `server_name` on this port of the machine.

    Without `ca_bundle`, when somebody else tells the API server whom to trust, any certificate will do.
    """
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            # A connection of its own each time: the certificate may have been renewed since.
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.post(
                f"https://localhost:{port}{PATH}",
                json=_REVIEW,
                ssl=_verifier(ca_bundle),
                server_hostname=server_name,
            ) as answer,
        ):
            review = await answer.json()
            return bool(review["response"]["allowed"])
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as exc:
        logger.warning("the webhook does not answer: %s", exc or type(exc).__name__)
        return False


@lru_cache(maxsize=1)
def _verifier(ca_bundle: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_bundle is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca_bundle.decode())
    return context
