"""`busctl peers`: who has joined channels, and how they keep up."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import click

from bus_operator.channel_view import brief_age
from bus_operator.cli import completion
from bus_operator.cli import output as out
from bus_operator.cli.output import Column
from bus_operator.cli.source import Source, source_options
from bus_operator.peer_view import PeerView, State

COLUMNS = (
    Column("POD"),
    Column("PEER"),
    Column("STATE"),
    Column("BEHIND", right=True),
    Column("WAKE"),
    Column("LOGIN"),
    Column("LAST SEEN", right=True),
    Column("REDELIVERED", right=True),
    Column("LOST", right=True),
    Column("APPLICATION", wide=True),
    Column("RUNTIME", wide=True),
    Column("JOINED", right=True, wide=True),
)
_STYLES: dict[State, out.Style] = {"Ok": "green", "Stalled": "red", "Silent": "yellow", "Away": "yellow"}


@click.command()
@click.argument("channel", required=False, shell_complete=completion.channels)
@source_options()
@click.option("--stalled", is_flag=True, help="Only those that are Stalled.")
@out.output_option("wide", "json", "yaml")
def peers(channel: str | None, source: Source, stalled: bool, output: Literal["wide", "json", "yaml"] | None) -> None:
    """Show who has joined channels: which pods, how far behind, how they are woken, with which credentials.

    Without CHANNEL of all channels that are meant. STATE is Stalled where a peer has not acknowledged a message for 30
    seconds: a handler hangs or is slow. Silent are those that the database has not heard of for nearly half of
    peerTimeout: they have probably ended without leaving. Away are those that it has not heard of for all of it:
    durable ones keep their place, others are forgotten soon. LOGIN is the generation of the credentials they use.

    In a cluster, peers are read from the database, by the administrator's Secret of the BusDatabase: who may not read
    it runs this in the operator's pod. Exit status 1 when a database could not be read, or with --stalled when there
    are stalled peers.

    \b
    Examples:
      busctl peers orders
      busctl peers -A --stalled
      busctl peers orders -o json | jq -r '.items[] | select(.credentialRetired).pod'
      kubectl exec -n pgmq-bus deploy/pgmq-bus -- busctl peers orders -n shop
    """
    from bus_operator import channel_reader
    from bus_operator.cli import reach

    reached = reach.of_source(source, channel)
    views = reached.read(channel_reader.read_peers)
    if stalled:
        views = [view for view in views if view.state == "Stalled"]
    if output in ("json", "yaml"):
        out.print_data(output, {"items": [view.as_json for view in views]})
    elif views:
        print_peers(views, with_channel=channel is None, wide=output == "wide")
    elif not reached.failures:
        click.echo("there are no stalled peers" if stalled else "nobody has joined", err=True)
    reached.explain("peers are left out")
    if reached.failures or (stalled and views):
        sys.exit(1)


def print_peers(views: Sequence[PeerView], *, with_channel: bool, wide: bool = False) -> None:
    """Prints them as a table."""
    columns = [Column("CHANNEL"), *COLUMNS] if with_channel else COLUMNS
    rows = [[view.owner or view.channel, *_cells(view)] if with_channel else _cells(view) for view in views]
    out.print_table(columns, rows, wide=wide)


def _cells(view: PeerView) -> list[out.Cell]:
    return [
        view.host,
        view.durable,
        (view.state, _STYLES[view.state]),
        view.behind_text,
        view.wake,
        (view.credential, "yellow" if view.is_retired else ""),
        f"{brief_age(timedelta(seconds=view.silent_seconds))} ago",
        view.redelivered,
        (str(view.lost), "red" if view.lost else ""),
        view.application,
        view.client,
        f"{brief_age(timedelta(seconds=view.silent_seconds) + view.last_seen - view.joined_at)} ago",
    ]
