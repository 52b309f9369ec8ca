"""Subscribers of different speeds on one log: nobody waits for another, nothing is lost, nobody holds too much."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from recorder import Alarm, Note, Recorder, eventually, note

from bus_runtime import BusMessage, JSONMessageSerializer, LogRecord, UnavailableError, notice
from bus_runtime.dispatch import Subscription
from bus_runtime.flow import Limits
from bus_runtime.lagging import LogFlow

SERIALIZER = JSONMessageSerializer()


class Slow(Recorder):
    """Handles a message whenever it is let."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self._wait)
        self._turns = asyncio.Semaphore(0)

    async def _wait(self, _: BusMessage) -> None:
        await self._turns.acquire()

    async def handle(self, count: int) -> None:
        expected = len(self.messages) + count
        for _ in range(count):
            self._turns.release()
        await eventually(lambda: len(self.messages) == expected)

    def hurry(self) -> None:
        self._handler = None
        self._turns.release()


class World:
    """A log, and a reader as `LogFlow` wants it."""

    def __init__(self, limit: int = 4, **options: object) -> None:
        self.log: dict[int, bytes | None] = {}
        self.trimmed = 0
        self.lost: list[int] = []
        self.lags: list[tuple[str, bool]] = []
        self.reads: list[tuple[int, int]] = []
        self.failures: list[Exception] = []
        self.before_answer: list[asyncio.Event] = []
        self.flow = LogFlow(
            Limits(messages=limit),
            decode=self.decode,
            acknowledge_on_dispatch=bool(options.get("acknowledge_on_dispatch", False)),
            on_lost=self.lost.append,
            on_lagging=lambda name, lags: self.lags.append((name, lags)),
        )
        self.position = 0
        self.handled: set[int] = set()
        self.subscriptions: list[Subscription] = []
        self.follow(0)

    def follow(self, position: int) -> None:
        self.position = position
        self.flow.follow(position, self.read, on_room=self.go_on, on_handled=lambda: None)

    def decode(self, payload: bytes) -> BusMessage | None:
        return None if payload == b"?" else SERIALIZER.deserialize(payload)

    async def read(self, after: int, limit: int) -> Sequence[LogRecord]:
        self.reads.append((after, limit))
        if self.failures:
            raise self.failures.pop(0)
        records = [LogRecord(self.trimmed, None, lost=self.trimmed - after)] if after < self.trimmed else []
        records += [LogRecord(i, payload) for i, payload in self.log.items() if i > max(after, self.trimmed)][:limit]
        if self.before_answer:
            await self.before_answer.pop(0).wait()
        else:
            await asyncio.sleep(0)
        return records

    def publish(self, *messages: BusMessage | bytes | None) -> None:
        for message in messages:
            payload = SERIALIZER.serialize(message) if isinstance(message, BusMessage) else message
            self.log[len(self.log) + 1] = payload
        self.go_on()

    def go_on(self) -> None:
        """What the reader does: read on, as far as there is room."""
        while self.position < len(self.log) and self.flow.is_open:
            self.position += 1
            payload = self.log[self.position]
            message = None if payload is None else self.decode(payload)
            if payload is not None and message is not None:
                self.flow.deliver(self.position, message, len(payload), self._handled(self.position))

    def _handled(self, msg_id: int):  # type: ignore[no-untyped-def]
        return lambda: self.handled.add(msg_id)

    async def subscribe(self, subscriber: Recorder) -> Subscription:
        subscription = Subscription(subscriber, lambda: None)
        self.flow.add(subscription)
        subscription.start()
        self.subscriptions.append(subscription)
        await asyncio.sleep(0)
        return subscription


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.flow.stop()
    for subscription in world.subscriptions:
        await subscription.stop()


def notes(first: int, last: int) -> list[Note]:
    return [note(number) for number in range(first, last + 1)]


async def test_alone_it_pauses_the_reader_and_nothing_is_read_twice(world: World) -> None:
    slow = Slow("slow")
    await world.subscribe(slow)
    world.publish(*notes(1, 10))
    assert (world.position, world.flow.is_open, world.flow.room) == (4, False, 0)
    assert world.flow.lagging == {"slow": 0}
    assert world.flow.acknowledgeable == 4, "what it took is the main tracker's matter"
    await slow.handle(1)
    assert world.position == 4
    await slow.handle(1)
    assert world.position == 6, "half of it is handled, so there is room for two"
    slow.hurry()
    await eventually(lambda: slow.numbers == list(range(1, 11)))
    assert world.reads == []
    assert world.handled == set(range(1, 11))


async def test_a_slow_one_reads_by_itself_what_the_others_had_before(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 21):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    assert world.flow.lagging == {"slow": 16}
    assert world.flow.acknowledgeable == 4
    assert world.flow.messages == 4
    await slow.handle(2)
    await eventually(lambda: world.flow.messages == 4)
    assert world.flow.lagging == {"slow": 14}
    assert world.reads == [(4, 2)]
    assert (world.flow.acknowledgeable, world.flow.in_flight) == (4, 2)
    await slow.handle(3)
    assert world.flow.acknowledgeable == 5
    slow.hurry()
    await eventually(lambda: slow.numbers == list(range(1, 21)))
    assert world.flow.lagging == {}
    await eventually(lambda: world.flow.acknowledgeable > 20)
    assert world.flow.in_flight == 0
    world.publish(*notes(21, 23))
    await eventually(lambda: slow.numbers == quick.numbers == list(range(1, 24)))
    assert world.handled == set(range(1, 24))


async def test_all_full_at_different_positions_come_back_one_by_one(world: World) -> None:
    one, two = Slow("one"), Slow("two")
    await world.subscribe(one)
    world.publish(*notes(1, 2))
    await world.subscribe(two)
    world.publish(*notes(3, 20))
    assert (world.position, world.flow.lagging, world.flow.is_open) == (6, {"one": 2, "two": 0}, False)
    one.hurry()
    await eventually(lambda: one.numbers == list(range(1, 21)))
    assert [after for after, _ in world.reads] == [4], "5 and 6 by itself, the rest as the only one that follows"
    assert world.flow.lagging == {"two": 14}
    two.hurry()
    await eventually(lambda: two.numbers == list(range(3, 21)) and one.numbers == list(range(1, 21)))
    assert world.flow.lagging == {}


async def test_system_messages_count(world: World) -> None:
    slow = Slow("slow")
    await world.subscribe(slow)
    world.publish(*[Alarm(number, source="test") for number in range(10)])
    assert world.position == 4
    slow.hurry()
    await eventually(lambda: slow.numbers == list(range(10)))


async def test_what_cannot_be_read_again_is_passed_over(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    world.publish(*notes(1, 4))
    await eventually(lambda: len(quick.messages) == 4)
    world.publish(b"?", None, note(7), b"?")
    slow.hurry()
    await eventually(lambda: slow.numbers == [1, 2, 3, 4, 7])
    await eventually(lambda: world.flow.lagging == {})
    assert world.flow.acknowledgeable > 8
    assert world.lost == []


async def test_what_was_trimmed_meanwhile_is_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 11):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    world.trimmed = 7
    slow.hurry()
    await eventually(lambda: slow.numbers == [1, 2, 3, 4, 8, 9, 10])
    assert world.lost == [3]
    assert "up to 3 messages were trimmed from the log before subscriber 'slow' got to them" in caplog.text


async def test_what_the_reader_has_not_seen_is_left_to_it(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 7):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    # More is in the log than the reader knows of.
    world.log |= {i: SERIALIZER.serialize(note(i)) for i in range(7, 9)}
    slow.hurry()
    await eventually(lambda: world.flow.lagging == {})
    await eventually(lambda: slow.numbers == list(range(1, 7)))
    world.go_on()
    await eventually(lambda: slow.numbers == quick.numbers == list(range(1, 9)))


async def test_what_comes_while_it_reads_is_not_missed(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 7):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    answer = asyncio.Event()
    world.before_answer.append(answer)
    await slow.handle(2)
    await eventually(lambda: world.reads)
    world.publish(note(7))
    answer.set()
    slow.hurry()
    await eventually(lambda: slow.numbers == quick.numbers == list(range(1, 8)))


async def test_a_log_that_is_empty_behind_it_does_not_keep_it_there(world: World) -> None:
    """Retention took everything, and whatever comes next is the reader's."""
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 7):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    log, world.log = world.log, {}
    slow.hurry()
    await eventually(lambda: world.flow.lagging == {})
    world.log = log
    world.publish(note(7))
    await eventually(lambda: slow.numbers == [1, 2, 3, 4, 7])


async def test_a_failed_read_is_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 7):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    world.failures = [UnavailableError("down"), RuntimeError("odd")]
    slow.hurry()
    await eventually(lambda: slow.numbers == list(range(1, 7)))
    assert "reading for subscriber 'slow': down [ConnectionFailed]; trying again" in caplog.text


async def test_one_that_unsubscribes_while_behind_holds_nobody_up(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    subscription = await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 11):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    answer = asyncio.Event()
    world.before_answer.append(answer)
    await slow.handle(2)
    await eventually(lambda: world.reads)
    world.flow.remove(subscription)
    await subscription.close()
    answer.set()
    await asyncio.sleep(0)
    assert world.flow.acknowledgeable > 10
    assert (world.flow.in_flight, world.flow.messages, world.flow.lagging) == (0, 0, {})
    assert world.handled == set(range(1, 11))
    assert len(slow.messages) == 2


async def test_one_that_unsubscribes_lets_a_paused_reader_go_on(world: World) -> None:
    stuck = await world.subscribe(Slow("stuck"))
    world.publish(*notes(1, 10))
    assert not world.flow.is_open
    world.flow.remove(stuck)
    assert world.position == 10
    await stuck.close()


async def test_a_subscriber_that_comes_while_the_reader_is_paused_gets_what_follows(world: World) -> None:
    await world.subscribe(Slow("stuck"))
    world.publish(*notes(1, 10))
    late = Recorder("late")
    await world.subscribe(late)
    await eventually(lambda: late.numbers == [5, 6, 7, 8, 9, 10])


async def test_acknowledged_on_dispatch_when_it_was_queued() -> None:
    world = World(acknowledge_on_dispatch=True)
    slow, quick = Slow("slow"), Recorder("quick")
    subscription = await world.subscribe(slow)
    other = await world.subscribe(quick)
    for number in range(1, 9):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    assert world.flow.acknowledgeable == 4
    await slow.handle(2)
    await eventually(lambda: world.flow.acknowledgeable == 6)
    assert world.flow.in_flight == 0
    await world.flow.stop()
    await subscription.stop()
    await other.stop()


async def test_who_is_behind_reads_on_when_the_reader_joined_anew(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 7):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    world.log |= {i: SERIALIZER.serialize(note(i)) for i in range(7, 11)}
    world.position = 10
    world.flow.move(10)
    slow.hurry()
    await eventually(lambda: slow.numbers == list(range(1, 11)))
    world.publish(note(11))
    await eventually(lambda: slow.numbers[-1:] == quick.numbers[-1:] == [11])
    assert quick.numbers == [1, 2, 3, 4, 5, 6, 11]


async def test_a_new_reader_begins_with_everybody_where_it_is(world: World) -> None:
    slow, quick = Slow("slow"), Recorder("quick")
    await world.subscribe(slow)
    await world.subscribe(quick)
    for number in range(1, 9):
        world.publish(note(number))
        await eventually(lambda number=number: quick.numbers[-1:] == [number])  # type: ignore[misc]
    await world.flow.stop()
    for subscription in world.subscriptions:
        await subscription.stop()
        subscription.clear()
    slow.hurry()
    # What stays in the process may be put to it while there is no reader.
    for number in range(4):
        world.subscriptions[0].put(delivery(100 + number))
    world.log |= {i: SERIALIZER.serialize(note(i)) for i in range(9, 20)}
    world.follow(19)
    assert (world.flow.lagging, world.flow.acknowledgeable, world.flow.in_flight) == ({"slow": 0}, 19, 0)
    for subscription in world.subscriptions:
        subscription.start()
    world.publish(note(20))
    await eventually(lambda: slow.numbers == [100, 101, 102, 103, 20])
    assert quick.numbers[-1] == 20


def delivery(number: int):  # type: ignore[no-untyped-def]
    from bus_runtime.dispatch import Delivery

    return Delivery(note(number), 1, None)


async def test_lagging_is_said_when_it_lasts_and_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(notice, "LAGS_AFTER", 0.05)
    monkeypatch.setattr(notice, "KEEPS_UP_AFTER", 0.05)
    slow = Slow("slow")
    await world.subscribe(slow)
    world.publish(*notes(1, 12))
    # Full again and again: it lags all the time.
    for _ in range(4):
        await slow.handle(2)
        await asyncio.sleep(0.03)
    await eventually(lambda: world.lags == [("slow", True)])
    slow.hurry()
    await eventually(lambda: world.lags == [("slow", True), ("slow", False)])
    assert [r.getMessage() for r in caplog.records] == [
        "subscriber 'slow' does not keep up: its messages wait in the log",
        "subscriber 'slow' keeps up again",
    ]


async def test_to_be_full_for_a_moment_is_not_worth_a_word(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "LAGS_AFTER", 3600.0)
    monkeypatch.setattr(notice, "KEEPS_UP_AFTER", 0.01)
    slow = Slow("slow")
    kept = world.flow._notices[await world.subscribe(slow)]
    world.publish(*notes(1, 5))
    assert kept._beginning is not None
    slow.hurry()
    await eventually(lambda: len(slow.messages) == 5)
    await eventually(lambda: kept._beginning is kept._ending is None)
    assert world.lags == []


@pytest.mark.parametrize("seed", range(8))
async def test_any_mixture_of_speeds(seed: int) -> None:
    """Everybody gets all of it once and in order, holds no more than allowed, and nothing unhandled is acknowledged."""
    rng = random.Random(seed)
    limit = rng.choice([1, 2, 5, 20])
    world = World(limit)

    async def dawdle(message: BusMessage) -> None:
        if rng.random() < 0.3:
            for _ in range(rng.randint(0, 30)):
                await asyncio.sleep(0)

    recorders = [Recorder(f"{n}", dawdle if n else None) for n in range(rng.randint(1, 4))]
    for recorder in recorders:
        await world.subscribe(recorder)
    total = 300
    while len(world.log) < total:
        if rng.random() < 0.1:
            world.failures.append(UnavailableError("down"))
            world.failures = world.failures[:1]
        world.publish(*notes(len(world.log) + 1, len(world.log) + rng.randint(1, 10)))
        for _ in range(rng.randint(0, 5)):
            await asyncio.sleep(0)
        for subscription in world.subscriptions:
            assert subscription.load.messages <= limit  # type: ignore[union-attr]
        everyone = set.intersection(*(set(recorder.numbers) for recorder in recorders))
        done = min(world.flow.acknowledgeable, min(set(range(1, 10**4)) - world.handled) - 1)
        assert everyone >= set(range(1, done + 1))
    expected = list(range(1, len(world.log) + 1))
    await eventually(lambda: all(recorder.numbers == expected for recorder in recorders))
    await eventually(lambda: world.flow.lagging == {})
    assert world.handled == set(expected)
    assert (world.flow.in_flight, world.flow.messages, world.flow.bytes) == (0, 0, 0)
    assert world.flow.acknowledgeable > len(world.log)
    await world.flow.stop()
    for subscription in world.subscriptions:
        await subscription.stop()
