"""Requests to an API server for busctl, by the standard library: a command has no second to import a client in.

The operator, which runs for months, has `kube_api.py`.
"""

import base64
import http.client
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bus_operator.errors import NotFoundError, SpecError, TransientError
from bus_operator.kubeconfig import ClusterAccess, Credential, KubeconfigError

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"

PAGE = 500
"""Objects of a list that are read at a time, as kubectl does."""

TIMEOUT = 10.0
"""Seconds for a request."""


@dataclass(frozen=True)
class Typed:
    """The command line that requests are for: what cannot be done from here is said with how to do it elsewhere."""

    busctl: str = "busctl ..."
    """It, as it means the same in a pod of the cluster."""
    kubectl: str = "kubectl exec"
    """What runs something in a pod of that cluster."""


class ClusterClient:
    """JSON in, JSON out.

    Every request raises TransientError when the API server cannot be reached, SpecError for what it refuses and
    NotFoundError for what is not there.
    """

    def __init__(self, access: ClusterAccess, *, timeout: float = TIMEOUT) -> None:
        self.access = access
        self.typed = Typed()
        self._timeout = timeout
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=_tls(access))]
        if access.proxy:
            handlers.append(urllib.request.ProxyHandler({"https": access.proxy, "http": access.proxy}))
        self._opener = urllib.request.build_opener(*handlers)
        self._headers = {"Accept": JSON, "User-Agent": "busctl"} | _authorization(access.credential)

    def get(self, path: str, *, accept: str = JSON) -> dict[str, Any]:
        """An object, or a list; `accept` may ask for part of it."""
        return self._request("GET", path, headers={"Accept": accept})

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH) -> dict[str, Any]:
        """Patches an object; the object as it then is."""
        return self._request("PATCH", path, body, {"Content-Type": content_type})

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Posts to a collection, or a question to a review; the answer."""
        return self._request("POST", path, body, {"Content-Type": JSON})

    def items(
        self, path: str, *, label_selector: str | None = None, field_selector: str | None = None, accept: str = JSON
    ) -> Iterator[dict[str, Any]]:
        """The objects of a collection."""
        for page in self._pages(path, label_selector, field_selector, accept):
            yield from page["items"] or ()

    def rows(
        self, path: str, *, label_selector: str | None = None, field_selector: str | None = None
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """What `kubectl get` prints of a collection, or of an object: cells by column, and the object's metadata."""
        columns: list[str] = []
        for page in self._pages(path, label_selector, field_selector, _TABLE):
            # Only the first page has them.
            columns = columns or [column["name"] for column in page["columnDefinitions"]]
            for row in page["rows"] or ():
                yield dict(zip(columns, row["cells"], strict=False)), row["object"]

    def _pages(
        self, path: str, label_selector: str | None, field_selector: str | None, accept: str
    ) -> Iterator[dict[str, Any]]:
        query = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        while True:
            page = self.get(f"{path}?{urlencode(query)}", accept=accept)
            yield page
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    def _request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the server of the kubeconfig, whatever its scheme
            self.access.server + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers=self._headers | dict(headers or {}),
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as exc:
            raise _refusal(exc) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
            raise TransientError(
                f"{self.access.title} cannot be reached at {self.access.server}: {cause}", reason="ApiUnavailable"
            ) from exc


def _refusal(error: urllib.error.HTTPError) -> SpecError | TransientError:
    try:
        message = str(json.load(error)["message"])
    except (OSError, ValueError, KeyError, TypeError):
        message = f"{error.code} {error.reason}"
    if error.code == 404:
        return NotFoundError(message)
    if error.code == 401:
        return SpecError(f"the API server does not know who you are: {message}", reason="Unauthorized")
    if error.code == 403:
        return SpecError(message, reason="Forbidden")
    if error.code == 429 or error.code >= 500:
        return TransientError(f"the API server cannot answer now: {message}", reason="ApiUnavailable")
    return SpecError(message, reason="ApiRefused")


def _authorization(credential: Credential) -> dict[str, str]:
    if credential.token:
        return {"Authorization": f"Bearer {credential.token}"}
    if credential.basic:
        encoded = base64.b64encode(":".join(credential.basic).encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


class _NamedContext(ssl.SSLContext):
    """Looks for one name in certificates, whatever the host is called."""

    server_name: str | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        if self.server_name:
            options["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **options)


def _tls(access: ClusterAccess) -> ssl.SSLContext:
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = access.server_name
    try:
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif access.authority is not None:
            context.load_verify_locations(cadata=access.authority.decode())
        else:
            context.load_default_certs()
        if access.credential.certificate and access.credential.key:
            _load_client(context, access.credential.certificate, access.credential.key)
    except (ssl.SSLError, ValueError) as exc:
        raise KubeconfigError(f"the certificates of {access.title} cannot be used: {exc}") from exc
    return context


def _load_client(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # It takes them from a file only.
    with tempfile.TemporaryDirectory(prefix="busctl-") as directory:
        path = Path(directory, "client.pem")
        path.touch(mode=0o600)
        path.write_bytes(certificate + b"\n" + key)
        context.load_cert_chain(path)
