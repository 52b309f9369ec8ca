"""As much of a Kubernetes client as it takes to start a cluster."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .console import ClusterError

TIMEOUT_SECONDS = 10
FIELD_MANAGER = "pgmq-bus-hack-cluster"


class Api:
    """The API server as its administrator sees it.

    Args:
        server: its URL.
        pki: directory made by `pki.ensure`.
    """

    def __init__(self, server: str, pki: Path) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        # Never through a proxy that the environment may name.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._token = (pki / "admin.token").read_text()

    def ready(self) -> bool:
        """Return whether the API server serves."""
        try:
            self._request("GET", "/readyz")
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def get(self, path: str) -> dict[str, Any] | None:
        """Return an object, None when there is none (yet), or the server does not answer."""
        try:
            found: dict[str, Any] = json.loads(self._request("GET", path))
        except (OSError, urllib.error.HTTPError):
            return None
        return found

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Make the object at `path` be as the manifest says (server-side apply).

        Raises:
            ClusterError: the server refused it.
        """
        try:
            self._request("PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", json.dumps(manifest))
        except urllib.error.HTTPError as refusal:
            raise ClusterError(f"the API server refused {path}: {refusal.read().decode()}") from refusal

    def _request(self, method: str, path: str, body: str | None = None) -> bytes:
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=body.encode() if body else None,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/apply-patch+yaml"},
        )
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            answer: bytes = response.read()
        return answer
