"""The probes' endpoints, plain HTTP."""

from collections.abc import Awaitable, Callable

from aiohttp import web


class HealthServer:
    """Answers `/livez` (the event loop turns, and nothing is wrong that a restart cures) and `/readyz`.

    Args:
        ailment: What a restart would cure; None when there is nothing.
        ready: Whether the webhook answers.
    """

    def __init__(self, ailment: Callable[[], str | None], ready: Callable[[], Awaitable[bool]]) -> None:
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._ailment = ailment
        self._ready = ready
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Listens on all interfaces. Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        ailment = self._ailment()
        return web.Response(text="ok\n") if ailment is None else web.Response(status=503, text=f"{ailment}\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        ready = await self._ready()
        return web.Response(text="ok\n") if ready else web.Response(status=503, text="the webhook does not answer\n")
