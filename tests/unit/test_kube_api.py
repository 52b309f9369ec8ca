"""What answers of the API server mean."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client import ApiClient, ApiException
from virtual_time import run

from bus_operator.kube_api import UNSETTLED, KubeApi


@dataclass
class Server:
    """In the place of the client: answers with a status, or is not there."""

    status: int | None = 200
    reason: str = "as the test says"
    asked: list[str] = field(default_factory=list)

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[str, str]:
        return method, path

    async def call_api(self, method: str, path: str, **_: Any) -> "Server":
        self.asked.append(f"{method} {path}")
        if self.status is None:
            raise aiohttp.ClientConnectionError("away")
        return self

    async def read(self) -> bytes:
        return b"{}"


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
