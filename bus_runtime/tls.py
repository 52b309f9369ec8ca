"""How the server proves who it is, where the binding says by which authority."""

from __future__ import annotations

import os
import ssl
from urllib.parse import parse_qsl, urlsplit

from bus_runtime.binding import Binding
from bus_runtime.errors import BindingError

#: The modes in which libpq verifies when it has an authority's certificates: `require` is `verify-ca` then.
_VERIFYING = ("require", "verify-ca", "verify-full")


def context_of(binding: Binding) -> ssl.SSLContext | None:
    """What the driver is to make of TLS; None: what the URI and libpq's variables say.

    The driver takes a context at its word: no TLS or another certificate, no session.

    Raises:
        BindingError: `ca.crt` cannot be read.
        ValueError: The URI cannot.
    """
    mode = dict(parse_qsl(urlsplit(binding.uri).query)).get("sslmode") or os.environ.get("PGSSLMODE")
    if not binding.authority or mode not in _VERIFYING:
        return None
    # It asks for a certificate by itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = mode == "verify-full"
    context.set_alpn_protocols(["postgresql"])
    try:
        context.load_verify_locations(cadata=binding.authority)
    except (ValueError, TypeError, ssl.SSLError) as exc:
        raise BindingError(
            f"ca.crt of binding {binding.name!r} holds no certificates that can be read: {exc}. Where the BusDatabase"
            " has a spec.caSecretRef, the operator puts it right"
        ) from exc
    return context
