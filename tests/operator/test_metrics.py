"""The metrics of the real operator are true: scraped as Prometheus does it, while things happen."""

import asyncio
import itertools
import re
import time

import postgres
from control_plane import ROOT, wait_until
from operator_process import RESYNC_SECONDS
from operator_world import Namespace, World
from scraping import scrape, scrape_text, value, wait_for

from bus_operator import sql
from bus_operator.surveys import ROUND


async def test_channels(world: World, namespace: Namespace) -> None:
    database = await world.postgres()
    operator = world.operator
    assert value(operator, "pgmq_bus_leader") == 1
    assert value(operator, "pgmq_bus_watch_deaf") == 0
    assert (value(operator, "pgmq_bus_webhook_certificate_expiry_timestamp_seconds") or 0) > time.time()
    done = value(operator, "pgmq_bus_reconciles_total", kind="BusChannel", outcome="done")
    assert done is not None
    patched = value(operator, "pgmq_bus_api_requests_total", verb="PATCH", status="2xx") or 0
    namespace.database(database.dsn)
    channel = namespace.channel(retention={"maxMessages": 10})
    await asyncio.to_thread(channel.wait_ready)
    assert value(operator, "pgmq_bus_reconciles_total", kind="BusChannel", outcome="done") > done
    assert (value(operator, "pgmq_bus_api_requests_total", verb="PATCH", status="2xx") or 0) > patched
    assert (value(operator, "pgmq_bus_database_sessions") or 0) > 0

    main = f"{namespace.name}/main"
    assert value(operator, "pgmq_bus_database_up", database=main) == 1
    assert value(operator, "pgmq_bus_database_breaker", database=main, state="closed") == 1
    of = {"namespace": namespace.name, "name": "orders", "database": main}

    async def becomes(expected: float | None, name: str, /, **labels: str) -> None:
        await asyncio.to_thread(wait_for, operator, expected, f"pgmq_bus_channel_{name}", **of, **labels)

    await becomes(1, "ready")
    async with namespace.login() as login:
        reader, other = await login.join(), await login.join("other")
        await login.publish(reader, *range(25))
        await becomes(25, "published_messages_total")
        await becomes(25, "backlog_messages")
        await becomes(2, "peers", wake="poll")
        assert (value(operator, "pgmq_bus_channel_oldest_message_age_seconds", **of) or 0) > 0
        assert (value(operator, "pgmq_bus_channel_log_bytes", **of) or 0) > 0
        # Readers trim: what neither of them has read is over the limit.
        assert await login.read(reader) == await login.read(other) == list(range(15, 25))
        await becomes(2 * 15, "lost_messages_total")
        await becomes(10, "log_messages")
    channel.delete()
    await asyncio.to_thread(channel.wait_gone)
    assert value(operator, "pgmq_bus_channel_ready", **of) is None
    assert value(operator, "pgmq_bus_channel_backlog_messages", **of) is None
    await asyncio.to_thread(wait_for, operator, 1, "pgmq_bus_database_channels_retained", database=main)


async def test_a_database_that_is_down(world: World, namespace: Namespace, fragile_server: postgres.Server) -> None:
    database = await world.postgres(server=fragile_server)
    operator = world.operator
    ref = namespace.database(database.dsn)
    await asyncio.to_thread(ref.wait_ready)
    main = f"{namespace.name}/main"
    assert value(operator, "pgmq_bus_database_up", database=main) == 1
    failed = value(operator, "pgmq_bus_errors_total", kind="BusDatabase", reason="ConnectionFailed") or 0
    fragile_server.stop()
    await asyncio.to_thread(wait_for, operator, 0, "pgmq_bus_database_up", database=main)
    await asyncio.to_thread(wait_for, operator, 1, "pgmq_bus_database_breaker", database=main, state="open")

    def is_counted() -> bool:
        """The probe that found it out comes before the look that fails."""
        retried = value(operator, "pgmq_bus_reconciles_total", kind="BusDatabase", outcome="retry")
        counted = value(operator, "pgmq_bus_errors_total", kind="BusDatabase", reason="ConnectionFailed")
        return (counted or 0) > failed and (retried or 0) > 0

    await asyncio.to_thread(wait_until, is_counted, "the failure is counted")
    fragile_server.start()
    await asyncio.to_thread(wait_for, operator, 1, "pgmq_bus_database_up", database=main)


async def test_no_channel_is_surveyed_twice(world: World, namespace: Namespace) -> None:
    """The survey by which a resync finds what has changed is the one that the metrics are made of."""
    database = await world.postgres()
    begun = len(world.server.log)
    namespace.database(database.dsn)
    await asyncio.to_thread(namespace.channel().wait_ready)
    looks = {_first_line("end_silent_sessions"): "resync", _first_line("survey"): "survey"}
    statement = re.compile(rf"LOG:  execute [^:]+: ({'|'.join(map(re.escape, looks))})")

    def order() -> list[str]:
        return [looks[line] for line in statement.findall(world.server.log[begun:])]

    def resyncs_longer_than_a_round() -> bool:
        return order().count("resync") > 2 * ROUND / RESYNC_SECONDS

    await asyncio.to_thread(wait_until, resyncs_longer_than_a_round, "it is looked at again and again", 180)
    found = order()
    assert found.count("survey") > ROUND / RESYNC_SECONDS
    assert ("survey", "survey") not in itertools.pairwise(found), found
    assert value(world.operator, "pgmq_bus_database_channels", database=f"{namespace.name}/main") == 1


def _first_line(query: str) -> str:
    return sql.query(query).splitlines()[0]


async def test_no_secret_and_no_wire_name(world: World, namespace: Namespace) -> None:
    database = await world.postgres()
    namespace.database(database.dsn)
    await asyncio.to_thread(namespace.channel(channel="a-wire-name-of-its-own").wait_ready)
    binding = namespace.secret("orders-bus")
    assert binding is not None
    labels = {value for _, pairs in scrape(world.operator) for _, value in pairs}
    for hidden in (binding["password"], binding["username"], binding["channel"], database.dsn):
        assert not any(hidden in label for label in labels)


def test_what_the_alerts_and_the_dashboard_ask_for_is_there(world: World, namespace: Namespace) -> None:
    """Series of channels and databases are there in type and name before there is any: a scrape tells all families."""
    text = scrape_text(world.operator)
    served = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    served |= {f"{name}_bucket" for name in served}
    files = ROOT / "charts" / "pgmq-bus" / "files"
    for file in ("alerts.yaml", "dashboard.json"):
        asked = set(re.findall(r"\b(?:pgmq_bus|process)_[a-z_]+", (files / file).read_text()))
        assert asked
        assert asked <= served, f"{file}: {sorted(asked - served)}"
