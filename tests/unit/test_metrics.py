"""The metrics endpoint: what was counted and what is read at a scrape, as Prometheus reads it."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest
from postgres import free_port
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bus_operator import tallies
from bus_operator.errors import ConnectionFailedError
from bus_operator.metrics import Gauge, MetricsServer


async def scrape(server: MetricsServer) -> dict[str, Metric]:
    text = (await server.exposition()).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, /, **labels: str) -> float | None:
    found = [sample for family in families.values() for sample in family.samples if sample.name == name]
    return next((sample.value for sample in found if sample.labels == labels), None)


async def test_what_was_counted() -> None:
    server = MetricsServer()
    before = await scrape(server)
    with pytest.raises(ConnectionFailedError), tallies.reconciling("BusChannel"):
        raise ConnectionFailedError("it is down")
    tallies.requested("PATCH", 409)
    tallies.requested("GET", None)
    tallies.admitted("injected", 0.001)
    after = await scrape(server)

    def grown(name: str, **labels: str) -> float:
        return (value(after, name, **labels) or 0) - (value(before, name, **labels) or 0)

    assert grown("pgmq_bus_reconciles_total", kind="BusChannel", outcome="retry") == 1
    duration = "pgmq_bus_reconcile_duration_seconds"
    assert grown(f"{duration}_count", kind="BusChannel", outcome="retry") == 1
    assert grown(f"{duration}_bucket", kind="BusChannel", outcome="retry", le="+Inf") == 1
    assert grown("pgmq_bus_errors_total", kind="BusChannel", reason="ConnectionFailed") == 1
    assert grown("pgmq_bus_api_requests_total", verb="PATCH", status="4xx") == 1
    assert grown("pgmq_bus_api_requests_total", verb="GET", status="none") == 1
    assert grown("pgmq_bus_admissions_total", outcome="injected") == 1


async def test_how_reconciliations_end() -> None:
    async def count(outcome: str) -> float:
        name = "pgmq_bus_reconciles_total"
        return value(await scrape(MetricsServer()), name, kind="BusDatabase", outcome=outcome) or 0

    before = {outcome: await count(outcome) for outcome in ("done", "retry", "defect")}
    with tallies.reconciling("BusDatabase"):
        pass
    for error in (KeyError(), asyncio.CancelledError()):
        with pytest.raises(type(error)), tallies.reconciling("BusDatabase"):
            raise error
    after = {outcome: await count(outcome) for outcome in before}
    # What was cancelled had no end of its own.
    assert after == before | {"done": before["done"] + 1, "defect": before["defect"] + 1}


async def test_a_rate_has_a_value_before_the_first_event() -> None:
    families = await scrape(MetricsServer())
    for outcome in (tallies.DONE, tallies.RETRY, tallies.DEFECT):
        assert value(families, "pgmq_bus_reconciles_total", kind="BusDatabase", outcome=outcome) is not None


async def test_gauges_are_read_at_each_scrape() -> None:
    up = {"shop/main": 1.0}

    def read() -> Iterator[tuple[tuple[str], float]]:
        yield from (((name,), number) for name, number in up.items())

    server = MetricsServer([Gauge("pgmq_bus_database_up", "Whether.", ("database",), read)])
    assert value(await scrape(server), "pgmq_bus_database_up", database="shop/main") == 1
    up["shop/main"] = 0.0
    assert value(await scrape(server), "pgmq_bus_database_up", database="shop/main") == 0
    up.clear()
    assert value(await scrape(server), "pgmq_bus_database_up", database="shop/main") is None


async def test_process_and_build() -> None:
    families = await scrape(MetricsServer())
    assert (value(families, "process_resident_memory_bytes") or 0) > 1_000_000
    (build,) = families["pgmq_bus_build_info"].samples
    assert build.value == 1
    assert set(build.labels) == {"version", "schema"}


async def test_over_http() -> None:
    server = MetricsServer()
    port = free_port()
    await server.start(port)
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert "# TYPE pgmq_bus_reconciles_total counter" in await answer.text()
    finally:
        await server.stop()
