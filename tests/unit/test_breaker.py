"""The circuit breaker: one probe decides, the channels wait or stop."""

import pytest

from bus_operator.breaker import Breaker, VerdictPendingError
from bus_operator.errors import ConnectionFailedError, SpecError

ORDERS, AUDIT = ("shop", "orders"), ("shop", "audit")
FAILURE = ConnectionFailedError("db:5432/app cannot be reached: it does not answer")


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("BusDatabase shop/main")


def test_before_the_first_probe_channels_wait_and_its_verdict_wakes_them(breaker: Breaker) -> None:
    for channel in (ORDERS, AUDIT, ORDERS):
        with pytest.raises(VerdictPendingError):
            breaker.check(channel)
    assert breaker.state == "pending"
    assert breaker.decide(None) == {ORDERS, AUDIT}
    assert breaker.state == "closed"
    breaker.check(ORDERS)
    assert breaker.decide(None) == set()


def test_out_of_order_it_refuses_naming_database_and_reason(breaker: Breaker) -> None:
    breaker.decide(FAILURE)
    assert breaker.state == "open"
    with pytest.raises(SpecError, match=r"^BusDatabase shop/main is not ready: db:5432/app cannot") as caught:
        breaker.check(ORDERS)
    assert caught.value.reason == "DatabaseUnavailable"
    assert breaker.decide(None) == set()
    breaker.check(ORDERS)


def test_a_failed_session_asks_for_one_probe_however_many_channels_notice(breaker: Breaker) -> None:
    breaker.decide(None)
    assert [breaker.suspect() for _ in range(3)] == [True, False, False]
    with pytest.raises(VerdictPendingError):
        breaker.check(ORDERS)
    assert breaker.decide(None) == {ORDERS}
    assert breaker.suspect()


def test_a_session_that_fails_late_changes_nothing_of_a_verdict(breaker: Breaker) -> None:
    breaker.decide(FAILURE)
    assert not breaker.suspect()
    assert breaker.state == "open"
