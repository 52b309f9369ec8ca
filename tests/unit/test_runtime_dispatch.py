"""Delivery to subscribers: order, priority, isolation. Everything on the bus that stays in the process."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from recorder import Alarm, Note, Panic, Recorder, alarm, eventually, note

from bus_runtime import (
    AsyncQueueBus,
    BusAddWorkerMessage,
    BusMessage,
    BusSubscriber,
    WorkerBus,
)


@pytest.fixture
async def bus() -> AsyncIterator[AsyncQueueBus]:
    bus = AsyncQueueBus()
    await bus.start()
    yield bus
    await bus.stop()


async def test_every_subscriber_gets_every_message_in_order(bus: AsyncQueueBus) -> None:
    first, second = Recorder("first"), Recorder("second")
    await bus.subscribe(first)
    await bus.subscribe(second)
    for number in range(200):
        await bus.send(note(number))
    await eventually(lambda: len(first.messages) == len(second.messages) == 200)
    assert first.numbers == second.numbers == list(range(200))


async def test_a_system_message_overtakes_waiting_data_and_not_its_own_kind(bus: AsyncQueueBus) -> None:
    recorder = Recorder()
    await bus.subscribe(recorder)
    for number in range(3):
        await bus.send(note(number))
    await bus.send(alarm(100))
    await bus.send(alarm(101))
    await eventually(lambda: len(recorder.messages) == 5)
    assert recorder.numbers == [100, 101, 0, 1, 2]


async def test_a_system_message_does_not_wait_for_a_data_handler(bus: AsyncQueueBus) -> None:
    release = asyncio.Event()

    async def handle(message: BusMessage) -> None:
        if isinstance(message, Note):
            await release.wait()

    recorder = Recorder(handler=handle)
    await bus.subscribe(recorder)
    await bus.send(note(1))
    await eventually(lambda: len(recorder.begun) == 1)
    await bus.send(alarm(2))
    await eventually(lambda: recorder.numbers == [2])
    release.set()
    await eventually(lambda: recorder.numbers == [2, 1])


async def test_data_behind_a_system_message_waits_until_that_is_handled(bus: AsyncQueueBus) -> None:
    release = asyncio.Event()

    async def handle(message: BusMessage) -> None:
        if isinstance(message, Alarm):
            await release.wait()

    recorder = Recorder(handler=handle)
    await bus.subscribe(recorder)
    await bus.send(alarm(1))
    await bus.send(note(2))
    await eventually(lambda: len(recorder.begun) == 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(recorder.begun) == 1
    release.set()
    await eventually(lambda: recorder.numbers == [1, 2])


async def test_a_system_message_may_wait_for_data_that_came_before_it(bus: AsyncQueueBus) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def handle(message: BusMessage) -> None:
        if isinstance(message, Alarm):
            first.set()
            await second.wait()
        elif message.number == 1:  # type: ignore[attr-defined]
            await first.wait()
        elif message.number == 2:  # type: ignore[attr-defined]
            second.set()

    recorder = Recorder(handler=handle)
    await bus.subscribe(recorder)
    await bus.send(note(1))
    await eventually(lambda: len(recorder.begun) == 1)
    await bus.send(note(2))
    await asyncio.sleep(0)
    await bus.send(alarm(3))
    await bus.send(note(4))
    await eventually(lambda: len(recorder.messages) == 4)
    assert recorder.numbers[-1] == 4


async def test_handlers_that_never_wait_do_not_keep_a_system_message_waiting(bus: AsyncQueueBus) -> None:
    recorder = Recorder()
    await bus.subscribe(recorder)
    for number in range(1000):
        await bus.send(note(number))
    while not recorder.messages:
        await asyncio.sleep(0)
    await bus.send(alarm(-1))
    await eventually(lambda: len(recorder.messages) == 1001)
    assert recorder.numbers.index(-1) < 100


async def test_an_exception_is_logged_and_counted_and_delivery_goes_on(
    bus: AsyncQueueBus, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(message: BusMessage) -> None:
        if getattr(message, "number", 0) % 2:
            raise RuntimeError("odd")

    fragile, sturdy = Recorder("fragile", handle), Recorder("sturdy")
    await bus.subscribe(fragile)
    await bus.subscribe(sturdy)
    for number in range(4):
        await bus.send(note(number))
        await bus.send(alarm(number))
    await eventually(lambda: len(sturdy.messages) == 8 and len(fragile.begun) == 8)
    assert sorted(fragile.numbers) == [0, 0, 2, 2]
    assert bus._handler_errors == 4
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 4
    assert "'fragile' failed" in failures[0].getMessage()
    assert failures[0].exc_info is not None


async def test_a_handler_that_awaits_something_cancelled_does_not_end_delivery(bus: AsyncQueueBus) -> None:
    async def handle(message: BusMessage) -> None:
        if getattr(message, "number", None) == 0:
            raise asyncio.CancelledError

    recorder = Recorder(handler=handle)
    await bus.subscribe(recorder)
    await bus.send(note(0))
    await bus.send(note(1))
    await eventually(lambda: recorder.numbers == [1])
    assert bus._handler_errors == 1


async def test_a_panic_of_an_extension_does_not_end_delivery(bus: AsyncQueueBus) -> None:
    async def handle(message: BusMessage) -> None:
        if getattr(message, "number", None) == 0:
            raise Panic

    recorder = Recorder(handler=handle)
    await bus.subscribe(recorder)
    for number in range(2):
        await bus.send(note(number))
        await bus.send(alarm(number))
    await eventually(lambda: recorder.numbers == [1, 1])
    assert bus._handler_errors == 2


async def test_a_slow_subscriber_delays_nobody_else(bus: AsyncQueueBus) -> None:
    never = asyncio.Event()

    async def stall(_: BusMessage) -> None:
        await never.wait()

    slow, quick = Recorder("slow", stall), Recorder("quick")
    await bus.subscribe(slow)
    await bus.subscribe(quick)
    for number in range(50):
        await bus.send(note(number))
    await eventually(lambda: len(quick.messages) == 50)
    assert len(slow.begun) == 1


class Picky(Recorder):
    wanted = True

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.wanted and message.target in (None, self.name)


async def test_only_accepted_messages_are_handed_over(bus: AsyncQueueBus) -> None:
    picky, other = Picky("picky"), Recorder("other")
    await bus.subscribe(picky)
    await bus.subscribe(other)
    await bus.send(Note(1, source="test", target="somebody"))
    await bus.send(Note(2, source="test", target="picky"))
    await eventually(lambda: len(other.messages) == 2 and picky.messages)
    assert picky.numbers == [2]


async def test_acceptance_is_asked_again_when_a_message_had_to_wait(bus: AsyncQueueBus) -> None:
    picky = Picky("picky")

    async def close_the_door(_: BusMessage) -> None:
        picky.wanted = False

    picky._handler = close_the_door
    await bus.subscribe(picky)
    await bus.send(note(1))
    await bus.send(note(2))
    await eventually(lambda: not picky.wanted)
    picky._handler = None
    picky.wanted = True
    await bus.send(note(3))
    await eventually(lambda: 3 in picky.numbers)
    assert picky.numbers == [1, 3]


@pytest.mark.parametrize("error", [RuntimeError, Panic, asyncio.CancelledError])
async def test_a_failing_filter_is_an_error_of_that_message(bus: AsyncQueueBus, error: type[BaseException]) -> None:
    class Broken(Recorder):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            if message.source == "bad":
                raise error("no idea")
            return True

    broken = Broken()
    await bus.subscribe(broken)
    await bus.send(note(1, source="bad"))
    await bus.send(alarm(2, source="bad"))
    await bus.send(note(3))
    await eventually(lambda: broken.numbers == [3])
    assert bus._handler_errors == 2


async def test_subscribing_is_idempotent_by_name(bus: AsyncQueueBus) -> None:
    first, second = Recorder("same"), Recorder("same")
    await bus.subscribe(first)
    await bus.subscribe(first)
    await bus.subscribe(second)
    await bus.send(note(1))
    await eventually(lambda: first.numbers == [1])
    assert second.numbers == []


async def test_after_unsubscribing_nothing_arrives_and_a_handler_under_way_ends(bus: AsyncQueueBus) -> None:
    never = asyncio.Event()
    ended = asyncio.Event()

    async def stall(_: BusMessage) -> None:
        try:
            await never.wait()
        finally:
            ended.set()

    stuck, other = Recorder("stuck", stall), Recorder("other")
    await bus.subscribe(stuck)
    await bus.subscribe(other)
    await bus.send(note(1))
    await eventually(lambda: stuck.begun)
    await bus.unsubscribe(stuck)
    assert ended.is_set()
    await bus.send(note(2))
    await eventually(lambda: other.numbers == [1, 2])
    assert len(stuck.begun) == 1
    await bus.unsubscribe(stuck)


async def test_a_handler_may_unsubscribe_itself_and_finish(bus: AsyncQueueBus) -> None:
    async def leave(_: BusMessage) -> None:
        await bus.unsubscribe(recorder)
        await asyncio.sleep(0)

    recorder = Recorder(handler=leave)
    await bus.subscribe(recorder)
    await bus.send(note(1))
    await bus.send(note(2))
    await eventually(lambda: recorder.numbers == [1])
    assert len(recorder.begun) == 1


async def test_a_handler_may_stop_the_bus_and_finish(bus: AsyncQueueBus) -> None:
    async def stop(_: BusMessage) -> None:
        await bus.stop()
        await asyncio.sleep(0)

    recorder = Recorder(handler=stop)
    await bus.subscribe(recorder)
    await bus.send(note(1))
    await bus.send(note(2))
    await eventually(lambda: recorder.numbers == [1])
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(recorder.begun) == 1
    recorder._handler = None
    await bus.start()
    await eventually(lambda: recorder.numbers == [1, 2])


async def test_what_is_sent_before_start_is_delivered_by_start() -> None:
    bus = AsyncQueueBus()
    recorder = Recorder()
    await bus.subscribe(recorder)
    await bus.send(note(1))
    await bus.send(alarm(2))
    assert recorder.messages == []
    await bus.start()
    await bus.start()
    await eventually(lambda: recorder.numbers == [2, 1])
    await bus.stop()
    await bus.stop()


async def test_send_keeps_local_messages_away_from_the_transport() -> None:
    class Transport(WorkerBus):
        def __init__(self) -> None:
            super().__init__(name="transport")
            self.published: list[BusMessage] = []

        async def publish(self, message: BusMessage) -> None:
            self.published.append(message)

    bus, recorder = Transport(), Recorder()
    assert bus.name == str(bus) == "transport"
    await bus.subscribe(recorder)
    await bus.start()
    worker = object()
    await bus.send(BusAddWorkerMessage(worker, source="test"))
    await bus.send(note(1))
    await eventually(lambda: recorder.messages)
    assert isinstance(recorder.messages[0], BusAddWorkerMessage)
    assert recorder.messages[0].worker is worker
    assert len(bus.published) == 1
    await bus.stop()


def test_buses_have_distinct_names_by_default() -> None:
    first, second = AsyncQueueBus(), AsyncQueueBus()
    assert first.name.startswith("AsyncQueueBus#")
    assert first.name != second.name


async def test_a_subscriber_without_a_name_is_told_so(bus: AsyncQueueBus) -> None:
    with pytest.raises(NotImplementedError, match="BusSubscriber must provide a name"):
        await bus.subscribe(BusSubscriber())
