"""When a reader looks by itself, and what counts as a message that nothing had announced."""

import time
from collections.abc import Callable

import pytest
from recorder import eventually

from bus_runtime import lookout as module
from bus_runtime.lookout import Lookout


class Looking:
    """A lookout, and how often it complained."""

    def __init__(self, mode: str = "doorbell") -> None:
        self.mode = mode
        self.complaints = 0
        self.lookout = Lookout(lambda: self.mode, 0.1, self.complain)

    def complain(self) -> None:
        self.complaints += 1

    def read(self, before: int, position: int, *, everything: bool = True) -> None:
        self.lookout.reading()
        self.lookout.found(before, position, everything=everything)

    def delays(self, count: int, longest: float = 5.0) -> list[float]:
        delays = []
        for _ in range(count):
            delays.append(self.lookout.delay(longest, found=False))
            self.lookout.lapsed()
        return delays


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Looking:
    monkeypatch.setattr(module, "GRACE", 0.01)
    monkeypatch.setattr(module, "MAX_GRACE", 0.05)
    return Looking()


async def never_complains(looking: Looking) -> None:
    """Once a lookout that begins to wait now has complained, this one should have."""
    later = Looking()
    later.read(0, 0)
    later.read(0, 1)
    await eventually(lambda: later.complaints)
    assert looking.complaints == 0


def test_looks_grow_rarer_up_to_the_longest_time() -> None:
    assert Looking().delays(7) == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert Looking("listen").delays(3) == [0.25, 0.5, 1.0]
    assert Looking("poll").delays(7) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert Looking().delays(2, longest=0.05) == [0.05, 0.05]


def test_another_way_of_being_woken_has_to_prove_itself() -> None:
    looking = Looking()
    looking.delays(5)
    looking.mode = "poll"
    assert looking.delays(2) == [0.1, 0.2]
    looking.mode = "listen"
    assert looking.delays(2) == [0.25, 0.5]
    looking.lookout.begin()
    assert looking.delays(1) == [0.25]


def test_only_a_reader_that_nothing_wakes_looks_sooner_after_finding_something() -> None:
    for mode, expected in (("poll", 0.1), ("doorbell", 1.0)):
        looking = Looking(mode)
        looking.delays(2)
        assert looking.lookout.delay(5.0, found=True) == expected


async def test_what_nothing_announced_is_reported_and_looks_become_frequent(looking: Looking) -> None:
    looking.delays(5)
    looking.read(4, 4)
    looking.read(4, 7)
    await eventually(lambda: looking.complaints == 1)
    assert looking.delays(1) == [0.25]


@pytest.mark.parametrize(
    "announce",
    [
        lambda lookout: lookout.woken(),
        lambda lookout: lookout.woken(5),
        lambda lookout: lookout.woken(20),
        lambda lookout: lookout.offered(5, 5),
        lambda lookout: lookout.offered(3, 5),
        lambda lookout: lookout.offered(7, 9),
        lambda lookout: lookout.offered(1, 20),
    ],
    ids=["woken", "woken for the first", "woken for all", "the first", "up to the first", "the last", "all and more"],
)
async def test_an_announcement_in_time_is_enough(looking: Looking, announce: Callable[[Lookout], None]) -> None:
    looking.read(4, 4)
    looking.read(4, 7)
    announce(looking.lookout)
    await never_complains(looking)


@pytest.mark.parametrize(
    "announce",
    [
        lambda lookout: lookout.woken(4),
        lambda lookout: lookout.offered(8, 12),
        lambda lookout: lookout.offered(1, 4),
    ],
    ids=["woken", "later", "earlier"],
)
async def test_announcements_of_other_messages_are_not(looking: Looking, announce: Callable[[Lookout], None]) -> None:
    looking.read(4, 4)
    looking.read(4, 7)
    announce(looking.lookout)
    await eventually(lambda: looking.complaints == 1)


@pytest.mark.parametrize("announce", [lambda lookout: lookout.offered(5, 5), lambda lookout: lookout.woken(5)])
async def test_where_announcements_are_late_they_are_waited_for(
    looking: Looking, announce: Callable[[Lookout], None]
) -> None:
    waited = []
    for read in range(5):
        began = time.monotonic()
        looking.read(4, 4)
        looking.read(4, 5)
        await eventually(lambda read=read: looking.complaints > read)
        waited.append(time.monotonic() - began)
        assert looking.lookout._grace == min(0.01 * 2**read, 0.05)
        # It does not matter what comes for other messages, and when.
        looking.lookout.woken(9)
        looking.lookout.offered(6, 9)
        assert looking.lookout._grace == min(0.01 * 2**read, 0.05)
        announce(looking.lookout)
        announce(looking.lookout)
        looking.lookout._announced_to = 0
    assert waited[4] >= 0.05 * 0.99
    looking.lookout.begin()
    assert looking.lookout._grace == 0.01


async def test_announcements_before_and_during_the_read_count(looking: Looking) -> None:
    looking.read(4, 4)
    looking.lookout.woken()
    looking.read(4, 5)
    looking.read(5, 5)
    looking.lookout.reading()
    looking.lookout.woken()
    looking.lookout.found(5, 6, everything=True)
    looking.read(6, 6)
    looking.lookout.offered(8, 8)
    looking.read(6, 8)
    await never_complains(looking)


async def test_announcements_of_what_was_known_already_do_not_count(looking: Looking) -> None:
    looking.read(4, 4)
    looking.lookout.woken(4)
    looking.lookout.offered(3, 4)
    looking.read(4, 5)
    await eventually(lambda: looking.complaints == 1)


async def test_an_announcement_that_led_to_an_earlier_read_does_not_count(looking: Looking) -> None:
    looking.read(4, 4)
    looking.lookout.woken()
    looking.read(4, 5)
    looking.read(5, 6)
    await eventually(lambda: looking.complaints == 1)


async def test_an_announcement_during_the_read_before_counts(looking: Looking) -> None:
    looking.lookout.reading()
    looking.lookout.woken()
    looking.lookout.found(4, 4, everything=True)
    looking.read(4, 5)
    await never_complains(looking)


async def test_backlogs_and_outages_raise_no_suspicion(looking: Looking) -> None:
    looking.read(0, 10, everything=False)
    looking.read(10, 20, everything=False)
    looking.read(20, 25)
    # This one fails.
    looking.lookout.reading()
    looking.read(25, 30)
    await never_complains(looking)


async def test_whoever_polls_expects_nothing(looking: Looking) -> None:
    looking.mode = "poll"
    looking.read(0, 0)
    looking.read(0, 1)
    await never_complains(looking)


@pytest.mark.parametrize("end", [Lookout.close, Lookout.begin])
async def test_a_suspicion_ends_with_what_it_was_about(looking: Looking, end: Callable[[Lookout], None]) -> None:
    looking.read(0, 0)
    looking.read(0, 1)
    end(looking.lookout)
    await never_complains(looking)


async def test_one_suspicion_at_a_time(looking: Looking) -> None:
    looking.read(0, 0)
    looking.read(0, 1)
    looking.read(1, 2)
    await eventually(lambda: looking.complaints)
    await eventually(lambda: looking.lookout._timer is None)
    assert looking.complaints == 1
