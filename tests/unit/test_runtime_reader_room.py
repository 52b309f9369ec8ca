"""The reader and subscribers that are full: what is not read, what is acknowledged, and when it goes on."""

import pytest
from log_reader import HandWaker, Harness, payloads, settle
from recorder import eventually

from bus_runtime import JoinOptions, UnavailableError
from bus_runtime import lookout as lookout_module


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A reader that is woken, and does not look by itself while the test runs."""
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    return Harness(max_poll=600.0)


def allow(harness: Harness, room: int) -> None:
    harness.flow.room = room
    if room:
        harness.flow.on_room()


def full_after(harness: Harness, last: int) -> None:
    """Full as soon as that message is there."""
    receive = harness.receive

    def receive_until_full(msg_id: int, *args: object) -> None:
        receive(msg_id, *args)  # type: ignore[arg-type]
        if msg_id == last:
            harness.flow.room = 0

    harness.receive = receive_until_full  # type: ignore[method-assign]


async def test_no_more_is_read_than_there_is_room_for(harness: Harness) -> None:
    harness.flow.room = 3
    await harness.start()
    await harness.publish(8)
    harness.waker.wake()
    await eventually(lambda: len(harness.received) == 8)
    assert {read.limit for read in harness.reads} == {3}
    await harness.stop()


async def test_what_was_read_and_finds_no_room_is_read_again_later(harness: Harness) -> None:
    full_after(harness, 3)
    await harness.start()
    await harness.publish(8)
    harness.waker.wake()
    await settle()
    assert (harness.received, harness.reader.position, harness.reader.in_flight) == ([1, 2, 3], 3, 3)
    reads = len(harness.reads)
    await settle()
    assert len(harness.reads) == reads
    allow(harness, 100)
    await eventually(lambda: len(harness.received) == 8)
    assert harness.reads[reads].after == 3
    assert harness.waker.complaints == 0
    await harness.stop()


@pytest.mark.parametrize("announced", [0, 10, 11])
async def test_what_is_announced_meanwhile_stays_in_the_log_and_costs_nothing(harness: Harness, announced: int) -> None:
    full_after(harness, 2)
    await harness.start()
    await harness.announce(5)
    assert harness.received == [1, 2]
    assert harness.counters.announced == 2
    reads = len(harness.reads)
    for _ in range(announced):
        await harness.announce()
        harness.waker.wake()
        harness.waker.wake(10**6)
    await settle()
    assert (harness.received, len(harness.reads)) == ([1, 2], reads)
    allow(harness, 100)
    await eventually(lambda: harness.received == list(range(1, announced + 6)))
    assert harness.counters.announced == 2
    assert harness.waker.complaints == 0
    await harness.stop()


async def test_without_room_handled_messages_are_acknowledged_all_the_same(harness: Harness) -> None:
    full_after(harness, 2)
    await harness.start()
    await harness.announce(5)
    reads = len(harness.reads)
    harness.handle(1)
    await eventually(lambda: harness.reader.acknowledged == 1)
    assert [(read.limit, read.acknowledge) for read in harness.reads[reads:]] == [(0, 1)]
    assert harness.received == [1, 2]
    await harness.stop()


@pytest.mark.parametrize("mode", ["doorbell", "poll"])
async def test_without_room_the_server_hears_from_the_reader_and_not_often(mode: str) -> None:
    harness = Harness(poll_interval=0.001, max_poll=600.0)
    harness.backend.peer_timeout = 0.3
    harness.backend.make_waker = lambda: HandWaker(mode)
    full_after(harness, 1)
    await harness.start()
    await harness.announce(5)
    reads = len(harness.reads)
    await eventually(lambda: len(harness.reads) >= reads + 3)
    calls = harness.reads[reads:]
    assert {(read.limit, read.acknowledge) for read in calls} == {(0, None)}
    assert calls[2].at - calls[0].at > 0.15
    await harness.stop()


async def test_an_outage_without_room_is_waited_for(harness: Harness) -> None:
    harness.backend.peer_timeout = 0.03
    full_after(harness, 1)
    await harness.start()
    await harness.announce(5)
    harness.backend.failures = [UnavailableError("down")]
    await eventually(lambda: harness.counters.reconnects == 1)
    allow(harness, 100)
    await eventually(lambda: len(harness.received) == 5)
    await harness.stop()


async def test_nothing_is_acknowledged_that_somebody_behind_has_not_handled(harness: Harness) -> None:
    await harness.start()
    await harness.announce(5)
    harness.flow.acknowledgeable = 2
    harness.handle(1, 2, 3, 4, 5)
    await eventually(lambda: harness.reader.acknowledged == 2)
    harness.flow.acknowledgeable = 4
    harness.flow.on_handled()
    await eventually(lambda: harness.reader.acknowledged == 4)
    harness.flow.acknowledgeable = 10**9
    await harness.stop()
    assert harness.acknowledgements == [2, 4, 5]


async def test_reading_for_somebody_behind_acknowledges_nothing(harness: Harness) -> None:
    await harness.start()
    assert harness.flow.begun_at == 0
    await harness.announce(5)
    harness.handle(1, 2)
    reads = len(harness.reads)
    records = await harness.flow.read(1, 3)
    assert [record.msg_id for record in records] == [2, 3, 4]
    assert [(read.after, read.acknowledge, read.limit) for read in harness.reads[reads:]] == [(1, None, 3)]
    await harness.stop()


async def test_after_joining_another_log_those_behind_are_told_where_the_reader_is(harness: Harness) -> None:
    await harness.start()
    await harness.announce(2)
    assert harness.flow.begun_at == 0
    # As when the channel was deleted and made again.
    harness.broker._channels.clear()
    other = await harness.backend.join_channel("orders", JoinOptions())
    await harness.backend.publish_many("orders", other.queue, payloads(1))
    await harness.session.renew(harness.session.membership)
    await eventually(lambda: harness.counters.rejoined == 1)
    assert harness.flow.begun_at == harness.reader.position == 1
    assert harness.flow.room
    await harness.stop()
