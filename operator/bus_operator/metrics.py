"""The metrics endpoint: what was counted, and what is read when somebody asks, in Prometheus' text format.

Plain HTTP without a login, on a port of its own, as Prometheus expects it: there is no secret in any label, and the
chart has a NetworkPolicy for who wants to close it.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from aiohttp import web
from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from bus_operator import sql, tallies

Families = Callable[[], Iterable[Metric]]
"""Reads some metrics."""


@dataclass(frozen=True)
class Gauge:
    """A number that is read when somebody asks; nothing is kept for it."""

    name: str
    documentation: str
    labels: Sequence[str]
    read: Callable[[], Iterable[tuple[Sequence[str], float]]]
    """The values of the labels, and the number."""

    def family(self) -> GaugeMetricFamily:
        """What it is now."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, number in self.read():
            family.add_metric(values, number)
        return family


class MetricsServer:
    """Answers `/metrics`.

    Args:
        gauges: What is read at each scrape.
        families: Further sources of metrics.
    """

    def __init__(self, gauges: Sequence[Gauge] = (), families: Sequence[Families] = ()) -> None:
        self._gauges = gauges
        self._families = families
        self._process = ProcessCollector(registry=None)
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Listens on all interfaces. Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def exposition(self) -> bytes:
        """Everything, family by family: with thousands of channels the whole would hold up the admission of pods."""
        text = []
        for family in self._collect():
            text.append(generate_latest(_One(family)))
            await asyncio.sleep(0)
        return b"".join(text)

    def _collect(self) -> Iterable[Metric]:
        yield from tallies.REGISTRY.collect()
        for gauge in self._gauges:
            yield gauge.family()
        for families in self._families:
            yield from families()
        yield _build_info()
        yield from self._process.collect()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await self.exposition(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


@dataclass(frozen=True)
class _One:
    """A collector of one family that is there already."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


def _build_info() -> Metric:
    built = {"version": version("pgmq-bus"), "schema": str(sql.schema_version())}
    return InfoMetricFamily(
        "pgmq_bus_build", "The version of this operator, and of the schema it installs.", value=built
    )
