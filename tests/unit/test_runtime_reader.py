"""How a reader learns of messages: announced ones, ones it is only told of, and those it finds by itself."""

import asyncio
import itertools

import pytest
from log_reader import HandWaker, Harness, payloads, settle
from recorder import eventually

from bus_runtime import UnavailableError
from bus_runtime import lookout as lookout_module
from bus_runtime.reader import LogReader


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A reader that is woken, and does not look by itself while the test runs."""
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    return Harness(max_poll=600.0)


# --- announcements ---


async def test_the_next_messages_are_taken_without_a_read(harness: Harness) -> None:
    await harness.start()
    for count in (1, 3, 1):
        await harness.announce(count)
    assert harness.received == [1, 2, 3, 4, 5]
    assert harness.reader.position == 5
    await settle()
    assert len(harness.reads) == 1
    assert harness.counters.received == 5
    await harness.stop()


async def test_who_is_told_of_everything_does_not_look_first(harness: Harness) -> None:
    harness.backend.announced = True
    await harness.start()
    await harness.announce(2)
    assert harness.received == [1, 2]
    assert harness.reads == []
    harness.waker.wake()
    await settle()
    assert [read.after for read in harness.reads] == [2]
    await harness.stop()


async def test_who_is_told_of_everything_and_is_not_looks_soon_and_complains(quick: Harness) -> None:
    quick.backend.announced = True
    await quick.start()
    await quick.publish(2)
    await eventually(lambda: quick.received == [1, 2])
    await eventually(lambda: quick.waker.complaints == 1)
    await quick.stop()


async def test_without_a_doorbell_it_looks_first(harness: Harness) -> None:
    harness.backend.announced = True
    harness.backend.make_waker = lambda: HandWaker("poll")
    await harness.start()
    assert len(harness.reads) == 1
    await harness.stop()


async def test_what_was_taken_before_is_left_out(harness: Harness) -> None:
    await harness.start()
    await harness.publish(6)
    harness.waker.offer(1, payloads(3))
    harness.waker.offer(2, payloads(1))
    harness.waker.offer(1, payloads(3))
    harness.waker.offer(2, payloads(4))
    harness.waker.offer(6, payloads(1))
    assert harness.received == [1, 2, 3, 4, 5, 6]
    await settle()
    assert len(harness.reads) == 1
    await harness.stop()


async def test_behind_a_gap_the_log_is_read(harness: Harness) -> None:
    await harness.start()
    await harness.publish(5)
    harness.waker.offer(4, payloads(2))
    assert harness.received == []
    await settle()
    assert harness.received == [1, 2, 3, 4, 5]
    assert [read.after for read in harness.reads] == [0, 0]
    # What had got lost comes late.
    harness.waker.offer(1, payloads(3))
    await settle()
    assert harness.received == [1, 2, 3, 4, 5]
    assert len(harness.reads) == 2
    await harness.stop()


async def test_in_any_order_each_is_delivered_once(harness: Harness) -> None:
    await harness.start()
    await harness.publish(30)
    for first_id in (3, 1, 2, 9, 5, 4, 30, 1, 12):
        harness.waker.offer(first_id, payloads(1))
    await settle()
    assert harness.received == list(range(1, 31))
    assert harness.reader.in_flight == 30
    await harness.stop()


async def test_an_offer_during_a_read_is_not_delivered_again_by_it(harness: Harness) -> None:
    await harness.start()
    harness.backend.answered.clear()
    harness.backend.gate.clear()
    await harness.publish(3)
    harness.waker.wake()
    await harness.backend.answered.wait()
    # The answer holds 1 to 3; meanwhile two of them are offered, and a fourth that the answer does not hold.
    harness.waker.offer(1, payloads(2))
    assert harness.received == [1, 2]
    harness.backend.gate.set()
    await settle()
    assert harness.received == [1, 2, 3]
    await harness.announce()
    assert harness.received == [1, 2, 3, 4]
    await harness.stop()


async def test_an_offer_beyond_a_read_is_read_next(harness: Harness) -> None:
    await harness.start()
    harness.backend.answered.clear()
    harness.backend.gate.clear()
    await harness.publish(2)
    harness.waker.wake()
    await harness.backend.answered.wait()
    await harness.publish(2)
    harness.waker.offer(4, payloads(1))
    harness.backend.gate.set()
    await settle()
    assert harness.received == [1, 2, 3, 4]
    assert [read.after for read in harness.reads] == [0, 0, 2]
    await harness.stop()


async def test_what_is_not_for_this_peer_is_passed_over(harness: Harness) -> None:
    await harness.start()
    await harness.publish(3)
    harness.waker.offer(1, [None, b"{}", None])
    assert harness.received == [2]
    assert (harness.reader.position, harness.reader.in_flight, harness.counters.received) == (3, 1, 1)
    harness.handle(2)
    await eventually(lambda: harness.broker.backlog("orders") == 0)
    assert harness.reader.acknowledged == 3
    await harness.stop()


async def test_what_is_not_for_this_peer_is_acknowledged_without_anything_else(harness: Harness) -> None:
    await harness.start()
    await harness.publish(2)
    harness.waker.offer(1, [None, None])
    await eventually(lambda: harness.broker.backlog("orders") == 0, seconds=2)
    assert harness.acknowledgements == [2]
    await harness.stop()


async def test_ids_tell_whether_a_read_is_worth_it(harness: Harness) -> None:
    await harness.start()
    await harness.announce(3)
    harness.waker.wake(3)
    harness.waker.wake(1)
    harness.waker.offer(3, [])
    await settle()
    assert len(harness.reads) == 1
    await harness.publish()
    harness.waker.wake(4)
    await settle()
    assert harness.received == [1, 2, 3, 4]
    assert len(harness.reads) == 2
    await harness.stop()


async def test_a_wake_up_without_an_id_is_one_read(harness: Harness) -> None:
    await harness.start()
    for _ in range(5):
        harness.waker.wake()
    await settle()
    assert len(harness.reads) == 2
    await harness.stop()


async def test_a_wake_up_during_a_read_is_another_read(harness: Harness) -> None:
    await harness.start()
    harness.backend.answered.clear()
    harness.backend.gate.clear()
    harness.waker.wake()
    await harness.backend.answered.wait()
    await harness.publish()
    harness.waker.wake(1)
    harness.backend.gate.set()
    await settle()
    assert harness.received == [1]
    await harness.stop()


async def test_offers_are_taken_while_the_server_is_away(harness: Harness) -> None:
    await harness.start()
    harness.backend.failures = [UnavailableError("down") for _ in range(1000)]
    harness.waker.wake()
    await settle()
    reads = len(harness.reads)
    await harness.announce(2)
    for _ in range(100):
        harness.waker.wake()
        await settle()
    assert harness.received == [1, 2]
    assert len(harness.reads) <= reads + 1, "wake-ups do not make a server that is away be asked more often"
    harness.backend.failures = []
    await harness.publish()
    await eventually(lambda: harness.received == [1, 2, 3])
    await harness.stop()


async def test_nothing_is_taken_once_it_stops(harness: Harness) -> None:
    await harness.start()
    harness.reader.stop()
    await harness.announce()
    harness.waker.wake()
    await harness.task
    assert harness.received == []
    assert harness.reader.position == 0
    await harness.stop()
    assert harness.waker.closed
    assert harness.reader.wake == "poll"
    assert len(harness.reads) == 1, "there was nothing to acknowledge"


# --- its own looks ---


async def test_it_looks_by_itself_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 0.01)
    harness = Harness(max_poll=0.04, poll_interval=0.001)
    await harness.start()
    await eventually(lambda: len(harness.reads) >= 6)
    times = [read.at for read in harness.reads[:6]]
    waited = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(is_ >= least for is_, least in zip(waited, [0.01, 0.02, 0.04, 0.04, 0.04], strict=True)), waited
    await harness.stop()


async def test_offers_that_are_taken_do_not_put_its_looks_off(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 0.02)
    await harness.start()

    async def keep_offering() -> None:
        while True:
            await harness.announce()
            await asyncio.sleep(0.001)

    offering = asyncio.create_task(keep_offering())
    await eventually(lambda: len(harness.reads) >= 3)
    offering.cancel()
    assert harness.counters.overlooked == 0
    await harness.stop()


async def test_the_server_hears_of_an_idle_reader_in_time(harness: Harness) -> None:
    harness.backend.peer_timeout = 0.15
    await harness.start()
    await eventually(lambda: len(harness.reads) >= 4)
    times = [read.at for read in harness.reads[:4]]
    assert times[3] - times[0] >= 0.15 * 0.99
    await harness.stop()


@pytest.fixture
def quick(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A reader that looks soon and soon judges."""
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(lookout_module, "GRACE", 0.02)
    return harness


async def test_finding_what_nothing_announced_is_reported(quick: Harness) -> None:
    await quick.start()
    await quick.publish(2)
    await eventually(lambda: quick.waker.complaints == 1)
    assert quick.received == [1, 2]
    assert quick.counters.overlooked == 1
    await quick.publish()
    await eventually(lambda: quick.waker.complaints == 2)
    await quick.stop()


async def test_an_acknowledging_read_that_finds_something_is_a_look_as_well(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where messages keep coming and are handled at once, no other look ever takes place."""
    monkeypatch.setattr(lookout_module, "GRACE", 0.02)
    await harness.start()
    await harness.announce()
    harness.handle(1)
    await harness.publish()
    await eventually(lambda: harness.waker.complaints == 1)
    assert harness.received == [1, 2]
    await harness.stop()


@pytest.mark.parametrize("call", ["offer", "wake", "wake without an id"])
async def test_an_announcement_that_follows_soon_is_no_omission(
    quick: Harness, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(lookout_module, "GRACE", 0.3)
    await quick.start()
    await quick.publish()
    await eventually(lambda: quick.received == [1])
    if call == "offer":
        quick.waker.offer(1, payloads(1))
    else:
        quick.waker.wake(*[1] if call == "wake" else [])
    # Another reader, to which the next message is not announced either, and which complains later than this one would.
    control = Harness(max_poll=600.0)
    await control.start()
    await control.publish()
    await eventually(lambda: control.waker.complaints)
    assert quick.waker.complaints == quick.counters.overlooked == 0
    await control.stop()
    await quick.stop()


async def test_what_this_process_publishes_announces_nothing_else(quick: Harness) -> None:
    await quick.start()
    await quick.publish()
    await eventually(lambda: quick.received == [1])
    async with asyncio.timeout(10):
        while not quick.waker.complaints:
            await quick.announce()
            await asyncio.sleep(0.002)
    await quick.stop()


async def test_an_announcement_during_the_look_is_no_omission(quick: Harness) -> None:
    await quick.start()
    quick.backend.gate.clear()
    quick.backend.answered.clear()
    await quick.publish()
    await quick.backend.answered.wait()
    quick.waker.wake(1)
    quick.backend.gate.set()
    await eventually(lambda: quick.received == [1])
    await quick.publish()
    await eventually(lambda: quick.waker.complaints)
    assert quick.counters.overlooked == 1, "only the second one was overlooked"
    await quick.stop()


async def test_neither_a_backlog_nor_an_outage_is_an_omission(quick: Harness) -> None:
    await quick.session.join(0)
    await quick.publish(25)
    await quick.read()
    assert len(quick.received) == 25
    quick.backend.failures = [UnavailableError("down")]
    await eventually(lambda: not quick.backend.failures)
    await quick.publish()
    await eventually(lambda: len(quick.received) == 26)
    # Looks become rarer: three of them take longer than the grace.
    reads = len(quick.reads)
    await eventually(lambda: len(quick.reads) > reads + 3)
    assert quick.counters.overlooked == 0
    await quick.stop()


async def test_polling_slows_down_while_nothing_comes_and_is_quick_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    wait = LogReader._wait

    async def record(self: LogReader, seconds: float) -> bool:
        waits.append(seconds)
        return await wait(self, seconds)

    monkeypatch.setattr(LogReader, "_wait", record)
    harness = Harness(poll_interval=0.001, max_poll=0.006)
    harness.backend.make_waker = lambda: HandWaker("poll")
    await harness.start()
    await eventually(lambda: len(waits) >= 5)
    assert waits[:5] == [0.001, 0.002, 0.004, 0.006, 0.006]
    await harness.publish()
    await eventually(lambda: harness.received)
    assert 0.001 in waits[5:]
    assert harness.counters.overlooked == 0
    await harness.stop()
