"""`busctl top`: what goes through channels, live."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import click

from bus_operator.channel_view import brief_age
from bus_operator.cli import completion
from bus_operator.cli import output as out
from bus_operator.cli.output import Column
from bus_operator.cli.source import ClusterSource, Source, source_options
from bus_operator.errors import BusError
from bus_operator.texts import printable

if TYPE_CHECKING:
    from bus_operator.channel_reader import Holding
    from bus_operator.cli.reach import Reach
    from bus_operator.throughput import Rate

_COLUMNS = (
    Column("CHANNEL"),
    Column("PUBLISHED/s", right=True),
    Column("DELIVERED/s", right=True),
    Column("PEERS", right=True),
    Column("BACKLOG", right=True),
    Column("LAG", right=True),
)
LIST_SECONDS = 30.0
"""Until the BusChannels of a cluster are listed again: some come, some go."""

_AROUND = 4
"""Lines of the screen beside the rows."""

Order = Literal["published", "delivered", "backlog", "lag", "peers", "name"]
_ORDERS: dict[Order, Callable[["Rate"], Any]] = {
    "published": lambda rate: (-(rate.published or 0), -rate.now.backlog, rate.now.channel),
    "delivered": lambda rate: (-(rate.delivered or 0), -rate.now.backlog, rate.now.channel),
    "backlog": lambda rate: (-rate.now.backlog, rate.now.channel),
    "lag": lambda rate: (-(rate.now.oldest or 0), rate.now.channel),
    "peers": lambda rate: (-len(rate.now.acknowledged), rate.now.channel),
    "name": lambda rate: rate.now.channel,
}


@click.command()
@click.argument("channel", required=False, shell_complete=completion.channels)
@source_options()
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), default="published", show_default=True, help="What is on top."
)
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Measure for one interval, print that, and end.")
@out.output_option("json", "yaml")
def top(
    channel: str | None,
    *,
    source: Source,
    sort: Order,
    interval: float,
    once: bool,
    output: Literal["json", "yaml"] | None,
) -> None:
    """Show what goes through channels, refreshed in place until Ctrl-C.

    PUBLISHED and DELIVERED are messages a second since the look before; DELIVERED counts each message for each peer
    that has acknowledged it. BACKLOG is what the slowest live peer has not acknowledged, LAG how old the first of it
    is. One query per database and interval, whatever the number of channels. Without a terminal, or with -o, it is as
    with --once. Databases are reached as busctl peers reaches them.

    Exit status 0 after Ctrl-C, or when all was measured; 1 when a database could not be read.

    \b
    Examples:
      busctl top
      busctl top -A --sort lag
      busctl top orders --once -o json | jq .items[0].publishedPerSecond
    """
    from bus_operator.cli import reach

    reached = reach.of_source(source, channel)
    if once or output is not None or not sys.stdout.isatty():
        rates, failures = asyncio.run(_measure_once(reached, interval))
        reached.failures.extend(failures)
        rates.sort(key=_ORDERS[sort])
        if output is not None:
            out.print_data(output, {"intervalSeconds": interval, "items": [rate.as_json for rate in rates]})
        elif rates:
            out.print_table(_COLUMNS, map(_cells, rates))
        reached.explain("channels are left out")
        if reached.failures:
            sys.exit(1)
        return
    reached.explain("channels are left out")
    _live(reached, channel, _ORDERS[sort], interval)


async def _measure_once(reached: "Reach", interval: float) -> tuple[list["Rate"], list[BusError]]:
    from bus_operator.throughput import Meter

    async with Meter(reached.holdings) as meter:
        await meter.measure()
        await asyncio.sleep(interval)
        return await meter.measure()


def _live(reached: "Reach", channel: str | None, order: Callable[["Rate"], Any], interval: float) -> None:
    from bus_operator.throughput import Meter

    with asyncio.Runner() as runner:
        meter = Meter(reached.holdings)
        listed = time.monotonic()

        def lines(height: int) -> list[str]:
            nonlocal listed
            if time.monotonic() > listed + LIST_SECONDS:
                listed = time.monotonic()
                runner.run(meter.follow(_list_again(reached, channel)))
            rates, failures = runner.run(meter.measure())
            return _frame(height, str(reached.source), sorted(rates, key=order), failures)

        out.show_live(lines, interval)
        runner.run(meter.close())


def _list_again(reached: "Reach", channel: str | None) -> "Sequence[Holding]":
    """The databases of what is there now; those of before where that cannot be told."""
    from bus_operator.cli import reach

    # A database's own channels are listed by each query.
    if channel is not None or not isinstance(reached.source, ClusterSource):
        return reached.holdings
    with suppress(BusError):
        return reach.of_source(reached.source).holdings or reached.holdings
    return reached.holdings


def _frame(height: int, title: str, rates: Sequence["Rate"], failures: Sequence[BusError]) -> list[str]:
    """What the screen shows: a line about all, the channels that fit, and what is wrong."""
    room = max(height - _AROUND - len(failures), 1)
    published, delivered = (sum(getattr(rate, name) or 0 for rate in rates) for name in ("published", "delivered"))
    lines = [
        f"{title}: {len(rates)} channels, {published:,.0f} published/s, {delivered:,.0f} delivered/s",
        "",
        *out.table_lines(_COLUMNS, map(_cells, rates[:room])),
    ]
    if len(rates) > room:
        lines.append(f"and {len(rates) - room} more")
    return [*lines, *(printable(f"{failure.reason}: {failure}") for failure in failures)]


def _cells(rate: "Rate") -> list[out.Cell]:
    lag = rate.now.oldest
    return [
        rate.now.owner or rate.now.channel,
        _per_second(rate.published),
        _per_second(rate.delivered),
        len(rate.now.acknowledged),
        rate.now.backlog,
        brief_age(timedelta(seconds=lag)) if lag is not None else None,
    ]


def _per_second(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"
