"""What surveys add up to, for how long they are believed, and who makes them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import virtual_time

from bus_operator.catalog import ChannelUsage
from bus_operator.database import AdminConnection, Endpoint
from bus_operator.database_access import UsableDatabase
from bus_operator.inventory import Key
from bus_operator.model import ClientEndpoint
from bus_operator.shards import Shard, Shards
from bus_operator.surveys import INTERVAL, OUTDATED, ROUND, Surveys

MAIN = ("shop", "main")
A_WHILE = 1200.0


def usage(number: int, uid: str | None = None, **values: int) -> ChannelUsage:
    counted = {"published": 0, "redelivered": 0, "lost": 0} | values
    return ChannelUsage(number, uid, 0, 0, 0, 0, None, messages=0, bytes=0, **counted)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_totals_count_from_the_first_look_on_and_never_fall() -> None:
    surveys = Surveys()
    surveys.record(MAIN, {0: [usage(1, "a", published=1000, lost=7), usage(2, "b", published=5)]})
    survey = surveys.of(MAIN)
    assert survey is not None
    assert (survey.totals.published, survey.totals.lost, survey.losing) == (0, 0, frozenset())
    # One goes on, one is deleted, one is new.
    surveys.record(MAIN, {0: [usage(1, "a", published=1010, lost=9), usage(3, "c", published=4)]})
    survey = surveys.of(MAIN)
    assert survey is not None
    assert (survey.totals.published, survey.totals.lost, survey.losing) == (14, 2, {"a"})
    # One that was retained is adopted anew under another UID: nothing happened to it.
    surveys.record(MAIN, {0: [usage(1, "z", published=1010, lost=9)]})
    survey = surveys.of(MAIN)
    assert survey is not None
    assert (survey.totals.published, survey.totals.lost, survey.losing) == (14, 2, frozenset())


def test_a_shard_that_is_seen_for_the_first_time_brings_nothing() -> None:
    surveys = Surveys()
    surveys.record(MAIN, {0: [usage(1, "a", published=10)]})
    surveys.record(MAIN, {0: [usage(1, "a", published=11)], 1: [usage(1, "b", published=5000)]})
    survey = surveys.of(MAIN)
    assert survey is not None
    assert survey.totals.published == 1
    assert set(survey.by_uid) == {"a", "b"}


def test_an_old_survey_says_nothing() -> None:
    clock = Clock()
    surveys = Surveys(clock=clock)
    surveys.record(MAIN, {0: [usage(1, "a")]})
    clock.now += OUTDATED * INTERVAL
    assert [key for key, _ in surveys.current()] == [MAIN]
    clock.now += 1
    assert surveys.of(MAIN) is None
    assert not list(surveys.current())
    surveys.keep_only([])
    clock.now -= 2
    assert surveys.of(MAIN) is None


def test_of_two_surveys_at_the_same_time_one_counts() -> None:
    clock = Clock()
    surveys = Surveys(clock=clock)
    surveys.record(MAIN, {0: [usage(1, "a", published=1000, lost=5)]})
    clock.now += 2
    surveys.record(MAIN, {0: [usage(1, "a", published=1010, lost=5)]}, began=clock.now - 1)
    # It began when that was not over, and read before it.
    surveys.record(MAIN, {0: [usage(1, "a", published=1005, lost=5)]}, began=clock.now - 1)
    surveys.record(MAIN, {0: [usage(1, "a", published=1011, lost=5)]}, began=clock.now)
    survey = surveys.of(MAIN)
    assert survey is not None
    assert (survey.totals.published, survey.totals.lost) == (11, 0)


class Watched:
    """A database that is there, empty, and when it was looked at from here."""

    def __init__(self, surveys: Surveys) -> None:
        self.surveys = surveys
        self.looks: list[float] = []

    async def fetch(self, query: str) -> list[tuple[object, ...]]:
        assert "pgmq_bus.channel" in query
        self.looks.append(now())
        return []

    @asynccontextmanager
    async def connect(self, _: AdminConnection) -> AsyncIterator["Watched"]:
        yield self

    def usable(self) -> Iterator[tuple[Key, UsableDatabase]]:
        shards = Shards((Shard(0, AdminConnection(Endpoint("db", 5432, "app", "prefer"), "admin", "")),))
        yield MAIN, UsableDatabase(asyncio.Semaphore(), shards, ClientEndpoint(), self.connect)

    async def for_a_while(self, *, recorded_each: float) -> None:
        """While somebody else records a survey each so many seconds."""
        begun, due = now(), now()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.surveys.run(self.usable))
            while now() < begun + A_WHILE:
                if now() >= due:
                    self.surveys.record(MAIN, {0: []}, began=now())
                    due += recorded_each
                await asyncio.sleep(min(1, due - now()))
                assert self.surveys.of(MAIN) is not None
            running.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("resync", [5.0, 60.0])
@pytest.mark.parametrize("late", [1.0, 1.05, 1.9])
def test_nothing_is_surveyed_twice_where_it_is_each_resync(resync: float, late: float) -> None:
    async def scenario() -> None:
        database = Watched(Surveys(resync=resync, clock=now))
        await database.for_a_while(recorded_each=late * resync)
        assert database.looks == []

    virtual_time.run(scenario())


@pytest.mark.parametrize("resync", [3600.0, 86400.0])
def test_where_the_resync_takes_long_it_is_surveyed_each_minute_from_here(resync: float) -> None:
    async def scenario() -> None:
        database = Watched(Surveys(resync=resync, clock=now))
        begun = now()
        await database.for_a_while(recorded_each=resync)
        times = [begun, *database.looks]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= INTERVAL + ROUND
        assert len(database.looks) == pytest.approx(A_WHILE / INTERVAL, rel=0.1)

    virtual_time.run(scenario())


def test_where_nobody_else_surveys_any_more_it_is_done_before_the_last_one_is_outdated() -> None:
    async def scenario() -> None:
        database = Watched(Surveys(clock=now))
        await database.for_a_while(recorded_each=2 * A_WHILE)
        assert database.looks

    virtual_time.run(scenario())
