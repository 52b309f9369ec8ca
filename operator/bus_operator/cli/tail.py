"""`busctl tail`: live messages."""

import asyncio
import re
import sys
from typing import TYPE_CHECKING

import click

from bus_operator.cli.channel_access import ChannelAccess, channel_options
from bus_operator.cli.ending import until_interrupted

if TYPE_CHECKING:
    from bus_operator.cli.tailing import Tail


@click.command()
@channel_options()
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only of this class or whole wire tag; * matches any."
)
@click.option("--from", "sources", multiple=True, metavar="SOURCE", help="Only from this sender; * matches any.")
@click.option("--grep", metavar="REGEX", help="Only whose JSON contains this regular expression.")
@click.option("--count", "limit", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def tail(
    *,
    access: ChannelAccess,
    types: tuple[str, ...],
    sources: tuple[str, ...],
    grep: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the messages of a channel as they are published, from now on.

    It is a peer of its own without a name: no other peer's position is concerned. It acknowledges at once, so the log
    is trimmed as if nobody looked; what a slow terminal cannot take is left out and counted.

    --type and --from may be given several times.

    Exit status 0 after --count messages, 1 when it cannot join, 130 when interrupted by Ctrl-C, 143 by SIGTERM.

    \b
    Examples:
      busctl tail orders -n shop
      busctl tail orders --type OrderPlaced --from 'shop-*'
      busctl tail orders --json | jq -c .message
      busctl tail orders --grep '"order":"A-1"' --count 1
      busctl tail --binding .busctl/bindings/orders
    """
    from bus_operator.cli import tailing

    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as exc:
        raise click.BadParameter(f"{grep!r} is no regular expression: {exc}", param_hint="--grep") from exc
    binding = access.binding()
    render = tailing.as_json(binding.channel) if as_json else tailing.as_text(sys.stdout)
    follower = tailing.Tail(binding, tailing.Wanted(types, sources, pattern), render, sys.stdout, limit)

    def joined() -> None:
        click.echo(f"following {binding.channel}, Ctrl-C ends it", err=True)

    try:
        interrupted = asyncio.run(until_interrupted(follower.run(joined)))
    finally:
        _account(follower)
    if interrupted is not None:
        sys.exit(128 + interrupted)


def _account(follower: "Tail") -> None:
    click.echo(f"{follower.shown} messages were shown", err=True)
    if follower.skipped:
        click.echo(f"{follower.skipped} more were not: whoever reads this is slower than they came", err=True)
    if follower.lost:
        click.echo(f"up to {follower.lost} more were trimmed from the log before they could be read", err=True)
