"""What is known of a BusDatabase from one reconciliation to the next, and how channels may use it."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from bus_operator.breaker import Breaker
from bus_operator.database import AdminConnection, Connect
from bus_operator.errors import BusError
from bus_operator.inventory import Key, Resource
from bus_operator.ledger import Surveyed
from bus_operator.model import ClientEndpoint
from bus_operator.sessions import Sessions
from bus_operator.shards import Shards

CONNECTIONS_PER_DATABASE = 4
"""How many channels of one database are reconciled at the same time."""


@dataclass
class KnownDatabase:
    """What the last reconciliation of a BusDatabase found out; channels use it."""

    generation: int
    admin: AdminConnection | None = None
    shards: Shards | None = None
    clients: ClientEndpoint = field(default_factory=ClientEndpoint)
    repaired: bool = field(default=False, compare=False)
    """Whether something was installed: what channels have in the database may be gone as well."""
    failure: BusError | None = field(default=None, compare=False)

    def changed_since(self, before: "KnownDatabase | None") -> bool:
        """Whether channels that use the database should look at it again."""
        return self.repaired or before is None or before != self or (before.failure is None) != (self.failure is None)


class DatabaseState(NamedTuple):
    """What metrics say about a BusDatabase."""

    key: Key
    up: bool
    """Whether the administrator could log in last time."""
    breaker: str


@dataclass(frozen=True)
class UsableDatabase:
    """A BusDatabase that channels can be made in."""

    slots: asyncio.Semaphore = field(compare=False, repr=False)
    shards: Shards
    clients: ClientEndpoint
    """Where pods connect, where that differs."""
    connect: Connect = field(compare=False, repr=False)
    """Gives an administrator's session for one use."""
    last_resort: bool = False
    """Whether it is what was known once, of a database that is gone or going."""


class Access:
    """What lasts from one reconciliation of a BusDatabase to the next."""

    def __init__(self, database: Resource) -> None:
        self.breaker = Breaker(str(database))
        self.sessions = Sessions()
        self.slots = asyncio.Semaphore(CONNECTIONS_PER_DATABASE)
        self.known: KnownDatabase | None = None
        self.last: UsableDatabase | None = None
        """How it was used last, with sessions that are not kept."""
        self.surveyed: dict[str, Surveyed] = {}
        """What the last survey found of channels that are to be looked at, by wire name."""
        self.fresh = False
        """Whether that survey has not been compared yet; then a channel that is not in it is gone."""
        self.next_survey = 0.0
