"""How a server proves who it is: by a certificate that an authority of the user's choice has issued. No I/O."""

import re
import ssl
from collections.abc import Mapping

from bus_operator.errors import SecretError

_VERIFYING = ("require", "verify-ca", "verify-full")
"""The modes in which libpq verifies when it has an authority's certificates: `require` is `verify-ca` then."""

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def authority(data: Mapping[str, str], key: str) -> str:
    """The certificates in PEM that a Secret has under a key; what else is there, such as a private key, is left out.

    Raises SecretError without quoting it.
    """
    found = _CERTIFICATE.findall(data.get(key, ""))
    if not found:
        raise SecretError(f"it has no certificate under the key {key!r}: put the authority's there, in PEM")
    pem = "\n".join(found) + "\n"
    try:
        for_driver("verify-full", pem)
    except (ValueError, TypeError, ssl.SSLError):
        raise SecretError(
            f"a certificate under its key {key!r} cannot be read: put the authority's there, whole and in PEM"
        ) from None
    return pem


def for_driver(ssl_mode: str, authority: str | None) -> str | ssl.SSLContext:
    """What asyncpg takes as `ssl`; with an authority the modes mean what they do to libpq with a root certificate.

    asyncpg takes a context at its word: no TLS or another certificate, no session. So the modes that go on without, and
    those for which there is no authority here, stay words.
    """
    if authority is None or ssl_mode not in _VERIFYING:
        return ssl_mode
    # It asks for a certificate by itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = ssl_mode == "verify-full"
    context.set_alpn_protocols(["postgresql"])
    context.load_verify_locations(cadata=authority)
    return context
