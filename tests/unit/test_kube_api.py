"""What answers of the API server mean."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from postgres import free_port
from virtual_time import run

from bus_operator import kube_api
from bus_operator.kube import Kube
from bus_operator.kube_api import PAGE, PAGE_BYTES, UNSETTLED, KubeApi


@dataclass
class Server:
    """In the place of the client: answers with a status, or is not there."""

    status: int | None = 200
    reason: str = "as the test says"
    asked: list[str] = field(default_factory=list)
    body: bytes = b"{}"

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[str, str]:
        return method, path

    async def call_api(self, method: str, path: str, **_: Any) -> "Server":
        self.asked.append(f"{method} {path}")
        if self.status is None:
            raise aiohttp.ClientConnectionError("away")
        return self

    async def read(self) -> bytes:
        return self.body

    @property
    def response(self) -> "Server":
        return self

    @property
    def content(self) -> "Server":
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self.body

    def close(self) -> None:
        pass


async def status_of(api: KubeApi) -> int | None:
    with pytest.raises((ApiException, aiohttp.ClientError)) as caught:
        await api.get("/any")
    return getattr(caught.value, "status", None)


@pytest.mark.parametrize("absence", [None, 500, 503])
@pytest.mark.parametrize("refusal", [401, 403])
def test_refusals_of_a_server_that_was_away_a_moment_ago_are_not_believed(absence: int | None, refusal: int) -> None:
    async def ask() -> None:
        server = Server(refusal)
        api = KubeApi(cast(ApiClient, server))
        assert await status_of(api) == refusal
        server.status = absence
        assert await status_of(api) == absence
        server.status = refusal
        assert await status_of(api) == 503
        await asyncio.sleep(UNSETTLED)
        assert await status_of(api) == refusal

    run(ask())


async def test_whoever_looks_at_many_pods_leaves_others_a_turn() -> None:
    """A page of them comes at once, and the Lease must be renewed meanwhile."""
    page = {
        "metadata": {"resourceVersion": "1"},
        "items": [{"metadata": {"name": f"pod-{number}"}} for number in range(200)],
    }
    server = Server(body=json.dumps(page).encode())
    kube = Kube(KubeApi(cast(ApiClient, server)), secrets_role="secrets", service_account=("bus", "operator"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    try:
        assert len([pod async for pod in kube.unlabelled_pods("shop")]) == 200
    finally:
        task.cancel()
    assert turns >= 200


class Lists:
    """An API server in little: lists objects of these sizes, as many at a time as it is asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.answers: list[int] = []
        self.sent = 0

    async def list(self, request: web.Request) -> web.StreamResponse:
        first, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        page = self.sizes[first : first + limit]
        after = first + len(page)
        metadata = {"resourceVersion": "1"} | ({"continue": str(after)} if after < len(self.sizes) else {})
        items = [
            {"metadata": {"name": str(first + number), "annotations": {"a": "x" * size}}}
            for number, size in enumerate(page)
        ]
        body = json.dumps({"metadata": metadata, "items": items}).encode()
        self.answers.append(len(body))
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            for begin in range(0, len(body), 65536):
                await response.write(body[begin : begin + 65536])
                self.sent += min(65536, len(body) - begin)
        return response


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[KubeApi]:
    """A client of an API server that answers with this."""
    app = web.Application()
    app.router.add_get("/things", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
            yield KubeApi(client)
    finally:
        await runner.cleanup()


async def test_what_users_write_into_their_metadata_does_not_fill_the_memory() -> None:
    """One of them can make hundreds of objects of a megabyte, and the operator is everybody's."""
    lists = Lists([1000] * 700 + [300_000] * 100 + [1000] * 700)
    names: list[int] = []
    limits: list[int] = []
    largest = 0
    async with served(lists.list) as api:
        async for page in api.pages("/things"):
            names += [int(item["metadata"]["name"]) for item in page.items]
            limits.append(page.limit)
            largest = max(largest, len(json.dumps(page.items)))
            assert len(page.items) <= page.limit
    assert names == list(range(1500)), "each once, in order"
    assert largest <= PAGE_BYTES
    # What kopf, which cannot choose, is told to read at a time.
    assert min(limits) * 300_000 <= PAGE_BYTES
    assert limits[0] == PAGE
    # What is too large is not read to its end, and pages grow again afterwards.
    assert lists.sent < 3 * sum(lists.sizes)
    assert len(lists.answers) < 60


async def test_an_object_that_is_larger_than_a_page() -> None:
    page = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [{"a": "x" * PAGE_BYTES}]}).encode()
    server = Server(body=page)
    pages = [page async for page in KubeApi(cast(ApiClient, server)).pages("/things")]
    assert [len(page.items) for page in pages] == [1]
    assert server.asked[-1].endswith("limit=1")


async def test_the_death_of_the_other_machine_ends_a_watch_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does kopf's, and not after the minutes for which it was asked: nothing may be sent in all that time."""
    over = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED"}\n')
        await over.wait()
        return response

    async with served(watch) as api:
        sent, send = [], api._send

        async def record(*arguments: Any, **options: Any) -> Any:
            sent.append(await send(*arguments, **options))
            return sent[-1]

        monkeypatch.setattr(api, "_send", record)
        async for event in api.watch("/things", seconds=600):
            assert event == {"type": "ADDED"}
            found = sent[0].response.connection.transport.get_extra_info("socket")
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                found.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + interval * count <= 70
            over.set()


async def test_a_watch_that_gets_no_answer_is_given_up_as_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "TIMEOUT", 0.2)

    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with served(never) as api:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(api.watch("/things", seconds=600)), 20)
        assert time.monotonic() - begun < 20
