"""The state that sessions share in the fuzzer's model, and how each sees it: transactions, savepoints, locks."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fuzz_calls import Call

Key = tuple[Any, ...]


class Mismatch(AssertionError):  # noqa: N818
    """The server did what the model does not allow."""


@dataclass
class Refusal(Exception):  # noqa: N818
    """The call must fail so; without a message, the words are PostgreSQL's own."""

    sqlstate: str
    message: str | None = None


class Blocked(Exception):  # noqa: N818
    """The call must wait for a lock that another session's open transaction holds."""


class Unpredictable(Exception):  # noqa: N818
    """What becomes of the call depends on the moment: it is not made."""


@dataclass(frozen=True)
class Actor:
    """Who calls: a login of a channel, or one that is a member of none in this database."""

    name: str
    login: str
    channel: int | None
    #: A login of another database's channel may still execute what all clients may, a retired one nothing.
    is_client: bool = True


@dataclass(frozen=True)
class Channel:
    """What never changes of a channel while clients call."""

    id: int
    name: str
    token: str
    wake: str
    key: str
    durability: str
    self_delivery: bool
    max_peers: int
    max_message_bytes: int
    timeout_seconds: int
    has_retention: bool
    schema_version: int


@dataclass(frozen=True)
class Counts:
    """What changes in a channel's row."""

    roster: int = 1
    left_lost: int = 0
    left_redelivered: int = 0


@dataclass(frozen=True)
class Entry:
    """A message in the log; `marked` names its publisher, where readers have to know."""

    id: int
    text: str
    marked: int | None


@dataclass(frozen=True)
class Peer:
    """A peer's row."""

    number: int
    channel: int
    queue: str
    name: str | None
    login: str
    acknowledged: int
    delivered: int
    position: int
    is_foreign: bool
    application: str | None = None
    host: str | None = None
    runtime: str | None = None
    address: str | None = None
    listens: bool = False
    former_queue: str | None = None
    lost: int = 0
    redelivered: int = 0
    #: When its process joined, in microseconds, as it was told; 0 where that is told nobody.
    since: int = 0


@dataclass
class Layer:
    """What a transaction, or a savepoint in it, has written and locked."""

    savepoint: str | None = None
    writes: dict[Key, Any] = field(default_factory=dict)
    locks: set[Key] = field(default_factory=set)
    log: dict[int, list[Entry]] = field(default_factory=dict)
    cursors: dict[str, Call] = field(default_factory=dict)

    def merge(self, other: "Layer") -> None:
        self.writes |= other.writes
        self.locks |= other.locks
        self.cursors |= other.cursors
        for channel, entries in other.log.items():
            self.log.setdefault(channel, []).extend(entries)


@dataclass
class Transaction:
    """An open transaction."""

    read_only: bool = False
    serializable: bool = False
    #: It sees this channel as it was when it began: nobody else writes there meanwhile, so that the model need not.
    claims: int | None = None
    aborted: bool = False
    layers: list[Layer] = field(default_factory=lambda: [Layer()])

    def fail(self) -> None:
        """An error undoes what was done since the last savepoint, and lets its locks go."""
        self.aborted = True
        self.layers[-1] = Layer(self.layers[-1].savepoint)
        for layer in self.layers:
            layer.cursors.clear()


class State(Protocol):
    """What is committed, and the transactions that are open."""

    committed: dict[Key, Any]
    #: By the session's name.
    transactions: dict[str, Transaction]
    #: By the channel's number, as are the peers' numbers.
    logs: dict[int, list[Entry]]
    numbers: dict[int, list[int]]


class View:
    """The state as one session sees it."""

    def __init__(self, model: "State", actor: Actor) -> None:
        self._model = model
        self._actor = actor
        transaction = model.transactions.get(actor.name)
        self.layers = transaction.layers if transaction else [Layer()]
        self.read_only = transaction is not None and transaction.read_only
        self.in_transaction = transaction is not None

    def get(self, key: Key) -> Any:
        for layer in reversed(self.layers):
            if key in layer.writes:
                return layer.writes[key]
        return self._model.committed.get(key)

    def put(self, key: Key, value: Any) -> None:
        self.layers[-1].writes[key] = value

    def lock(self, key: Key) -> None:
        """Before a write. Raises what it would meet."""
        if self.read_only:
            raise Refusal("25006")
        if self.locked(key):
            raise Blocked
        self.layers[-1].locks.add(key)

    def locked(self, key: Key) -> bool:
        """Whether another session's transaction holds this lock."""
        return any(
            key in layer.locks
            for name, transaction in self._model.transactions.items()
            if name != self._actor.name
            for layer in transaction.layers
        )

    def peers(self, channel: int) -> Iterator[Peer]:
        for number in self._model.numbers[channel]:
            peer = self.get(("peer", number))
            if peer is not None:
                yield peer

    def counts(self, channel: int) -> Counts:
        counts: Counts = self.get(("channel", channel)) or Counts()
        return counts

    def log(self, channel: int, after: int, limit: int) -> list[Entry]:
        entries = self._model.logs[channel]
        start = bisect_right(entries, after, key=lambda entry: entry.id)
        found = entries[start : start + limit]
        for layer in self.layers:
            found += [entry for entry in layer.log.get(channel, ()) if entry.id > after]
        return found[:limit]

    def append(self, channel: int, entry: Entry) -> None:
        self.layers[-1].log.setdefault(channel, []).append(entry)

    def change_roster(self, channel: int) -> int:
        counts = self.counts(channel)
        self.put(("channel", channel), replace(counts, roster=counts.roster + 1))
        return counts.roster + 1
