"""Histories of a perfect bus, made up at random, are right; and whatever is changed in one is found."""

from collections import deque
from dataclasses import dataclass, field

import pytest
from chaos.checker import check
from chaos.history import Event
from chaos.promises import Promise
from chaos.verdict import Broken
from fuzzing import examples
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

MILLISECOND = 1_000_000
PUBLISHERS = ("p1", "p2", "p3")
#: Name of the peer, and whether it is a durable one.
PEERS = (("billing", True), ("ledger", True), ("s1", False), ("s2", False))

SETTINGS = settings(examples(15), suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


@dataclass
class Reader:
    """A peer of the perfect bus: its process of the moment and its cursors, which are places in the log."""

    name: str
    durable: bool
    process: str = ""
    starts: int = 0
    position: int = 0
    acknowledged: int = 0
    handling: str = ""


@dataclass
class Bus:
    """A log, those who write to it and those who read it, and what all of them write down."""

    files: dict[str, list[Event]] = field(default_factory=lambda: {"driver": []})
    log: list[str] = field(default_factory=list)
    committed_at: list[int] = field(default_factory=list)
    now: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, deque[str]] = field(default_factory=dict)
    answered: dict[str, deque[str]] = field(default_factory=dict)
    unsure: list[str] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)

    def __post_init__(self):
        for name in PUBLISHERS:
            self.calls[name], self.waiting[name], self.answered[name] = 0, deque(), deque()
            self.open(name)
        for name, durable in PEERS:
            self.readers.append(Reader(name, durable))
            self.start(self.readers[-1])

    def write(self, process, kind, message="", /, **details):
        self.now += MILLISECOND
        self.files[process].append(Event(kind, self.now, message, details))

    def open(self, process):
        self.files[process] = []
        self.write(process, "opened", process=process, channel="orders", client="bus_runtime")

    def start(self, reader):
        reader.starts += 1
        reader.process = f"{reader.name}-{reader.starts}"
        self.open(reader.process)
        peer = reader.name if reader.durable else None
        self.write(reader.process, "joining", peer=peer, acknowledge="on_handled", in_hand=1000)
        if not reader.durable or reader.starts == 1:
            reader.acknowledged = len(self.log)
        reader.position, reader.handling = reader.acknowledged, ""
        self.write(reader.process, "joined")

    # What may happen next, each for the nth of those whom it may happen to.

    def call(self, n):
        publisher = PUBLISHERS[n % 3]
        self.calls[publisher] += 1
        message = f"{publisher}-{self.calls[publisher]}"
        self.waiting[publisher].append(message)
        self.write(publisher, "publish", message)

    def commit(self, n):
        publisher = PUBLISHERS[n % 3]
        if self.waiting[publisher]:
            message = self.waiting[publisher].popleft()
            self.append(message)
            self.answered[publisher].append(message)

    def append(self, message):
        self.log.append(message)
        self.committed_at.append(self.now)

    def answer(self, n):
        publisher = PUBLISHERS[n % 3]
        if self.answered[publisher]:
            self.write(publisher, "published", self.answered[publisher].popleft())

    def fail(self, n):
        publisher = PUBLISHERS[n % 3]
        if self.waiting[publisher]:
            self.write(publisher, "failed", self.waiting[publisher].popleft())

    def leave_unsure(self, n):
        publisher = PUBLISHERS[n % 3]
        if self.waiting[publisher]:
            message = self.waiting[publisher].popleft()
            self.write(publisher, "unknown", message)
            self.unsure.append(message)

    def commit_late(self, n):
        if self.unsure:
            self.append(self.unsure.pop(n % len(self.unsure)))

    def deliver(self, n):
        reader = self.readers[n % 4]
        while not reader.handling and reader.position < len(self.log):
            reader.handling = self.log[reader.position]
            reader.position += 1
            if reader.handling:
                self.write(reader.process, "received", reader.handling)

    def finish(self, n):
        reader = self.readers[n % 4]
        if reader.handling:
            self.write(reader.process, "handled", reader.handling)
            reader.handling = ""

    def acknowledge(self, n):
        reader = self.readers[n % 4]
        reader.acknowledged = reader.position - bool(reader.handling)

    def kill(self, n):
        reader = self.readers[n % 4]
        self.write("driver", "ended", process=reader.process, how="killed")
        self.start(reader)

    def crash(self, n):
        """The server forgets the last messages, but for those that are too old."""
        kept = max(len(self.log) - n, sum(at < self.now - 600 * MILLISECOND for at in self.committed_at))
        began = self.now
        self.now += MILLISECOND
        # Places that nobody reads: whoever had read what is gone does not read something else in its place.
        self.log[kept:] = [""] * (len(self.log) - kept)
        self.write("driver", "fault", fault="crash", began=began)

    def pause(self, n):
        self.now += 700 * MILLISECOND

    def settle(self):
        for number, publisher in enumerate(PUBLISHERS):
            while self.waiting[publisher]:
                self.commit(number)
            while self.answered[publisher]:
                self.answer(number)
        for number, reader in enumerate(self.readers):
            while reader.handling or reader.position < len(self.log):
                self.finish(number)
                self.deliver(number)
        self.write("driver", "settled")


STEPS = [
    *("call", "commit", "answer", "deliver", "finish") * 6,
    *("call", "deliver", "acknowledge") * 2,
    *("fail", "leave_unsure", "commit_late", "kill", "pause", "crash"),
]
#: What happens, and to whom.
PLANS = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), max_size=150)
LONG_PLANS = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), min_size=60, max_size=120)


def histories(plan, durability):
    """What the perfect bus's processes wrote down."""
    bus = Bus()
    for step, n in plan:
        forgets_nothing = step == "crash" and durability == "Sync"
        getattr(bus, step)(0 if forgets_nothing else n)
    bus.settle()
    return bus.files


class Known:
    """What the checker has to find out, from the simulation."""

    def __init__(self, files):
        self.files = files
        events = [event for history in files.values() for event in history]
        self.invoked = {event.message: event.time for event in events if event.kind == "publish"}
        self.returned = {event.message: event.time for event in events if event.kind == "published"}
        self.faults = [event.time for event in events if event.kind == "fault"]

    def received(self, process):
        return [event.message for event in self.files[process] if event.kind == "received"]

    def processes(self, peer=""):
        """Those that subscribe, in the order of their starts."""
        return [process for process in self.files if process.startswith(f"{peer}-" if peer else ("b", "l", "s"))]


def choose(n, candidates):
    """One of them; an example without any is none."""
    candidates = list(candidates)
    assume(candidates)
    return candidates[n % len(candidates)]


def without(history, message):
    return [event for event in history if event.message != message]


def exchanged(history, one, other):
    """With the deliveries of two messages in each other's place."""
    names = {one: other, other: one}
    return [
        event._replace(message=names.get(event.message, event.message))
        if event.kind in ("received", "handled")
        else event
        for event in history
    ]


def inserted(history, n, message):
    """With a delivery somewhere after joining."""
    place = 3 + n % (len(history) - 2)
    before = history[place - 1]
    return [*history[:place], Event("received", before.time + 1, message), *history[place:]]


def lose(known, n):
    """A peer never gets a message."""
    peer, _ = choose(n, PEERS)
    last = known.processes(peer)[-1]
    first_joined = known.files[(known.processes(peer) if peer in ("billing", "ledger") else [last])[0]][2].time
    message = choose(n, (m for m in known.returned if known.invoked[m] > first_joined))
    for process in known.processes(peer):
        known.files[process] = without(known.files[process], message)
    return {Broken.LOST}


def forget(known, n):
    """A message that a peer had not handled when it was killed does not come again."""
    process, message = choose(
        n,
        (
            (process, message)
            for peer in ("billing", "ledger")
            for process in known.processes(peer)[:-1]
            for message in known.received(process)[-1:]
            if message in known.returned and known.files[process][-1].kind == "received"
        ),
    )
    processes = known.processes(process.partition("-")[0])
    # It may have been handled by one that started before.
    for later in processes:
        if later != process:
            known.files[later] = without(known.files[later], message)
    return {Broken.LOST}


def repeat(known, n):
    """A process is handed a message twice."""
    process = choose(n, (process for process in known.processes() if known.received(process)))
    history = known.files[process]
    message = choose(n, known.received(process))
    known.files[process] = [*history, Event("received", history[-1].time + 1, message)]
    return {Broken.DUPLICATE}


def disagree(known, n):
    """A process gets two messages in another order than another process."""
    process, one, other = choose(
        n,
        (
            (process, one, other)
            for process in known.processes()
            for one, other in zip(known.received(process), known.received(process)[1:], strict=False)
            if any({one, other} <= set(known.received(witness)) for witness in known.processes() if witness != process)
        ),
    )
    known.files[process] = exchanged(known.files[process], one, other)
    return {Broken.TOTAL_ORDER}


def overtake(known, n):
    """All get a message before one that had been published when its own publish began."""
    one, other = choose(
        n,
        {
            (one, other)
            for process in known.processes()
            for one, other in zip(known.received(process), known.received(process)[1:], strict=False)
            if known.returned.get(one, 1 << 62) < known.invoked[other]
        },
    )
    for process in known.processes():
        known.files[process] = exchanged(known.files[process], one, other)
    return {Broken.REAL_TIME_ORDER, Broken.PUBLISHER_ORDER}


def invent(known, n):
    """A message that nobody published."""
    process = choose(n, known.processes())
    known.files[process] = inserted(known.files[process], n, "nobody-1")
    return {Broken.PHANTOM}


def leak(known, n):
    """A message of another channel."""
    known.files["other"] = [
        Event("opened", 0, "", {"process": "other", "channel": "audit", "client": "bus_runtime"}),
        Event("publish", 1, "other-1"),
        Event("published", 2, "other-1"),
    ]
    process = choose(n, known.processes())
    known.files[process] = inserted(known.files[process], n, "other-1")
    return {Broken.CHANNEL}


def deny(known, n):
    """A message whose publish failed."""
    message = choose(n, sorted({message for process in known.processes() for message in known.received(process)}))
    publisher = message.partition("-")[0]
    outcomes = ("published", "unknown")
    known.files[publisher] = [
        event._replace(kind="failed") if event.message == message and event.kind in outcomes else event
        for event in known.files[publisher]
    ]
    return {Broken.FAILED}


def outlive(known, n):
    """A peer never gets a message that was older than what a crash may take, or younger than every crash."""
    known.returned = {
        message: returned
        for message, returned in known.returned.items()
        if all(returned < fault - 610 * MILLISECOND or known.invoked[message] > fault for fault in known.faults)
    }
    return lose(known, n)


@pytest.mark.parametrize("durability", ["Sync", "Async"])
@SETTINGS
@given(plan=PLANS)
def test_a_perfect_bus_keeps_its_promises(durability, plan):
    verdict = check(list(histories(plan, durability).values()), Promise(durability))
    assert verdict, str(verdict)


@pytest.mark.parametrize(
    ("mutation", "durability"),
    [
        *((mutation, "Sync") for mutation in (lose, forget, repeat, disagree, overtake, invent, leak, deny)),
        *((mutation, "Async") for mutation in (outlive, repeat, disagree, overtake, invent, leak, deny)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@SETTINGS
@given(plan=LONG_PLANS, n=st.integers(0, 1000))
def test_whatever_is_changed_is_found(mutation, durability, plan, n):
    known = Known(histories(plan, durability))
    expected = mutation(known, n)
    verdict = check(list(known.files.values()), Promise(durability))
    assert expected & set(verdict.counts), f"{mutation.__doc__} Found: {verdict}"
