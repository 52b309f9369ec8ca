"""When credentials are issued, published and retired, from what was observed; a plan is tried step by step."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from planned_channel import HELD, NOW, OBSERVED, PASSWORD, WANTED, login

from bus_operator.actions import DropLogin, IssueCredential, PublishLogin, UpdateLogin, WarnOfLogin
from bus_operator.catalog import LoginUser, ObservedChannel, ObservedLogin
from bus_operator.plan_credentials import (
    MAX_LOGINS,
    HeldCredential,
    RotationRules,
    is_contested,
    is_wanted,
    next_look,
    next_step,
    plan_credentials,
    retiring_logins,
)

RULES = RotationRules(overlap=timedelta(hours=24), unused=timedelta(minutes=2))
USER = LoginUser(host="billing-7f9c", application="billing", address="10.0.0.7")


def channel(*logins: ObservedLogin, at: timedelta = timedelta(0)) -> ObservedChannel:
    return replace(OBSERVED, logins=logins, observed_at=NOW + at)


def planned(
    observed: ObservedChannel, held: HeldCredential | None = None, rules: RotationRules = RULES
) -> list[object]:
    return list(plan_credentials(WANTED, observed, held, rules, owned=True))


def holding(generation: int) -> HeldCredential:
    return HeldCredential(login(generation).role, PASSWORD)


def unpublished(generation: int, **changes: object) -> ObservedLogin:
    return login(generation, published_at=None, **changes)


class TestIssuing:
    def test_what_the_secret_holds_is_marked_as_published(self) -> None:
        """The operator was killed after it wrote the Secret."""
        assert planned(channel(login(1), unpublished(2)), holding(2)) == [PublishLogin(login(2).role, 2)]

    def test_what_was_issued_and_not_published_is_issued_again(self) -> None:
        """It was killed before: nobody knows that password any more."""
        again = IssueCredential(2, 101, again=True)
        assert planned(channel(login(1), unpublished(2)), holding(1)) == [again]
        assert planned(channel(login(1), unpublished(2)), None) == [again]
        assert planned(channel(unpublished(1)), None) == [IssueCredential(1, 101, again=True)]

    def test_what_was_damaged_meanwhile_is_replaced(self) -> None:
        assert planned(channel(login(1), unpublished(2, attributes_right=False)), holding(1)) == [
            IssueCredential(3, 101),
            DropLogin(login(2).role, 2),
        ]

    def test_several_that_were_left_behind(self) -> None:
        assert planned(channel(login(1), unpublished(2), unpublished(3)), holding(1)) == [
            IssueCredential(3, 101, again=True),
            DropLogin(login(2).role, 2),
        ]

    def test_a_secret_that_was_put_back_to_an_older_credential(self) -> None:
        """As a backup does: that login is about to end."""
        assert planned(channel(login(1), login(2)), holding(1)) == [IssueCredential(3, 101)]

    def test_a_connection_limit_that_changed_is_that_of_the_logins_before_too(self) -> None:
        """Or the next look at the database would take it for a change by hand."""
        lower = {"connection_limit": 5}
        observed = channel(login(1, **lower, unused_since=NOW - RULES.unused), login(2, **lower), login(3, **lower))
        assert planned(observed, holding(3)) == [
            UpdateLogin(login(2).role, login(2).verifier, 101),
            UpdateLogin(login(3).role, login(3).verifier, 101),
            DropLogin(login(1).role, 1),
        ]

    def test_generations_are_never_used_again(self) -> None:
        assert planned(channel(login(9), login(2)), None) == [IssueCredential(10, 101)]
        # What could not be dropped is a name, and no credential.
        assert planned(channel(login(3, verifier="")), None) == [IssueCredential(4, 101)]

    def test_a_secret_that_is_damaged_again_and_again(self) -> None:
        logins = [login(n) for n in range(1, MAX_LOGINS + 1)]
        assert planned(channel(*logins[:-1]), None) == [IssueCredential(MAX_LOGINS, 101)]
        assert planned(channel(*logins), None) == []
        assert is_contested(channel(*logins), None, RULES)
        assert not is_contested(channel(*logins), holding(MAX_LOGINS), RULES)
        logins[0] = login(1, unused_since=NOW - RULES.unused)
        assert planned(channel(*logins), None) == [IssueCredential(MAX_LOGINS + 1, 101), DropLogin(login(1).role, 1)]


class TestRequests:
    ASKED = replace(RULES, request="today")

    def test_each_is_answered_once(self) -> None:
        asked = [IssueCredential(2, 101, request="today")]
        assert planned(channel(login(1)), HELD, self.ASKED) == asked
        assert planned(channel(login(1, request="yesterday")), HELD, self.ASKED) == asked
        answered = login(2, request="today")
        assert planned(channel(login(1), answered), holding(2), self.ASKED) == []
        assert planned(channel(answered), holding(2), self.ASKED) == []

    def test_one_that_was_begun_is_finished(self) -> None:
        begun = channel(login(1), unpublished(2, request="today"))
        assert planned(begun, HELD, self.ASKED) == [IssueCredential(2, 101, request="today", again=True)]

    def test_taking_the_annotation_away_asks_for_nothing(self) -> None:
        assert planned(channel(login(1, request="today")), HELD) == []

    def test_the_next_one_waits_until_the_login_before_has_ended(self) -> None:
        observed = channel(login(1), login(2))
        assert planned(observed, holding(2), self.ASKED) == []
        assert is_wanted(observed, self.ASKED)
        assert not is_wanted(observed, RULES)
        assert planned(channel(login(2)), holding(2), self.ASKED) == [IssueCredential(3, 101, request="today")]


class TestSchedule:
    RULES = replace(RULES, interval=timedelta(hours=100))

    @pytest.mark.parametrize(("age", "due"), [(89, False), (100, True), (500, True)])
    def test_by_age(self, age: int, due: bool) -> None:
        observed = channel(login(1), at=timedelta(hours=age))
        assert planned(observed, HELD, self.RULES) == ([IssueCredential(2, 101)] if due else [])
        assert planned(observed, HELD) == []

    def test_channels_that_were_made_together_are_not_rotated_together(self) -> None:
        looks = [
            next_look(replace(channel(login(1)), role=f"bus_channel_{number}"), self.RULES) for number in range(100)
        ]
        hours = sorted(look.total_seconds() / 3600 for look in looks if look is not None)
        assert 90 <= hours[0] < 92
        assert 98 < hours[-1] <= 100
        assert next_look(channel(login(1)), RULES) is None

    def test_not_while_the_login_before_is_in_use(self) -> None:
        old = NOW + timedelta(hours=200)
        observed = channel(login(1), login(2), at=timedelta(hours=200))
        kept = replace(self.RULES, overlap=timedelta(hours=300))
        assert planned(observed, holding(2), kept) == []
        assert observed.observed_at == old


class TestRetiring:
    def test_on_evidence(self) -> None:
        def retires(unused_since: datetime | None, at: timedelta) -> bool:
            observed = channel(login(1, unused_since=unused_since), login(2), at=at)
            return planned(observed, holding(2)) == [DropLogin(login(1).role, 1)]

        assert not retires(None, timedelta(hours=23))
        assert not retires(NOW, timedelta(seconds=119))
        assert retires(NOW, timedelta(seconds=120))

    def test_at_once_where_the_role_was_dropped_by_hand(self) -> None:
        observed = channel(login(1, role_exists=False), login(2))
        assert planned(observed, holding(2)) == [DropLogin(login(1).role, 1)]

    def test_at_the_end_of_the_overlap(self) -> None:
        def ends(at: timedelta, overlap: timedelta) -> bool:
            observed = channel(login(1, users=(USER,), warned_at=NOW), login(2), at=at)
            return planned(observed, holding(2), replace(RULES, overlap=overlap)) == [DropLogin(login(1).role, 1)]

        assert not ends(timedelta(hours=23, minutes=59), timedelta(hours=24))
        assert ends(timedelta(hours=24), timedelta(hours=24))
        # A shorter one concerns the rotation that is under way.
        assert ends(timedelta(hours=1), timedelta(minutes=1))

    def test_the_overlap_begins_when_the_next_one_is_published(self) -> None:
        successor = login(2, published_at=NOW + timedelta(hours=500))
        observed = channel(login(1, users=(USER,), warned_at=NOW), successor, at=timedelta(hours=501))
        assert planned(observed, holding(2)) == []
        assert [item.deadline for item in retiring_logins(observed, RULES)] == [NOW + timedelta(hours=524)]

    def test_what_the_secret_holds_never_ends(self) -> None:
        observed = channel(login(1), login(2, unused_since=NOW), at=timedelta(days=900))
        assert planned(observed, holding(2)) == [DropLogin(login(1).role, 1)]
        assert observed.current_login == observed.logins[1]

    @pytest.mark.parametrize(
        ("overlap", "at", "warns"),
        [
            (timedelta(hours=24), timedelta(minutes=59), False), (timedelta(hours=24), timedelta(minutes=60), True),
            (timedelta(minutes=10), timedelta(minutes=4), False), (timedelta(minutes=10), timedelta(minutes=5), True),
        ],
    )  # fmt: skip
    def test_users_are_told_once_and_early_enough(self, overlap: timedelta, at: timedelta, warns: bool) -> None:
        rules = replace(RULES, overlap=overlap)
        used = channel(login(1, users=(USER,)), login(2), at=at)
        assert planned(used, holding(2), rules) == ([WarnOfLogin(login(1).role, 1)] if warns else [])
        assert planned(channel(login(1), login(2), at=at), holding(2), rules) == []
        warned = channel(login(1, users=(USER,), warned_at=NOW), login(2), at=at)
        assert planned(warned, holding(2), rules) == []

    def test_when_to_look_again(self) -> None:
        assert next_look(channel(login(1), login(2)), RULES) == timedelta(seconds=30)
        almost = channel(login(1), login(2), at=timedelta(hours=23, minutes=59, seconds=50))
        assert next_look(almost, RULES) == timedelta(seconds=10)
        over = channel(login(1), login(2), at=timedelta(hours=25))
        assert next_look(over, RULES) == timedelta(0)

    def test_when_the_next_step_is_due(self) -> None:
        """The end of the login before, and only then the age of the current one."""
        by_age = replace(RULES, interval=timedelta(hours=100))
        assert next_step(channel(login(1)), RULES) is None
        assert next_step(channel(login(1), login(2)), by_age) == timedelta(hours=24)
        assert next_step(channel(login(1), login(2), at=timedelta(hours=25)), by_age) == timedelta(hours=-1)
        fresh = next_step(channel(login(2)), by_age)
        assert fresh is not None
        assert timedelta(hours=90) < fresh <= timedelta(hours=100)
        assert next_step(channel(login(2), at=timedelta(hours=150)), by_age) == fresh - timedelta(hours=150)
