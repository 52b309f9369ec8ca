"""What a subscriber may hold, and what that means for whoever reads."""

import sys

import pytest
from recorder import Recorder, note

from bus_runtime.dispatch import Subscription
from bus_runtime.flow import Budget, Flow, Limits


class Told:
    def __init__(self, limits: Limits) -> None:
        self.events: list[str] = []
        self.budget = Budget(limits, lambda: self.events.append("full"), lambda: self.events.append("room"))


@pytest.mark.parametrize(("most", "again_at"), [(1, 0), (2, 1), (3, 1), (10, 5)])
def test_a_full_budget_has_room_again_when_half_is_used_up(most: int, again_at: int) -> None:
    told = Told(Limits(messages=most))
    for taken in range(most):
        assert told.budget.room == most - taken
        told.budget.take(5)
    assert told.events == ["full"]
    assert (told.budget.is_full, told.budget.room) == (True, 0)
    while told.budget.messages > again_at:
        assert told.budget.is_full
        told.budget.release(5)
    assert told.events == ["full", "room"]
    assert (told.budget.is_full, told.budget.room) == (False, most - again_at)


def test_bytes_count_as_well_and_the_largest_message_fits() -> None:
    told = Told(Limits(messages=100, bytes=1000))
    told.budget.take(5000)
    assert told.events == ["full"]
    told.budget.release(5000)
    for _ in range(9):
        told.budget.take(100)
    assert told.budget.room == 1, "as many as fit if they are as large as those before"
    told.budget.take(0)
    assert told.events == ["full", "room"]
    told.budget.take(100)
    assert told.events == ["full", "room", "full"]
    for _ in range(5):
        told.budget.release(100)
    assert told.events == ["full", "room", "full", "room"]
    assert (told.budget.messages, told.budget.bytes) == (6, 500)


def test_room_is_never_nothing_before_it_is_full() -> None:
    told = Told(Limits(messages=100, bytes=1000))
    told.budget.take(900)
    assert told.budget.room == 1


def test_more_than_fits_is_taken_and_told_once() -> None:
    told = Told(Limits(messages=2))
    for _ in range(5):
        told.budget.take(1)
    told.budget.reset()
    assert told.events == ["full"]
    assert (told.budget.messages, told.budget.bytes, told.budget.is_full) == (0, 0, False)


@pytest.mark.parametrize(("messages", "size", "name"), [(0, 1, "max_in_flight "), (1, 0, "max_in_flight_bytes ")])
def test_limits_that_let_nothing_through(messages: int, size: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}must be at least 1, got 0"):
        Limits(messages, size)


def subscribe(flow: Flow, name: str) -> Subscription:
    subscription = Subscription(Recorder(name), lambda: None)
    flow.add(subscription)
    return subscription


def deliver(flow: Flow, msg_id: int, handled: list[int], size: int = 10) -> None:
    flow.deliver(msg_id, note(msg_id), size, lambda: handled.append(msg_id))


async def test_without_a_log_everybody_waits_for_the_slowest() -> None:
    flow, rooms, handled = Flow(Limits(messages=2)), [], []
    flow.begin(lambda: rooms.append(flow.room))
    assert (flow.is_open, flow.room) == (True, 2)
    one, two = subscribe(flow, "one"), subscribe(flow, "two")
    deliver(flow, 1, handled)
    deliver(flow, 2, handled)
    assert (flow.is_open, flow.room, flow.messages, flow.bytes, flow.lagging) == (False, 0, 4, 40, {})
    # A queue's batch is in hand already: everybody gets it.
    deliver(flow, 3, handled)
    assert flow.messages == 6
    flow.remove(one)
    await one.close()
    assert not flow.is_open
    flow.remove(two)
    await two.close()
    assert (rooms[-1], handled, flow.messages) == (2, [1, 2, 3], 0)


def test_without_subscribers_a_message_is_handled_at_once() -> None:
    flow, handled = Flow(Limits()), []
    deliver(flow, 1, handled)
    flow.deliver(2, note(2), 1, None)
    assert handled == [1]
    assert 0 < flow.room <= sys.maxsize


def test_what_is_set_aside_counts() -> None:
    flow, rooms = Flow(Limits(messages=1)), []
    flow.begin(lambda: rooms.append(flow.room))
    flow.aside.take(7)
    assert (flow.is_open, flow.room, flow.messages, flow.bytes) == (False, 0, 1, 7)
    flow.aside.release(7)
    assert rooms == [1]
