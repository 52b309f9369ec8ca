"""`busctl status`: how channels are."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from bus_operator.channel_view import ChannelView, age_of
from bus_operator.cli import completion
from bus_operator.cli import output as out
from bus_operator.cli.output import Column
from bus_operator.cli.peers import print_peers
from bus_operator.cli.source import ClusterSource, DatabaseSource, Source, source_options
from bus_operator.errors import BusError
from bus_operator.peer_view import PeerView
from bus_operator.texts import printable

if TYPE_CHECKING:
    from bus_operator.channel_reader import Details

WATCH_INTERVAL = 2.0
"""Seconds."""

_AROUND = 7
"""Lines of the screen beside rows and messages."""

WAYS = ("doorbell", "listen", "poll")
"""How peers are woken."""

SHOWN_MESSAGES = 10
"""Channels below a table whose condition is told in full."""

_COLUMNS = (
    Column("READY"),
    Column("DATABASE"),
    Column("PEERS", right=True),
    Column("BACKLOG", right=True),
    Column("OLDEST", right=True),
    Column("GENERATION", right=True),
    Column("REASON"),
    Column("DURABILITY", wide=True),
    Column("DOORBELL/LISTEN/POLL", right=True, wide=True),
    Column("VERIFIED", right=True, wide=True),
    Column("AGE", right=True, wide=True),
)


@click.command()
@click.argument("channel", required=False, shell_complete=completion.channels)
@source_options()
@click.option(
    "-l", "--selector", help="Only BusChannels with these labels, as kubectl takes them: team=shop,tier!=test."
)
@click.option("-w", "--watch", is_flag=True, help="Show the table again every two seconds, until Ctrl-C.")
@out.output_option("wide", "json", "yaml", "name")
def status(
    channel: str | None,
    *,
    source: Source,
    selector: str | None,
    watch: bool,
    output: Literal["wide", "json", "yaml", "name"] | None,
) -> None:
    """Show how channels are: whether they are ready and why not, their peers, what waits in them.

    Without CHANNEL all of a namespace, in a table; with it that one with its conditions. In a cluster, CHANNEL is the
    name of a BusChannel or NAMESPACE/NAME, and what is shown is its status; in a database it is the wire name or
    NAMESPACE/NAME, and what is shown is what is there now. Exit status 1 when one of them is not ready.

    \b
    Examples:
      busctl status
      busctl status -A -o wide
      busctl status -w
      busctl status orders -n shop
      busctl status -A -o json | jq -r '.items[] | select(.backlog > 1000).name'
      busctl status --database postgresql://postgres@localhost/app
    """
    if selector is not None and (channel is not None or isinstance(source, DatabaseSource)):
        raise click.UsageError(
            "--selector chooses among the BusChannels of a cluster: leave CHANNEL and --database out"
        )
    if watch:
        if channel is not None or output not in (None, "wide") or not sys.stdout.isatty():
            raise click.UsageError("--watch shows a table in a terminal: leave CHANNEL and --output out")
        out.show_live(lambda height: _frame(height, source, selector, wide=output == "wide"), WATCH_INTERVAL)
        return
    if channel is not None:
        from bus_operator.cli import reach

        views = [reach.find_channel(source, channel)]
        _show_one(views[0], source, output)
    else:
        views = _all(source, selector)
        _show_all(views, source, output)
    if not all(view.is_healthy for view in views):
        sys.exit(1)


def _all(source: Source, selector: str | None) -> list[ChannelView]:
    if isinstance(source, ClusterSource):
        from bus_operator import cluster_channels

        return cluster_channels.list_channels(source.client, source.namespace, selector)
    from bus_operator import channel_reader

    return asyncio.run(channel_reader.read_channels(source.admin))


def _show_one(view: ChannelView, source: Source, output: out.Format | None) -> None:
    if output in ("name", "wide"):
        _show_all([view], source, output)
        return
    details, explain = _read_details(view, source)
    peers = details.peers if details is not None else None
    if details is not None:
        # The status was written up to a minute ago.
        live = [peer.wake for peer in details.peers if peer.is_live]
        view = replace(view, issued=details.issued, peers=len(live), wake={way: live.count(way) for way in WAYS})
    if output is None:
        _describe(view, peers)
    else:
        known = [peer.as_json for peer in peers] if peers is not None else None
        out.print_data(output, view.as_json | {"peerDetails": known})
    explain()


def _read_details(view: ChannelView, source: Source) -> "tuple[Details | None, Callable[[], None]]":
    """What the database knows, if it can be read from here; and what says why not."""
    from bus_operator import channel_reader
    from bus_operator.cli import reach

    if view.place is None or view.channel is None:
        return None, lambda: None
    reached = reach.of_channel(source, view)
    found = reached.read(channel_reader.read_details)
    return (found[0] if found else None), lambda: reached.explain("peers are left out")


def _show_all(views: Sequence[ChannelView], source: Source, output: out.Format | None) -> None:
    if output in ("json", "yaml"):
        out.print_data(output, {"items": [view.as_json for view in views]})
    elif output == "name":
        for view in views:
            click.echo(name_of(view, source))
    elif not views:
        click.echo(f"there are no channels{_elsewhere(source)}", err=True)
    else:
        out.print_lines([*_table(views, source, wide=output == "wide"), *_explanations(views)])


def _elsewhere(source: Source) -> str:
    if isinstance(source, ClusterSource) and source.namespace is not None:
        return f" in namespace {source.namespace}; busctl status -A shows those of all"
    return ""


def name_of(view: ChannelView, source: Source) -> str:
    """What other commands take: as kubectl prints names, or the wire name in a database."""
    return f"buschannel.pgmqbus.dev/{view.name}" if isinstance(source, ClusterSource) else str(view.channel)


def _frame(height: int, source: Source, selector: str | None, *, wide: bool) -> list[str]:
    """What --watch shows: those that need somebody first, as many as fit."""
    try:
        views = sorted(_all(source, selector), key=lambda view: view.is_healthy)
    except BusError as exc:
        return [str(source), "", printable(f"{exc.reason}: {exc}")]
    bad = sum(not view.is_healthy for view in views)
    head = f"{source}: {len(views)} channels, {bad} not ready"
    room = max(height - _AROUND - min(bad, SHOWN_MESSAGES), 1)
    more = [f"and {len(views) - room} more"] if len(views) > room else []
    return [head, "", *_table(views[:room], source, wide=wide), *more, *_explanations(views)]


def _table(views: Sequence[ChannelView], source: Source, *, wide: bool) -> list[str]:
    if isinstance(source, DatabaseSource):
        names = [Column("CHANNEL")]
        rows = [[view.channel, *_cells(view)] for view in views]
    else:
        # By default the wire name only repeats the other two.
        names = [Column("NAMESPACE")] if source.namespace is None else []
        names += [Column("NAME"), Column("CHANNEL", wide=True)]
        first = [[view.namespace, view.name, view.channel][-len(names) :] for view in views]
        rows = [[*cells, *_cells(view)] for cells, view in zip(first, views, strict=True)]
    return out.table_lines([*names, *_COLUMNS], rows, wide=wide)


def _cells(view: ChannelView) -> list[out.Cell]:
    wake = "/".join(str(view.wake.get(way, 0)) for way in WAYS) if view.wake else None
    return [
        (view.ready, out.style_of(view.ready)),
        str(view.place) if view.place else None,
        view.peers,
        view.backlog,
        view.oldest,
        view.generation,
        (view.reason, "" if view.is_healthy else "red"),
        view.durability,
        wake,
        age_of(view.verified),
        age_of(view.created),
    ]


def _explanations(views: Sequence[ChannelView]) -> list[str]:
    """Why those that are not ready are not: a table has no room for it."""
    bad = [view for view in views if not view.is_healthy]
    lines = [""] if bad else []
    for view in bad[:SHOWN_MESSAGES]:
        where = f"{view.namespace}/{view.name}" if view.name else view.channel
        lines.append(printable(f"{where}: {view.reason}: {view.message}"))
    if len(bad) > SHOWN_MESSAGES:
        lines.append(f"and {len(bad) - SHOWN_MESSAGES} more that are not ready: busctl status CHANNEL says why")
    return lines


def _describe(view: ChannelView, peers: Sequence[PeerView] | None) -> None:
    name = f"{view.namespace}/{view.name}" if view.name else None
    age = age_of(view.issued)
    facts: list[tuple[str, out.Cell]] = [
        ("BusChannel", name),
        ("Channel", view.channel),
        ("Ready", (f"{view.ready} ({view.reason})", out.style_of(view.ready))),
        ("Database", str(view.place) if view.place else None),
        ("Durability", view.durability),
        ("Credentials", f"generation {view.generation}{f', {age} old' if age else ''}" if view.generation else None),
        ("Verified", f"{age_of(view.verified)} ago" if view.verified else None),
        ("Peers", _peers(view)),
        ("Backlog", _backlog(view)),
    ]
    out.print_facts([(title, value) for title, value in facts if value is not None])
    if view.conditions:
        click.echo()
        rows = [
            [
                item["type"],
                (item["status"], out.style_of(item["status"])),
                age_of(item.get("lastTransitionTime")),
                item["reason"],
                item.get("message") or None,
            ]
            for item in view.conditions
        ]
        titles = (
            Column("CONDITION"),
            Column("STATUS"),
            Column("SINCE", right=True),
            Column("REASON"),
            Column("MESSAGE"),
        )
        out.print_table(titles, rows)
    elif not view.is_healthy:
        out.print_lines(["", printable(f"{view.reason}: {view.message}")])
    if peers:
        click.echo()
        print_peers(peers, with_channel=False)


def _peers(view: ChannelView) -> str | None:
    if view.peers is None:
        return None
    ways = [f"{count} by {way}" for way, count in (view.wake or {}).items() if count]
    return f"{view.peers} (woken: {', '.join(ways)})" if ways else str(view.peers)


def _backlog(view: ChannelView) -> str | None:
    if view.backlog is None:
        return None
    return f"{view.backlog}{f', the oldest {view.oldest} old' if view.oldest else ''}"
