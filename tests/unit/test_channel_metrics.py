"""Metrics of the bus: true, of existing channels only, and of so many at most."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bus_operator.catalog import ChannelUsage
from bus_operator.channel_metrics import ChannelMetrics
from bus_operator.inventory import Inventory, Resource
from bus_operator.metrics import MetricsServer
from bus_operator.surveys import Surveys

MAIN = ("pgmq-bus", "main")
LABELS = {"namespace": "shop", "database": "pgmq-bus/main"}


def channel(name: str, ready: str = "True", reason: str = "Ready", namespace: str = "shop") -> Resource:
    status: dict[str, Any] = {
        "database": {"namespace": MAIN[0], "name": MAIN[1]},
        "channel": f"secret.{name}",
        "conditions": [{"type": "Ready", "status": ready, "reason": reason}],
    }
    metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
    return Resource.from_body({"kind": "BusChannel", "metadata": metadata, "spec": {}, "status": status})


def database() -> Resource:
    metadata = {"namespace": MAIN[0], "name": MAIN[1], "uid": "uid-main"}
    return Resource.from_body({"kind": "BusDatabase", "metadata": metadata, "spec": {}})


def usage(name: str | None, number: int = 1, **values: Any) -> ChannelUsage:
    counted = dict.fromkeys(ChannelUsage._fields[2:], 0) | {"oldest": None} | values
    return ChannelUsage(number, f"uid-{name}" if name else None, **counted)


class World:
    """An inventory with one database, and surveys of it."""

    def __init__(self, *channels: Resource, limit: int = 10) -> None:
        self.inventory = Inventory()
        for resource in (database(), *channels):
            self.inventory.put(resource)
        self.surveys = Surveys()
        self.overdue: dict[str, float] = {}
        self.metrics = self.limited(limit)

    def limited(self, limit: int) -> ChannelMetrics:
        return ChannelMetrics(self.inventory, lambda: self.surveys, self._overdue, limit=limit)

    def _overdue(self) -> Iterator[tuple[Resource, float]]:
        return ((self.inventory.channels["shop", name], seconds) for name, seconds in self.overdue.items())

    async def scrape(self) -> dict[str, Metric]:
        text = (await MetricsServer(families=[self.metrics.families]).exposition()).decode()
        assert "secret." not in text
        return {family.name: family for family in text_string_to_metric_families(text)}

    async def names(self) -> list[str]:
        return [sample.labels["name"] for sample in (await self.scrape())["pgmq_bus_channel_ready"].samples]


async def test_a_status_that_names_half_a_database_costs_nobody_the_metrics() -> None:
    """Others may write a status, and its definition asks for neither half."""
    metadata = {"namespace": "shop", "name": "half", "uid": "uid-half"}
    status = {"database": {"name": "main"}}
    half = Resource.from_body({"kind": "BusChannel", "metadata": metadata, "spec": {}, "status": status})
    world = World(channel("orders"), half)
    world.overdue["half"] = 1.0
    assert sorted(await world.names()) == ["half", "orders"]


def value(families: dict[str, Metric], name: str, /, **labels: str) -> float | None:
    samples: Iterator[Any] = (sample for family in families.values() for sample in family.samples)
    return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), None)


async def test_a_channel() -> None:
    world = World(channel("orders"))
    world.surveys.record(
        MAIN,
        {0: [usage("orders", doorbell=2, poll=1, backlog=7, oldest=61.5, published=100, redelivered=3, lost=2,
                   messages=9, bytes=8192)]},
    )  # fmt: skip
    families = await world.scrape()
    of = LABELS | {"name": "orders"}
    assert value(families, "pgmq_bus_channel_ready", **of) == 1
    assert [value(families, "pgmq_bus_channel_peers", wake=wake, **of) for wake in ("doorbell", "listen", "poll")] == [
        2, 0, 1,
    ]  # fmt: skip
    assert value(families, "pgmq_bus_channel_backlog_messages", **of) == 7
    assert value(families, "pgmq_bus_channel_oldest_message_age_seconds", **of) == 61.5
    assert value(families, "pgmq_bus_channel_published_messages_total", **of) == 100
    assert value(families, "pgmq_bus_channel_redelivered_messages_total", **of) == 3
    assert value(families, "pgmq_bus_channel_lost_messages_total", **of) == 2
    assert value(families, "pgmq_bus_channel_log_messages", **of) == 9
    assert value(families, "pgmq_bus_channel_log_bytes", **of) == 8192


async def test_a_deleted_channel_vanishes_and_a_retained_one_counts_for_its_database() -> None:
    orders = channel("orders")
    world = World(orders)
    world.surveys.record(MAIN, {0: [usage("orders", backlog=7, bytes=100), usage(None, 2, backlog=3, bytes=50)]})
    world.inventory.remove(orders)
    families = await world.scrape()
    assert families["pgmq_bus_channel_ready"].samples == []
    assert families["pgmq_bus_channel_backlog_messages"].samples == []
    main = {"database": "pgmq-bus/main"}
    assert value(families, "pgmq_bus_database_channels", **main) == 2
    assert value(families, "pgmq_bus_database_channels_retained", **main) == 1
    assert value(families, "pgmq_bus_database_backlog_messages", **main) == 10
    assert value(families, "pgmq_bus_database_log_bytes", **main) == 150
    assert value(families, "pgmq_bus_database_lost_messages_total", **main) == 0
    del world.inventory.databases[MAIN]
    assert (await world.scrape())["pgmq_bus_database_channels"].samples == []


async def test_who_does_not_lead_says_nothing() -> None:
    metrics = ChannelMetrics(World(channel("orders")).inventory, lambda: None, lambda: (), limit=10)
    assert list(metrics.families()) == []


async def test_readiness() -> None:
    refused = channel("a", "False", "ChannelConflict"), channel("b", "False", "ChannelConflict")
    families = await World(channel("orders"), *refused).scrape()
    count = "pgmq_bus_resources"
    assert value(families, count, kind="BusChannel", ready="True", reason="Ready") == 1
    assert value(families, count, kind="BusChannel", ready="False", reason="ChannelConflict") == 2
    assert value(families, count, kind="BusDatabase", ready="Unknown", reason="NotReconciledYet") == 1
    assert value(families, "pgmq_bus_channel_ready", name="a", **LABELS) == 0


async def test_no_more_than_the_limit_and_the_worst_first() -> None:
    broken = channel("z-broken", "False", "DatabaseUnavailable")
    names = [f"c{number}" for number in range(5)]
    world = World(broken, *(channel(name) for name in names), limit=4)
    world.surveys.record(MAIN, {0: [usage(name, number) for number, name in enumerate(names)]})
    rows = {name: usage(name, number) for number, name in enumerate(names)}
    rows["c2"] = rows["c2"]._replace(backlog=1, oldest=300.0)
    rows["c3"] = rows["c3"]._replace(backlog=9, oldest=10.0)
    rows["c4"] = rows["c4"]._replace(lost=1)
    world.surveys.record(MAIN, {0: list(rows.values())})
    assert await world.names() == ["z-broken", "c4", "c2", "c3"]
    families = await world.scrape()
    assert value(families, "pgmq_bus_channels_left_out") == 2
    assert value(families, "pgmq_bus_database_backlog_messages", database="pgmq-bus/main") == 10
    assert value(families, "pgmq_bus_database_lost_messages_total", database="pgmq-bus/main") == 1


async def test_overdue_rotations_and_the_longest_first() -> None:
    world = World(*(channel(name) for name in "abc"), limit=2)
    overdue = (await world.scrape())["pgmq_bus_channel_rotation_overdue_seconds"]
    assert overdue.samples == []
    world.overdue = {"a": 30.0, "b": 7200.0, "c": 600.0}
    overdue = (await world.scrape())["pgmq_bus_channel_rotation_overdue_seconds"]
    assert {(item.labels["name"], item.value) for item in overdue.samples} == {("b", 7200), ("c", 600)}
    assert overdue.samples[0].labels == LABELS | {"name": "b"}


async def test_within_the_limit_none_is_left_out() -> None:
    world = World(channel("a"), channel("b"), limit=2)
    assert await world.names() == ["a", "b"]
    assert value(await world.scrape(), "pgmq_bus_channels_left_out") == 0


@pytest.mark.parametrize("limit", [0, 1000])
async def test_what_two_thousand_channels_cost(limit: int) -> None:
    world = World(*(channel(f"channel-{number}", namespace=f"team-{number % 40}") for number in range(2000)))
    tracemalloc.start()
    rows = [usage(f"channel-{n}", n, published=10**9 + n, bytes=10**6 + n, oldest=n / 7) for n in range(2000)]
    world.surveys.record(MAIN, {0: rows})
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # A kilobyte for each channel: 5 MiB for 5,000 of them.
    assert kept < 2000 * 1024
    world.metrics = world.limited(limit)
    families = await world.scrape()
    assert len(families["pgmq_bus_channel_ready"].samples) == limit
    assert value(families, "pgmq_bus_channels_left_out") == 2000 - limit
