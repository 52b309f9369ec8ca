"""What surveys add up to, and for how long they are believed."""

from bus_operator.catalog import ChannelUsage
from bus_operator.surveys import INTERVAL, OUTDATED, Surveys

MAIN = ("shop", "main")


def usage(number: int, uid: str | None = None, **values: int) -> ChannelUsage:
    counted = {"published": 0, "redelivered": 0, "lost": 0} | values
    return ChannelUsage(number, uid, 0, 0, 0, 0, None, messages=0, bytes=0, **counted)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_totals_count_from_the_first_look_on_and_never_fall() -> None:
    surveys = Surveys(lambda: ())
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
    surveys = Surveys(lambda: ())
    surveys.record(MAIN, {0: [usage(1, "a", published=10)]})
    surveys.record(MAIN, {0: [usage(1, "a", published=11)], 1: [usage(1, "b", published=5000)]})
    survey = surveys.of(MAIN)
    assert survey is not None
    assert survey.totals.published == 1
    assert set(survey.by_uid) == {"a", "b"}


def test_an_old_survey_says_nothing() -> None:
    clock = Clock()
    surveys = Surveys(lambda: (), clock=clock)
    surveys.record(MAIN, {0: [usage(1, "a")]})
    clock.now += OUTDATED * INTERVAL
    assert [key for key, _ in surveys.current()] == [MAIN]
    clock.now += 1
    assert surveys.of(MAIN) is None
    assert not list(surveys.current())
    surveys.keep_only([])
    clock.now -= 2
    assert surveys.of(MAIN) is None
