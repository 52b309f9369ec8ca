"""Histories in memory: what was published, and what each process of each peer was handed, as numbers in arrays.

A million events take some tens of megabytes: a message's name is kept once, and an event is a number and a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chaos.history import Event, Fault
from chaos.promises import Acknowledge, Client, PeerPromise

#: What is known of a message's publish; FOREIGN: that it was not made on this channel.
FOREIGN, UNKNOWN, PUBLISHED, FAILED = range(4)

#: Later than everything.
NEVER = 1 << 62


@dataclass(eq=False, slots=True)
class Incarnation:
    """One process's time on a channel, from joining to its end. Times in nanoseconds.

    Attributes:
        process: Its name.
        peer: Its durable name, or None.
        promise: What it may rely on.
        joining: When it began to join.
        joined: When it had joined; `NEVER` if it did not get there.
        ended: When it had certainly ended; `NEVER` if it did not.
        how: `left`, `killed`, `refused`; empty while it has not ended.
        received: The messages that its handler was given, in that order, and when.
        handled: Those that its handler was through with, and when.
        told: How many messages it was told it had lost.
    """

    process: str
    peer: str | None
    promise: PeerPromise
    joining: int
    joined: int = NEVER
    ended: int = NEVER
    how: str = ""
    received: array[int] = field(default_factory=lambda: array("l"))
    received_at: array[int] = field(default_factory=lambda: array("q"))
    handled: array[int] = field(default_factory=lambda: array("l"))
    handled_at: array[int] = field(default_factory=lambda: array("q"))
    told: int = 0

    def __str__(self) -> str:
        return f"process {self.process}" if self.peer is None else f"peer {self.peer} (process {self.process})"

    def firsts(self) -> Iterator[tuple[int, int]]:
        """The messages it received and when, without those that it had received before."""
        seen = set()
        for message, when in zip(self.received, self.received_at, strict=True):
            if message not in seen:
                seen.add(message)
                yield message, when


@dataclass(eq=False, slots=True)
class Channel:
    """One channel: its messages, numbered, and its processes.

    Attributes:
        name: Wire name.
        names: The messages' names.
        index: Their numbers by name.
        outcome: `PUBLISHED`, `FAILED`, `UNKNOWN`, or `FOREIGN`.
        invoked: When their publish began.
        returned: When it returned; `NEVER` if it did not.
        publisher: The process that published them, a number.
        calls: For each process that publishes, its messages in the order of its calls; and whether that order is
            kept.
        incarnations: Everybody who was there.
    """

    name: str
    names: list[str] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    outcome: bytearray = field(default_factory=bytearray)
    invoked: array[int] = field(default_factory=lambda: array("q"))
    returned: array[int] = field(default_factory=lambda: array("q"))
    publisher: array[int] = field(default_factory=lambda: array("l"))
    calls: list[tuple[array[int], bool]] = field(default_factory=list)
    incarnations: list[Incarnation] = field(default_factory=list)

    def number(self, name: str) -> int:
        """The message's number; a new one for a name that is new."""
        number = self.index.get(name)
        if number is None:
            number = self.index[name] = len(self.names)
            self.names.append(name)
            self.outcome.append(FOREIGN)
            self.invoked.append(NEVER)
            self.returned.append(NEVER)
            self.publisher.append(-1)
        return number

    def peers(self) -> list[list[Incarnation]]:
        """The processes of each peer, in the order in which they joined; an unnamed one has one."""
        peers: dict[object, list[Incarnation]] = {}
        for incarnation in sorted(self.incarnations, key=lambda each: each.joining):
            peers.setdefault(incarnation.peer or incarnation, []).append(incarnation)
        return list(peers.values())


@dataclass(frozen=True, slots=True)
class Interval:
    """A fault: it struck between `began` and `ended`."""

    fault: Fault
    began: int
    ended: int


class Observed:
    """All histories of a run.

    Args:
        histories: One for each file.

    Raises:
        ValueError: A history contradicts itself, so that nothing can be said: an event of a process before `opened`,
            a message that is published twice, an outcome of none, the end of an unknown process.
    """

    def __init__(self, histories: Iterable[Iterable[Event]]) -> None:
        self.channels: dict[str, Channel] = {}
        self.faults: list[Interval] = []
        self.settled = NEVER
        self.began = NEVER
        self.events = 0
        self._processes: dict[str, list[Incarnation]] = {}
        ends: list[Event] = []
        for history in histories:
            ends += self._read(history)
        for end in ends:
            self._end(end)

    def _end(self, end: Event) -> None:
        """A process was ended by somebody else."""
        name = end.details["process"]
        if name not in self._processes:
            raise ValueError(f"process {name!r} ended, and has no history")
        for incarnation in self._processes[name]:
            if incarnation.ended > end.time:
                incarnation.ended, incarnation.how = end.time, end.details["how"]

    def _read(self, history: Iterable[Event]) -> list[Event]:
        """One file; the ends that it tells of other processes."""
        ends: list[Event] = []
        reader: _Process | None = None
        for event in history:
            self.events += 1
            kind, time, _, details = event
            self.began = min(self.began, time)
            if kind == "opened":
                reader = self._open(event)
            elif kind == "fault":
                self.faults.append(Interval(details["fault"], details["began"], time))
            elif kind == "settled":
                self.settled = time
            elif kind == "ended" and "process" in details:
                ends.append(event)
            elif reader is None:
                raise ValueError(f"an event {kind!r} of a process that was not opened")
            else:
                reader.take(event)
        return ends

    def _open(self, event: Event) -> _Process:
        name, channel = event.details["process"], event.details["channel"]
        if name in self._processes:
            raise ValueError(f"two processes are called {name!r}")
        incarnations = self._processes[name] = []
        return _Process(
            name, event.details["client"], self.channels.setdefault(channel, Channel(channel)), incarnations
        )


class _Process:
    """Takes the events of one process."""

    def __init__(self, name: str, client: Client, channel: Channel, incarnations: list[Incarnation]) -> None:
        self._name = name
        self._client: Client = client
        self._channel = channel
        self._incarnations = incarnations
        self._current: Incarnation | None = None
        self._number = len(channel.calls)
        # The promise for its calls is the same whatever its name and mode are.
        ordered = PeerPromise.of(named=False, acknowledge="on_handled", client=client).ordered_calls
        self._calls: array[int] = array("l")
        channel.calls.append((self._calls, ordered))

    def take(self, event: Event) -> None:
        """One event."""
        kind, time, name, _ = event
        channel = self._channel
        if kind in ("received", "handled"):
            current = self._current
            if current is None:
                raise ValueError(f"process {self._name!r} received {name!r} before it joined")
            if kind == "received":
                current.received.append(channel.number(name))
                current.received_at.append(time)
            else:
                current.handled.append(channel.number(name))
                current.handled_at.append(time)
        elif kind == "publish":
            number = channel.number(name)
            if channel.outcome[number] != FOREIGN:
                raise ValueError(f"message {name!r} was published twice")
            channel.outcome[number] = UNKNOWN
            channel.invoked[number] = time
            channel.publisher[number] = self._number
            self._calls.append(number)
        elif kind in ("published", "failed", "unknown"):
            number = channel.index.get(name, -1)
            if number < 0 or channel.publisher[number] != self._number:
                raise ValueError(f"process {self._name!r} was told of {name!r}, which it had not published")
            if kind == "published":
                channel.outcome[number] = PUBLISHED
                channel.returned[number] = time
            elif kind == "failed":
                channel.outcome[number] = FAILED
        else:
            self._take_rare(event)

    def _take_rare(self, event: Event) -> None:
        kind, time, _, details = event
        if kind == "joining":
            acknowledge: Acknowledge = details["acknowledge"]
            promise = PeerPromise.of(
                named=details["peer"] is not None,
                acknowledge=acknowledge,
                client=self._client,
                in_hand=details["in_hand"],
            )
            self._current = Incarnation(self._name, details["peer"], promise, time)
            self._incarnations.append(self._current)
            self._channel.incarnations.append(self._current)
            return
        current = self._current
        if current is None:
            raise ValueError(f"an event {kind!r} of process {self._name!r}, which had not joined")
        if kind == "joined":
            current.joined = time
        elif kind == "lost":
            current.told += details["count"]
        elif kind == "refused":
            current.ended, current.how = time, "refused"
        elif kind == "ended" and current.how != "refused":
            current.ended, current.how = time, details["how"]
