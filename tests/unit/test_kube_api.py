"""What answers of the API server mean."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client import ApiClient, ApiException
from virtual_time import run

from bus_operator.kube import Kube
from bus_operator.kube_api import UNSETTLED, KubeApi


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
    page = {"metadata": {}, "items": [{"metadata": {"name": f"pod-{number}"}} for number in range(200)]}
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
