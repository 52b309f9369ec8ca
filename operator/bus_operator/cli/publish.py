"""`busctl publish`: messages from the command line, or from lines of standard input."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from bus_operator.cli.channel_access import ChannelAccess, channel_options
from bus_operator.cli.ending import until_interrupted
from bus_operator.errors import SpecError

if TYPE_CHECKING:
    from bus_operator.cli.envelopes import Envelopes


@click.command()
@channel_options(required=True)
@click.argument("message", metavar="[JSON | -]", default="-")
@click.option("--type", "type_", metavar="TYPE", help="The message's class with its module; default: BusDataMessage.")
@click.option("--from", "sender", default="busctl", show_default=True, help="Who sends it, as receivers see it.")
@click.option("--target", help="The worker it is for; default: everybody.")
@click.option("--raw", is_flag=True, help="Publish the JSON as it is, whatever it is.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Publish it N times; of lines, at most N.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="PER_SECOND", help="No faster than this.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print ids.")
def publish(
    *,
    access: ChannelAccess,
    message: str,
    type_: str | None,
    sender: str,
    target: str | None,
    raw: bool,
    count: int | None,
    rate: float | None,
    quiet: bool,
) -> None:
    """Publish a message, or each line of standard input, and print the ids.

    JSON is an object with the fields of the message; it gets the envelope that bus_runtime and pipecat give it. What
    has one already, as in what tail --json shows, is published as it is. On a Sync channel a message is on disk when
    its id is printed.

    Exit status 1 when one is refused: it says why, and those before it were published. 130 when interrupted by Ctrl-C,
    143 by SIGTERM: what was counted was published.

    \b
    Examples:
      busctl publish orders -n shop --type shop.messages.OrderPlaced '{"order": "A-1"}'
      busctl publish orders --type BusEndMessage '{"reason": "enough"}'
      busctl publish orders --raw --count 1000 --rate 50 '{"hello": "world"}'
      busctl publish audit -n shop < messages.jsonl
    """
    from bus_operator.cli.envelopes import DEFAULT_TYPE, Envelopes
    from bus_operator.cli.publishing import Publication

    if raw and (type_ or target):
        raise click.UsageError("--raw leaves JSON as it is: it has neither --type nor --target")
    envelopes = Envelopes(type_ or DEFAULT_TYPE, source=sender, target=target, raw=raw)
    # Before anything is connected: what is typed wrong is told at once.
    payloads = _lines(envelopes, count) if message == "-" else _repeated(envelopes, message, count or 1)
    publication = Publication(access.binding(), rate, _ignore if quiet else _print)
    begun = time.monotonic()
    try:
        interrupted = asyncio.run(until_interrupted(publication.run(payloads)))
    finally:
        seconds = time.monotonic() - begun
        click.echo(f"{publication.count} published in {seconds:.1f} s", err=True)
    if interrupted is not None:
        sys.exit(128 + interrupted)


def _print(msg_id: int) -> None:
    # Whoever reads them may act on each.
    print(msg_id, flush=True)


def _ignore(msg_id: int) -> None:
    """Nothing is said of each."""


def _repeated(envelopes: "Envelopes", message: str, count: int) -> AsyncIterator[bytes]:
    first = envelopes.wrap(message)
    _tell_ignored(envelopes, message)

    async def repeat() -> AsyncIterator[bytes]:
        yield first
        for _ in range(count - 1):
            yield envelopes.wrap(message)

    return repeat()


async def _lines(envelopes: "Envelopes", count: int | None) -> AsyncIterator[bytes]:
    from bus_operator.cli import reading

    if sys.stdin.isatty():
        click.echo("one JSON a line; Ctrl-D ends it", err=True)
    number = 0
    async for line in reading.lines(sys.stdin.buffer):
        number += 1
        try:
            payload = envelopes.wrap(line)
        except SpecError as exc:
            raise SpecError(f"message {number}: {exc}") from exc
        if number == 1:
            _tell_ignored(envelopes, line)
        yield payload
        if number == count:
            return


def _tell_ignored(envelopes: "Envelopes", text: str | bytes) -> None:
    if ignored := envelopes.unknown_fields(text):
        name = envelopes.tag.rpartition(".")[2]
        click.echo(
            f"{name} has no field {', '.join(ignored)}: receivers that use bus_runtime do not see it; --type says which"
            " message it is",
            err=True,
        )
