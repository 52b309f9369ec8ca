"""Goes round a database: gathers what can be seen in it, and has the checks judge that."""

from collections.abc import Sequence

from bus_operator import channel_reader
from bus_operator.channel_view import ChannelView
from bus_operator.database import AdminConnection
from bus_operator.doctor import channel, database
from bus_operator.doctor.channel import ChannelFacts
from bus_operator.doctor.database import DatabaseFacts, DatabaseLook
from bus_operator.doctor.findings import Examined, Outcome
from bus_operator.errors import BusError, NotFoundError


async def of_database(admin: AdminConnection, name: str | None, release: str) -> list[Examined]:
    """Looks at a database, and at its channels or at the one that is called so.

    Raises NotFoundError when it has none of that name.
    """
    views: Sequence[ChannelView]
    if name is None:
        found = await or_error(admin, None, list_channels=True)
        views = found.channels if isinstance(found, DatabaseLook) else ()
    else:
        views = await _views(admin, name)
        found = await or_error(admin, [str(view.channel) for view in views])
    title = str(admin.endpoint)
    examined = [Examined("Database", title, database.CHECKS.examine(DatabaseFacts(title, admin, found)))]
    if name is not None and not views:
        return [*examined, Examined("Channel", name, [Outcome("ready", unseen="because of its database")])]
    look = found if isinstance(found, DatabaseLook) else None
    return [
        *examined,
        *(examine_channel("Channel", str(view.channel), ChannelFacts(view, look, release)) for view in views),
    ]


def examine_channel(kind: str, name: str, facts: ChannelFacts) -> Examined:
    """What the checks of a channel find."""
    return Examined(kind, name, channel.CHECKS.examine(facts))


async def _views(admin: AdminConnection, name: str) -> list[ChannelView]:
    """The channel; none where it cannot be read, for which the look at the database has the reason."""
    try:
        return [await channel_reader.read_channel(admin, name)]
    except NotFoundError:
        raise
    except BusError:
        return []


async def or_error(
    admin: AdminConnection, names: Sequence[str] | None, *, list_channels: bool = False
) -> DatabaseLook | BusError:
    """What `look` sees, or raises."""
    try:
        return await database.look(admin, names, list_channels=list_channels)
    except BusError as exc:
        return exc
