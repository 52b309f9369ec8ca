"""Percentiles, spreads, and the processes' publishing loop."""

from array import array
from typing import Any

import pytest

from benchmarks.clients.base import Client
from benchmarks.commands import Publish, Received
from benchmarks.publishing import Publisher
from benchmarks.statistics import Spread, milliseconds, percentile


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [([7], 0.5, 7), ([1, 2], 0.5, 1), ([1, 2, 3], 0.5, 2), (range(1, 101), 0.99, 99), (range(1, 61), 0.99, 60)],
)
def test_percentile_is_a_sample_of_nearest_rank(samples: Any, share: float, expected: float) -> None:
    assert percentile(samples, share) == expected


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_latencies_are_told_in_milliseconds() -> None:
    figures = milliseconds([3_000_000, 1_000_000, 2_000_000])
    assert figures == {"p50_ms": 2.0, "p99_ms": 3.0, "max_ms": 3.0}


def test_spread_is_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0, 3)
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


def test_first_published_is_not_the_first_that_arrived() -> None:
    received = Received(2, array("q", [100, 110]), array("q", [5, 40]))
    assert received.first_published == 70


class Taker(Client):
    """Takes all messages but the third."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []

    async def publish(self, payload: dict[str, Any]) -> None:
        self.payloads.append(payload)
        if len(self.payloads) == 3:
            raise ConnectionError("gone")

    async def close(self) -> None:
        pass


async def test_publishing_stops_at_the_count_and_tells_errors() -> None:
    client = Taker()
    published = await Publisher([client], Publish(size=5, in_flight=4, count=10)).run()
    assert (published.count, published.errors, published.first_error) == (9, 1, "ConnectionError: gone")
    assert len(client.payloads) == 10
    assert all(payload["pad"] == "xxxxx" and payload["t"] > 0 for payload in client.payloads)


async def test_warming_up_has_no_time() -> None:
    client = Taker()
    await Publisher([client], Publish(size=1, count=2, warm_up=True)).run()
    assert [payload["t"] for payload in client.payloads] == [0, 0]


async def test_publishing_at_a_rate_uses_all_connections() -> None:
    clients = [Taker(), Taker()]
    published = await Publisher(clients, Publish(size=1, rate=5000.0, count=20)).run()
    assert published.count + published.errors == 20
    assert [len(client.payloads) for client in clients] == [10, 10]
