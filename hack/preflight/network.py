"""Whether the network was in the way of a step that failed."""

import os
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds for a connection."""

PLACES = {
    "python": (
        ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
        "https://pypi.org/simple",
        "Python packages come from there. Behind a proxy: export HTTPS_PROXY=...; with a mirror: export"
        " UV_DEFAULT_INDEX=... PIP_INDEX_URL=...",
    ),
    "go": (
        ("GOPROXY",),
        "https://proxy.golang.org",
        "the Go modules of Kubernetes come from there. Behind a proxy: export HTTPS_PROXY=...; with a mirror: export"
        " GOPROXY=...",
    ),
}
"""What a step fetches: the variables that say where from, where from otherwise, and what to do."""


def missing(step: str, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Nothing when the place can be reached: then what the step said is all there is to say."""
    variables, otherwise, remedy = PLACES[step]
    url = next((environment[name] for name in variables if environment.get(name)), otherwise).split(",")[0]
    proxy = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
    parts = urlsplit(proxy or url)
    if not parts.hostname:
        return
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname, port), timeout=TIMEOUT).close()
    except OSError as error:
        yield f"a network that reaches {parts.hostname} ({error}): {remedy}"
