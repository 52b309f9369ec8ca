"""JSON in, JSON out over the asynchronous client of the `kubernetes` package.

Its typed models are left out: importing those of the core API takes two seconds and 100 MB, for a handful of calls.
"""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from bus_operator import tallies
from bus_operator.errors import StartError

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

TIMEOUT = 30.0
"""Seconds for a request, or for a watch to begin."""

DEATH = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""On a watch's connection nothing may be sent for minutes: it breaks 30 s after the other end's last sign of life."""

UNSETTLED = 10.0
"""Seconds after the API server was away for which its refusals count as an outage too: one that has just started serves
before it knows who may do what, and refuses everybody."""

PAGE = 500
"""Objects of a list that are read at a time: a megabyte or two, held for a moment."""

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes of a page beyond which fewer objects are asked for. Users may write more than a megabyte into the metadata of
each, and to read a page takes several times its size."""

AT_ONCE = 16
"""Requests of one `KubeApi` that are made at once, watches not counted. More would wait in the API server, each with a
connection of its own, whose buffers take a third of a megabyte here."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list.

    Attributes:
        items: The objects.
        resource_version: Of the list.
        limit: How many objects it might have held, with no more than `PAGE_BYTES` (but for a single one).
    """

    items: list[dict[str, Any]]
    resource_version: str
    limit: int


@asynccontextmanager
async def connect() -> AsyncIterator["KubeApi"]:
    """The cluster this process runs in, else the current kubeconfig's. Raises StartError when there is neither."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, yaml.YAMLError) as exc:
            raise StartError(f"this is no pod with a service account, and the kubeconfig is of no use: {exc}") from exc
    # Each watch holds a connection; other requests are bounded by AT_ONCE.
    configuration.connection_pool_maxsize = 0
    async with ApiClient(configuration) as client:
        yield KubeApi(client)


class KubeApi:
    """Requests to the API server. Raises ApiException for what it refuses, aiohttp's errors if it is not reached."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self._room = asyncio.Semaphore(AT_ONCE)
        self._away_at = -math.inf

    async def get(self, path: str, *, accept: str = JSON) -> dict[str, Any]:
        """An object, or a list; `accept` may ask for part of it."""
        return await self._request("GET", path, accept=accept)

    async def pages(
        self,
        path: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[Page]:
        """A list, a page at a time.

        Raises ApiException with the status 410 when it took so long that the API server has forgotten how it went on.
        """
        limit = PAGE
        query: dict[str, str] = {}
        if label_selector is not None:
            query["labelSelector"] = label_selector
        if field_selector is not None:
            query["fieldSelector"] = field_selector
        while True:
            query["limit"] = str(limit)
            text = await self._page(f"{path}?{urlencode(query)}", accept, most=PAGE_BYTES if limit > 1 else None)
            if text is None:
                limit = max(1, limit // 4)
                continue
            size = len(text)
            page = json.loads(text)
            del text
            metadata = page["metadata"]
            yield Page(page["items"] or [], metadata["resourceVersion"], limit)
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]
            if size < PAGE_BYTES // 4:
                limit = min(PAGE, limit * 2)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Posts to a collection; the object as it then is."""
        return await self._request("POST", path, body)

    async def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH) -> dict[str, Any]:
        """Patches an object; the object as it then is."""
        return await self._request("PATCH", path, body, content_type)

    async def watch(
        self,
        path: str,
        *,
        seconds: int,
        field_selector: str | None = None,
        label_selector: str | None = None,
        version: str | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a collection until the API server ends it after `seconds`.

        They begin with what is there, or with what came after the resource version; `accept` may ask for part of it.
        """
        query = {"watch": "true", "timeoutSeconds": str(seconds)}
        if field_selector is not None:
            query["fieldSelector"] = field_selector
        if label_selector is not None:
            query["labelSelector"] = label_selector
        if version is not None:
            query["resourceVersion"] = version
        url = f"{path}?{urlencode(query)}"
        response = await self._send("GET", url, None, JSON, seconds=seconds + 30, accept=accept)
        try:
            text = b"" if response.status < 300 else await response.read()
            self._require_success(response.status, response.reason, text)
            _notice_death(response.response)
            with self._noticing_absence():
                async for line in response.response.content:
                    yield json.loads(line)
        finally:
            response.response.release()

    async def _request(
        self, method: str, path: str, body: Any = None, content_type: str = JSON, *, accept: str = JSON
    ) -> dict[str, Any]:
        async with self._room:
            return await self._exchange(method, path, body, content_type, accept=accept)

    async def _exchange(self, method: str, path: str, body: Any, content_type: str, *, accept: str) -> dict[str, Any]:
        response = await self._send(method, path, body, content_type, accept=accept, seconds=TIMEOUT)
        text = await response.read()
        self._require_success(response.status, response.reason, text)
        parsed: dict[str, Any] = json.loads(text)
        return parsed

    async def _page(self, url: str, accept: str, *, most: int | None) -> bytearray | None:
        """The JSON of a part of a list; None if it has more than `most` bytes."""
        text = bytearray()
        async with self._room:
            response = await self._send("GET", url, None, JSON, accept=accept, seconds=TIMEOUT)
            async for part in response.response.content.iter_any():
                text += part
                if most is not None and len(text) > most:
                    response.response.close()
                    return None
        self._require_success(response.status, response.reason, text)
        return text

    async def _send(
        self, method: str, path: str, body: Any, content_type: str, *, seconds: float, accept: str = JSON
    ) -> Any:
        headers = {"Content-Type": content_type, "Accept": accept}
        request = await self.client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        status = None
        try:
            with self._noticing_absence():
                async with asyncio.timeout(TIMEOUT):
                    response = await self.client.call_api(*request, _request_timeout=seconds)
            status = response.status
        finally:
            tallies.requested(method, status)
        return response

    @contextmanager
    def _noticing_absence(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError):
            self._away_at = asyncio.get_running_loop().time()
            raise

    def _require_success(self, status: int, reason: str, text: bytes | bytearray) -> None:
        if 200 <= status < 300:
            return
        now = asyncio.get_running_loop().time()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._away_at = now
        elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and now < self._away_at + UNSETTLED:
            status, reason = HTTPStatus.SERVICE_UNAVAILABLE, f"{reason} by a server that was away a moment ago"
        raise ApiException(status=status, reason=reason, body=text.decode(errors="replace"))


def _notice_death(response: aiohttp.ClientResponse) -> None:
    """Have the system break the response's connection when the other end's machine is gone, or what led to it."""
    transport = response.connection.transport if response.connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        # Ended already.
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has them all: it then takes longer.
    for name, value in DEATH:
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def unless_missing(request: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """The answer to a request; None when it is that there is no such object."""
    try:
        return await request
    except ApiException as exc:
        if exc.status == 404:
            return None
        raise


def message_of(error: ApiException) -> str:
    """The API server's own message out of an error's body."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def words_of(error: Exception) -> str:
    """What the log says of a request that failed: an ApiException's own text has several lines."""
    if isinstance(error, ApiException):
        return message_of(error)
    return str(error) or "the API server does not answer"
