"""A peer that the server does not know any more, as after a failover that lost its joining: who gets its place."""

import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from recorder import Recorder, eventually, note

from bus_runtime import JoinOptions, Membership, PeerRefusedError, PgmqBus, PublishError, UnavailableError
from bus_runtime.session import Session
from bus_runtime.testing import InMemoryBackend, InMemoryBroker

LEDGER = JoinOptions(peer="ledger")


class Told:
    """A durable bus, and what it was handed and told."""

    def __init__(self, broker: InMemoryBroker) -> None:
        self.lost: list[int] = []
        self.redelivered: list[int] = []
        self.refusals: list[PeerRefusedError] = []
        self.recorder = Recorder()
        self.bus = PgmqBus(
            backend=InMemoryBackend(broker),
            channel="orders",
            peer="ledger",
            on_lost=self.lost.append,
            on_redelivered=self.redelivered.append,
            on_refused=self.refusals.append,
        )

    async def start(self) -> None:
        await self.bus.subscribe(self.recorder)
        await self.bus.start()


@pytest.fixture
async def make_bus(broker: InMemoryBroker) -> AsyncIterator[Callable[[], Told]]:
    made: list[Told] = []

    def make() -> Told:
        made.append(Told(broker))
        return made[-1]

    yield make
    for told in made:
        await told.bus.stop()


def remember(broker: InMemoryBroker) -> Callable[[], None]:
    """What the broker knows of its peers now; called later, it knows nothing else any more."""
    peers = copy.deepcopy(broker.channel("orders").peers)

    def forget_the_rest() -> None:
        broker.channel("orders").peers = copy.deepcopy(peers)

    return forget_the_rest


@pytest.mark.parametrize("known", [True, False], ids=["known-before", "new"])
async def test_a_durable_peer_joins_again_and_goes_on_where_it_was(
    broker: InMemoryBroker, make_bus: Callable[[], Told], known: bool
) -> None:
    if known:
        former = make_bus()
        await former.start()
        await former.bus.publish(note(0), raise_on_error=True)
        await eventually(lambda: former.recorder.numbers == [0])
        await former.bus.stop()
    failover = remember(broker)
    told = make_bus()
    await told.start()
    await told.bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: told.recorder.numbers == [1])
    failover()
    await told.bus.publish(note(2), raise_on_error=True)
    await eventually(lambda: told.recorder.numbers == [1, 2])
    stats = told.bus.stats()
    assert (stats.state, stats.rejoined) == ("running", 1)
    assert (told.lost, told.redelivered, told.refusals) == ([], [], [])
    await eventually(lambda: told.bus.stats().acknowledged == told.bus.stats().position)
    await told.bus.stop()
    after = make_bus()
    await after.start()
    await after.bus.publish(note(3), raise_on_error=True)
    await eventually(lambda: after.recorder.numbers == [3])
    assert (after.lost, after.redelivered) == ([], [])


async def test_what_was_in_hand_is_acknowledged_to_the_server_that_had_not_heard_of_it(
    broker: InMemoryBroker, backend: InMemoryBackend, make_bus: Callable[[], Told]
) -> None:
    first = await backend.join_channel("orders", LEDGER)
    failover = remember(broker)
    told = make_bus()
    await told.start()
    for number in range(3):
        await told.bus.publish(note(number), raise_on_error=True)
    await eventually(lambda: told.bus.stats().acknowledged == 3)
    failover()
    assert [peer.acknowledged for peer in broker.channel("orders").peers.values()] == [first.position] == [0]
    await told.bus.publish(note(3), raise_on_error=True)
    await eventually(lambda: [peer.acknowledged for peer in broker.channel("orders").peers.values()] == [4])
    assert told.recorder.numbers == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [0, 1], ids=["the-earlier-asks-first", "the-later-asks-first"])
async def test_of_two_that_the_server_forgot_the_later_stays(
    broker: InMemoryBroker, backend: InMemoryBackend, first: int
) -> None:
    await backend.join_channel("orders", LEDGER)
    failover = remember(broker)
    sessions = [Session(InMemoryBackend(broker), "orders", LEDGER) for _ in range(2)]
    refused = [await session.join(0) for session in sessions]
    failover()
    order = [first, 1 - first]
    outcomes: dict[int, Any] = {}
    for number in order:
        try:
            outcomes[number] = await sessions[number].renew(refused[number])
        except PeerRefusedError as error:
            outcomes[number] = error
    if first == 0:
        # It had the place for a moment.
        with pytest.raises(PeerRefusedError, match="joined under the same name"):
            await sessions[0].renew(outcomes[0])
    else:
        assert isinstance(outcomes[0], PeerRefusedError)
    assert list(broker.channel("orders").peers) == [sessions[1].membership.queue]
    broker.drop_peers("orders")
    with pytest.raises(PeerRefusedError):
        await sessions[0].renew(sessions[0].membership)
    assert broker.channel("orders").peers == {}, "a refusal is final"


async def test_who_slept_through_two_takeovers_takes_nothing_back(
    broker: InMemoryBroker, backend: InMemoryBackend
) -> None:
    sleeper = Session(InMemoryBackend(broker), "orders", LEDGER)
    refused = await sleeper.join(0)
    await backend.join_channel("orders", LEDGER)
    last = await backend.join_channel("orders", LEDGER)
    with pytest.raises(PeerRefusedError):
        await sleeper.renew(refused)
    assert list(broker.channel("orders").peers) == [last.queue]


async def test_a_refused_process_does_not_publish_when_the_server_forgets_who_refused_it(
    broker: InMemoryBroker, make_bus: Callable[[], Told]
) -> None:
    earlier = make_bus()
    await earlier.start()
    failover = remember(broker)
    later = make_bus()
    await later.start()
    await later.bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: earlier.refusals)
    failover()
    with pytest.raises(PublishError, match="another process joined under the same name"):
        await earlier.bus.publish(note(2), raise_on_error=True)
    await later.bus.publish(note(3), raise_on_error=True)
    await eventually(lambda: later.recorder.numbers == [1, 3])
    assert (earlier.bus.stats().state, later.bus.stats().state) == ("refused", "running")


async def test_a_claim_whose_answer_got_lost_is_made_again(broker: InMemoryBroker) -> None:
    class Losing(InMemoryBackend):
        losing = False

        async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
            membership = await super().join_channel(channel, options)
            if self.losing:
                self.losing = False
                raise UnavailableError("the answer got lost")
            return membership

    backend = Losing(broker)
    session = Session(backend, "orders", LEDGER)
    refused = await session.join(0)
    broker.drop_peers("orders")
    backend.losing = True
    with pytest.raises(UnavailableError):
        await session.renew(refused)
    membership = await session.renew(refused)
    assert list(broker.channel("orders").peers) == [membership.queue]
    assert membership.since == refused.since


async def test_where_the_server_cannot_tell_who_was_last_nobody_fights(broker: InMemoryBroker) -> None:
    class Older(InMemoryBackend):
        async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
            return replace(await super().join_channel(channel, options), since=None, head=None)

    session = Session(Older(broker), "orders", LEDGER)
    refused = await session.join(0)
    broker.drop_peers("orders")
    with pytest.raises(PeerRefusedError, match="another process joined under the same name"):
        await session.renew(refused)
    assert broker.channel("orders").peers == {}
