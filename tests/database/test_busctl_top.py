"""What `busctl top` measures while channels come and go."""

import postgres
import pytest

from bus_operator.channel_reader import Holding
from bus_operator.throughput import Meter

# One version is enough: what differs between them is in the other tests.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])


async def test_channels_come_and_go_under_a_meter(database: postgres.Database) -> None:
    await database.create_channel("orders")
    async with Meter([Holding(database.admin, ("orders",))]) as meter:
        await meter.measure()
        await database.create_channel("audit")
        await meter.follow([Holding(database.admin, ("orders", "audit"))])
        rates, failures = await meter.measure()
        assert failures == []
        # One that was there before has a rate: its session and its samples were kept.
        assert {rate.now.channel: rate.published for rate in rates} == {"orders": 0.0, "audit": None}
        await meter.follow([])
        assert await meter.measure() == ([], [])
    async with database.session() as session:
        ours = "application_name = 'busctl' and datname = current_database()"
        assert await session.fetchval(f"select count(*) from pg_stat_activity where {ours}") == 0
