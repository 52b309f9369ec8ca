"""The probes' endpoints, plain HTTP."""

from collections.abc import Callable

from aiohttp import web


class HealthServer:
    """Answers `/healthz` (the event loop turns) and `/readyz` (`ready` says so)."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._ready = ready
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Listens on all interfaces. Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="not ready\n")
