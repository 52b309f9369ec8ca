"""The reader's calls: acknowledgements, size, outages, refusals, stopping. Scripted where a fault must be exact."""

import asyncio
import logging
import time
from typing import Any

import pytest
from log_reader import HandWaker, Harness, payloads, settle
from recorder import eventually

from bus_runtime import (
    AccessDeniedError,
    BackendError,
    JoinOptions,
    LogRecord,
    PeerRefusedError,
    UnavailableError,
    batch,
)
from bus_runtime import lookout as lookout_module
from bus_runtime.session import Session
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A reader that is woken, and does not look by itself while the test runs."""
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    return Harness(max_poll=600.0)


@pytest.fixture
def polling() -> Harness:
    """A reader that nothing wakes."""
    made = Harness(poll_interval=0.002, max_poll=0.01)
    made.backend.make_waker = lambda: HandWaker("poll")
    return made


# --- acknowledgements ---


async def test_each_call_carries_what_was_handled_and_only_news(polling: Harness) -> None:
    await polling.start()
    await polling.publish(3)
    await eventually(lambda: len(polling.received) == 3)
    polling.handle(2)
    assert polling.reader.acknowledged == 0
    polling.handle(1)
    await eventually(lambda: polling.reader.acknowledged == 2)
    assert polling.acknowledgements == [2]
    polling.handle(3)
    await eventually(lambda: polling.broker.backlog("orders") == 0)
    assert polling.acknowledgements == [2, 3]
    await polling.stop()


@pytest.mark.parametrize(("audience", "least"), [(1, 0.05), (20, 0.2), (5000, 1.0)])
async def test_acknowledgements_are_paced_by_the_audience(harness: Harness, audience: int, least: float) -> None:
    harness.backend.make_waker = lambda: HandWaker(audience=audience)
    await harness.start()
    await harness.announce(3)
    harness.handle(1)
    await eventually(lambda: harness.reader.acknowledged == 1)
    harness.handle(2)
    # Reads for other reasons do not hasten it.
    harness.waker.wake()
    await settle()
    harness.handle(3)
    await eventually(lambda: harness.reader.acknowledged == 3, seconds=least + 3)
    first, second = (read for read in harness.reads if read.acknowledge is not None)
    assert least * 0.99 <= second.at - first.at < least + 2
    assert second.acknowledge == 3, "what was handled meanwhile goes with it"
    await harness.stop()


async def test_what_is_handled_during_an_acknowledgement_is_acknowledged_next(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing else happens: its time is counted from a call that was not over when it was handled."""
    harness.backend.make_waker = lambda: HandWaker(audience=20)
    await harness.start()
    await harness.announce(2)
    read_after = harness.backend.read_after

    async def read(*arguments: Any, acknowledge: int | None, **options: Any) -> list[LogRecord]:
        if acknowledge == 1:
            harness.handle(2)
        return await read_after(*arguments, acknowledge=acknowledge, **options)

    monkeypatch.setattr(harness.backend, "read_after", read)
    harness.handle(1)
    await eventually(lambda: harness.reader.acknowledged == 2)
    assert harness.acknowledgements == [1, 2]
    await harness.stop()


async def test_an_acknowledgement_that_fails_is_repeated(harness: Harness) -> None:
    await harness.start()
    await harness.announce()
    harness.backend.failures = [UnavailableError("down")]
    harness.handle(1)
    await eventually(lambda: harness.reader.acknowledged == 1)
    assert harness.acknowledgements == [1, 1]
    await harness.stop()


async def test_closing_acknowledges_whatever_the_pace(harness: Harness) -> None:
    harness.backend.make_waker = lambda: HandWaker(audience=1000)
    await harness.start()
    await harness.announce(2)
    harness.handle(1)
    await eventually(lambda: harness.reader.acknowledged == 1)
    harness.handle(2)
    await harness.stop()
    assert harness.acknowledgements == [1, 2]
    assert harness.reads[-1].limit == 0
    assert harness.broker.backlog("orders") == 0


async def test_closing_for_a_refused_peer_acknowledges_nothing(harness: Harness) -> None:
    await harness.start()
    await harness.announce()
    harness.reader.stop()
    await harness.task
    harness.handle(1)
    await harness.reader.close(acknowledge=False)
    assert harness.acknowledgements == []


async def test_closing_survives_a_server_that_is_away(harness: Harness) -> None:
    await harness.start()
    await harness.announce()
    harness.handle(1)
    harness.backend.failures = [UnavailableError("down")]
    await harness.stop()
    assert harness.waker.closed


async def test_what_an_earlier_process_was_given_counts_as_redelivered() -> None:
    first = Harness(peer="ledger")
    await first.start()
    await first.announce(4)
    first.handle(1)
    await eventually(lambda: first.reader.acknowledged == 1)
    assert first.counters.redelivered == 0
    await first.stop(acknowledge=False)

    second = Harness(first.broker, peer="ledger")
    await second.start()
    assert second.received == [2, 3, 4]
    await second.announce()
    assert second.received == [2, 3, 4, 5]
    assert second.counters.redelivered == 3
    assert second.redelivered == [2, 3, 4]
    await second.stop()


# --- the size of reads ---


async def test_reads_follow_each_other_and_grow_while_there_is_more(harness: Harness) -> None:
    await harness.start()
    harness.backend.gate.clear()
    harness.waker.wake()
    await settle()
    await harness.publish(4000)
    harness.waker.wake()
    harness.backend.gate.set()
    await eventually(lambda: len(harness.received) == 4000)
    assert [read.limit for read in harness.reads[2:]] == [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]
    assert harness.received == list(range(1, 4001))
    # One that brings little is followed by smaller ones, down to where it began.
    harness.reads.clear()
    for _ in range(10):
        harness.waker.wake()
        await settle()
    assert [read.limit for read in harness.reads] == [1000, 500, 250, 125, 62, 31, 15, 10, 10, 10]
    await harness.stop()


async def test_a_read_that_is_well_used_keeps_its_size(harness: Harness) -> None:
    await harness.start()
    await harness.publish(15)
    harness.waker.wake()
    await settle()
    assert [read.limit for read in harness.reads] == [10, 10, 20]
    for published in (5, 4, 0):
        await harness.publish(published)
        harness.waker.wake()
        await settle()
    assert [read.limit for read in harness.reads[3:]] == [20, 20, 10]
    await harness.stop()


async def test_large_messages_are_read_in_few_at_a_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_MAX_BYTES", 1000)
    await harness.start()
    await harness.publish(12, b'"' + b"x" * 398 + b'"')
    await harness.publish(2, b'"' + b"x" * 4000 + b'"')
    await harness.publish(20)
    harness.waker.wake()
    await settle()
    assert harness.received == list(range(1, 35))
    # Ten of 400 bytes; two of them are 800 bytes, two larger ones are too much; small ones may be many.
    assert [read.limit for read in harness.reads[1:]] == [10, 2, 2, 1, 10, 20]
    await harness.stop()


async def test_a_batch_size_beyond_the_bounds_is_no_reason_to_exceed_them() -> None:
    harness = Harness(batch_size=50_000)
    await harness.start()
    await harness.publish(1001)
    harness.waker.wake()
    await settle()
    assert [read.limit for read in harness.reads] == [1000, 1000, 1000]
    await harness.stop()


async def test_a_read_of_nothing_but_own_messages_is_followed_by_another() -> None:
    harness = Harness(batch_size=1, max_poll=600.0)
    # The server left out own messages and says how far it looked.
    harness.backend.answers = [[LogRecord(10, None)], [LogRecord(11, b"{}")]]
    await harness.start()
    assert harness.received == [11]
    assert [read.after for read in harness.reads[:2]] == [0, 10]
    assert harness.counters.lost == 0
    await harness.stop()


# --- outages ---


async def test_an_outage_is_logged_once_per_kind_and_nothing_is_lost_or_repeated(
    polling: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await polling.start()
    await polling.publish(2)
    await eventually(lambda: len(polling.received) == 2)
    polling.backend.failures = [
        UnavailableError("down"),
        UnavailableError("down"),
        RuntimeError("foreign"),
        BackendError("odd", sqlstate="XX000"),
    ]
    await polling.publish(2)
    await eventually(lambda: len(polling.received) == 4)
    assert polling.received == [1, 2, 3, 4]
    assert polling.counters.reconnects == 1
    texts = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert [text.partition(": ")[2].partition(";")[0] for text in texts[:3]] == [
        "down [ConnectionFailed]",
        "RuntimeError: foreign",
        "odd [DatabaseError]",
    ]
    assert len(texts) == 4
    assert "works again" in texts[3]
    await polling.stop()


async def test_an_answer_that_is_none_does_not_end_reading(polling: Harness, caplog: pytest.LogCaptureFixture) -> None:
    await polling.start()
    polling.backend.answers = [None]  # type: ignore[list-item]
    await eventually(lambda: "TypeError" in caplog.text)
    await polling.publish()
    await eventually(lambda: polling.received == [1])
    await polling.stop()


async def test_an_answer_that_got_lost_is_asked_for_again(polling: Harness) -> None:
    await polling.start()

    # The server delivered, the connection broke before the answer came.
    original = polling.backend.read_after
    broken = asyncio.Event()

    async def lose_answer(*args: object, **kwargs: object) -> list[LogRecord]:
        records = await original(*args, **kwargs)  # type: ignore[arg-type]
        if records and not broken.is_set():
            broken.set()
            raise UnavailableError("broke")
        return records

    polling.backend.read_after = lose_answer  # type: ignore[assignment]
    await polling.publish(3)
    await eventually(lambda: polling.received == [1, 2, 3])
    assert broken.is_set()
    await polling.stop()


async def test_one_refusal_may_be_a_rotated_login(polling: Harness) -> None:
    await polling.start()
    polling.backend.failures = [AccessDeniedError("bus: access denied", sqlstate="42501")]
    await polling.publish(1)
    await eventually(lambda: polling.received == [1])
    assert polling.counters.rejoined == 0
    assert len(polling.backend.wakers) == 1
    await polling.stop()


async def test_joining_anew_is_tried_until_it_works(polling: Harness) -> None:
    await polling.start()
    await polling.publish(1)
    await eventually(lambda: polling.received == [1])
    original = polling.backend.join_channel
    attempts: list[float] = []

    async def join_late(*args: object) -> object:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise AccessDeniedError("bus: access denied", sqlstate="42501")
        return await original(*args)  # type: ignore[arg-type]

    polling.backend.join_channel = join_late  # type: ignore[method-assign,assignment]
    polling.broker.drop_peers("orders")
    await eventually(lambda: polling.counters.rejoined == 1)
    assert attempts[2] - attempts[0] >= 0.1, "not in a hurry"
    # The completion of a message of the former membership means nothing to the new one.
    polling.handle(1)
    await polling.publish(1)
    await eventually(lambda: polling.received == [1, 2])
    assert polling.reader.in_flight == 1
    assert [waker.closed for waker in polling.backend.wakers] == [True, False]
    await polling.stop()


async def test_what_is_announced_while_it_joins_anew_is_delivered_once(harness: Harness) -> None:
    await harness.start()
    former = harness.waker
    publisher = await harness.backend.join_channel("orders", JoinOptions())
    original = harness.backend.join_channel

    async def join_and_publish(*args: object) -> object:
        membership = await original(*args)  # type: ignore[arg-type]
        await harness.backend.publish_many("orders", publisher.queue, [b"{}"])
        if not former.closed:
            former.offer(1, payloads(1))
        return membership

    harness.backend.join_channel = join_and_publish  # type: ignore[method-assign,assignment]
    del harness.broker.channel("orders").peers[harness.session.membership.queue]
    former.wake()
    await eventually(lambda: harness.counters.rejoined)
    await eventually(lambda: harness.received)
    await settle()
    assert harness.received == [1]
    assert harness.lost == []
    await harness.stop()


async def test_a_publisher_that_joined_anew_first_is_followed_at_once(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await harness.start()
    former = harness.waker
    await harness.session.renew(harness.session.membership)
    await eventually(lambda: harness.counters.rejoined == 1 and len(harness.reads) == 2)
    assert former.closed
    await harness.announce()
    assert harness.received == [1]
    assert "AccessDenied" not in caplog.text, "nobody was asked in the name of the former membership"
    await harness.stop()


async def test_a_membership_that_is_over_before_it_is_used(harness: Harness) -> None:
    original = harness.backend.waker
    refusals = 0

    def refuse_former(membership: object) -> object:
        nonlocal refusals
        if membership is former:
            refusals += 1
            raise AccessDeniedError("was not joined here, or left already")
        return original(membership)  # type: ignore[arg-type]

    harness.backend.waker = refuse_former  # type: ignore[method-assign,assignment]
    former = await harness.session.join(0)
    await harness.read()
    await harness.session.renew(former)
    await eventually(lambda: harness.counters.rejoined == 1)
    await eventually(lambda: harness.backend.wakers and harness.reads)
    assert refusals == 2
    await harness.announce()
    assert harness.received == [1]
    await harness.stop()


@pytest.mark.parametrize("failing", ["waker", "start"])
async def test_a_waker_that_fails_is_tried_again(harness: Harness, failing: str) -> None:
    class Failing(HandWaker):
        async def start(self, *args: object) -> None:
            raise UnavailableError("no way to be woken")

    attempts = 0

    def make() -> HandWaker:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            return HandWaker()
        if failing == "waker":
            raise UnavailableError("no way to be woken")
        return Failing()

    harness.backend.make_waker = make
    await harness.start()
    await eventually(lambda: harness.reads)
    await harness.announce()
    assert harness.received == [1]
    await harness.stop()


async def test_a_durable_peer_that_is_refused_ends() -> None:
    harness = Harness(peer="ledger", poll_interval=0.002, max_poll=0.01)
    harness.backend.make_waker = lambda: HandWaker("poll")
    await harness.start()
    await harness.backend.join_channel("orders", JoinOptions(peer="ledger"))
    with pytest.raises(PeerRefusedError):
        await asyncio.wait_for(harness.task, 10)
    await harness.reader.close(acknowledge=False)


# --- stopping ---


async def test_draining_keeps_the_heartbeat_and_acknowledges_at_the_end(harness: Harness) -> None:
    harness.backend.peer_timeout = 0.15
    await harness.start()
    await harness.announce(1000)
    harness.reader.stop()
    await harness.task
    harness.reads.clear()
    draining = asyncio.create_task(harness.reader.drain(60))
    # However busily messages are being handled meanwhile.
    for msg_id in range(1, 1001):
        if len(harness.reads) < 3:
            await asyncio.sleep(0.001)
        harness.handle(msg_id)
    assert len(harness.reads) >= 3
    assert await draining
    assert {read.limit for read in harness.reads} == {0}
    await harness.reader.close(acknowledge=True)
    assert harness.broker.backlog("orders") == 0


async def test_draining_gives_up_when_the_time_is_over(harness: Harness) -> None:
    await harness.start()
    await harness.announce()
    harness.reader.stop()
    await harness.task
    assert not await harness.reader.drain(0.01)
    assert not await harness.reader.drain(-1)
    await harness.reader.close(acknowledge=True)


# --- joining ---


async def test_joining_waits_for_the_server_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    backend = InMemoryBackend(InMemoryBroker())
    original, attempts = backend.join_channel, 0

    async def join_late(*args: object) -> object:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise UnavailableError("not yet")
        return await original(*args)  # type: ignore[arg-type]

    backend.join_channel = join_late  # type: ignore[method-assign,assignment]
    session = Session(backend, "orders", JoinOptions())
    await session.join(5)
    assert attempts == 3
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    attempts = -100
    with pytest.raises(UnavailableError, match="not yet"):
        await session.join(0.2)
