"""What is done to a channel, from what is wanted and what was observed."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from planned_channel import HELD, NO_PEERS, OBSERVED, PASSWORD, QUEUE, ROLE, WANTED, login

from bus_operator import plan
from bus_operator.actions import (
    CreateChannel,
    DesiredChannel,
    DropChannel,
    DropLogin,
    InstallChannelFunctions,
    IssueCredential,
    RecreateLog,
    ReleaseChannel,
    RepairRole,
    SetAside,
    SetLogPersistence,
    UpdateChannel,
    UpdateLogin,
)
from bus_operator.errors import ChannelConflictError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan import plan_deletion
from bus_operator.plan_credentials import HeldCredential, RotationRules

plan_channel = partial(plan.plan_channel, functions_digest="shipped", rotation=RotationRules())


def test_a_new_channel():
    assert plan_channel(WANTED, None, None) == [CreateChannel(WANTED), IssueCredential(1, 101)]
    assert plan_channel(WANTED, None, HELD) == [CreateChannel(WANTED), IssueCredential(1, 101)]


def test_nothing_where_everything_is_as_wanted():
    assert plan_channel(WANTED, OBSERVED, HELD) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"durability": "Async"}, {"self_delivery": False}, {"max_peers": 1}, {"max_message_bytes": 1024},
        {"peer_timeout": timedelta(seconds=10)}, {"owner_reference": "team/renamed"},
        {"max_age": timedelta(hours=1)}, {"max_messages": 1}, {"max_bytes": 65536},
    ],
)  # fmt: skip
def test_a_changed_setting(changes):
    wanted = replace(WANTED, **changes)
    assert plan_channel(wanted, OBSERVED, HELD) == [UpdateChannel(wanted)]


@pytest.mark.parametrize(("before", "after"), [("Sync", "Unlogged"), ("Unlogged", "Sync"), ("Unlogged", "Async")])
def test_a_log_becomes_unlogged_and_logged_again(before, after):
    wanted = replace(WANTED, durability=after)
    observed = replace(OBSERVED, durability=before, log_unlogged=before == "Unlogged")
    expected = SetLogPersistence(QUEUE, unlogged=after == "Unlogged")
    assert plan_channel(wanted, observed, HELD) == [UpdateChannel(wanted), expected]


def test_a_log_whose_persistence_somebody_changed():
    assert plan_channel(WANTED, replace(OBSERVED, log_unlogged=True), HELD) == [
        SetLogPersistence(QUEUE, unlogged=False)
    ]


def test_a_lost_log_comes_back_as_the_manifest_wants_it():
    wanted = replace(WANTED, durability="Unlogged")
    lost = replace(OBSERVED, durability="Unlogged", log_exists=False, log_unlogged=None)
    assert plan_channel(wanted, lost, HELD) == [RecreateLog(QUEUE, unlogged=True)]


def test_a_changed_connection_limit_concerns_the_login_too():
    wanted = replace(WANTED, max_connections=7)
    current = login(1)
    assert plan_channel(wanted, OBSERVED, HELD) == [
        UpdateChannel(wanted),
        UpdateLogin(current.role, current.verifier, 8),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"role_exists": False, "role_is_client": False, "actual_fingerprint": "no privileges"},
            [RepairRole(ROLE, create=True), InstallChannelFunctions(QUEUE, in_place=False)],
        ),
        ({"role_is_client": False}, [RepairRole(ROLE, create=False)]),
        ({"log_exists": False, "log_unlogged": None}, [RecreateLog(QUEUE, unlogged=False)]),
    ],
)
def test_what_is_missing_is_made_anew(changes, expected):
    assert plan_channel(WANTED, replace(OBSERVED, **changes), HELD) == expected


@pytest.mark.parametrize(
    ("changes", "in_place"),
    [
        ({"installed_fingerprint": None}, False),
        ({"installed_fingerprint": "older:as installed"}, True),
        ({"actual_fingerprint": "as somebody changed them"}, False),
        ({"installed_fingerprint": "older:as installed", "actual_fingerprint": "as somebody changed them"}, False),
    ],
)
def test_functions_that_are_not_as_shipped_and_installed(changes, in_place):
    observed = replace(OBSERVED, **changes)
    assert plan_channel(WANTED, observed, HELD) == [InstallChannelFunctions(QUEUE, in_place=in_place)]


@pytest.mark.parametrize(
    "drift", [{"role_exists": False}, {"attributes_right": False}, {"is_member": False}, {"password_replaced": True}]
)
def test_a_login_that_drifted(drift):
    observed = replace(OBSERVED, logins=(login(1, **drift),))
    assert plan_channel(WANTED, observed, HELD) == [IssueCredential(2, 101)]


@pytest.mark.parametrize(
    "held",
    [None, HeldCredential(HELD.username, "wrong"), HeldCredential("postgres", PASSWORD), HeldCredential("", "")],
    ids=["none", "wrong password", "wrong user", "empty"],
)
def test_a_binding_without_a_valid_credential(held):
    assert plan_channel(WANTED, OBSERVED, held) == [IssueCredential(2, 101)]


class TestWhoOwnsAName:
    def test_another_buschannel_does(self):
        other = replace(WANTED, owner_uid=Uid("uid-2"), owner_reference="other/orders")
        with pytest.raises(ChannelConflictError, match="'orders' belongs to BusChannel team/orders") as caught:
            plan_channel(other, OBSERVED, HELD)
        assert caught.value.reason == "ChannelConflict"

    def test_a_retained_channel_waits_for_its_own_buschannel_only(self):
        retained = replace(OBSERVED, owner_uid=None, logins=())
        thief = replace(WANTED, owner_uid=Uid("uid-2"), owner_reference="other/orders")
        for yielding in (frozenset(), frozenset({Uid("uid-1")})):
            with pytest.raises(ChannelConflictError, match="was retained for BusChannel team/orders"):
                plan_channel(thief, retained, None, yielding)
        again = replace(WANTED, owner_uid=Uid("uid-2"))
        assert plan_channel(again, retained, None) == [UpdateChannel(again), IssueCredential(1, 101)]

    def test_a_buschannel_made_anew_gets_its_channel_and_ends_the_old_credentials(self):
        again = replace(WANTED, owner_uid=Uid("uid-2"))
        observed = replace(OBSERVED, logins=(login(1), login(2)))
        assert plan_channel(again, observed, HELD) == [
            UpdateChannel(again),
            IssueCredential(3, 101),
            DropLogin(login(1).role, 1),
            DropLogin(login(2).role, 2),
        ]

    def test_a_younger_claim_yields_the_name_and_not_the_messages(self):
        elder = replace(WANTED, owner_uid=Uid("uid-0"), owner_reference="other/orders")
        assert plan_channel(elder, OBSERVED, None, frozenset({Uid("uid-1")})) == [
            SetAside(OBSERVED),
            CreateChannel(elder),
            IssueCredential(1, 101),
        ]


def test_without_a_binding_no_credential_is_touched():
    assert plan_channel(WANTED, None, None, binding_wanted=False) == [CreateChannel(WANTED)]
    assert plan_channel(WANTED, OBSERVED, None, binding_wanted=False) == []


@pytest.mark.parametrize(
    ("policy", "stored", "expected"),
    [
        ("Delete", 5, DropChannel), ("Delete", 0, DropChannel), ("Retain", 0, ReleaseChannel),
        ("DeleteIfEmpty", 0, DropChannel), ("DeleteIfEmpty", 1, ReleaseChannel),
        ("DeleteIfEmpty", None, ReleaseChannel),
    ],
)  # fmt: skip
def test_deletion_policies(policy, stored, expected):
    counts = None if stored is None else replace(NO_PEERS, stored=stored)
    assert plan_deletion(policy, Uid("uid-1"), OBSERVED, counts) == expected(OBSERVED)


@pytest.mark.parametrize("policy", ["Delete", "DeleteIfEmpty", "Retain"])
def test_deleting_what_is_not_its_own_does_nothing(policy):
    assert plan_deletion(policy, Uid("uid-2"), OBSERVED, NO_PEERS) is None
    assert plan_deletion(policy, Uid("uid-1"), replace(OBSERVED, owner_uid=None), NO_PEERS) is None
    assert plan_deletion(policy, Uid("uid-1"), None, None) is None


def test_no_plan_shows_a_secret():
    wanted = replace(WANTED, max_connections=7)
    planned = plan_channel(wanted, OBSERVED, HELD)
    shown = repr(planned) + " ".join(map(str, planned)) + repr(HELD) + repr(OBSERVED)
    assert PASSWORD not in shown
    assert "SCRAM-SHA-256" not in shown


def test_a_spec_becomes_a_wanted_channel():
    spec = ChannelSpec.model_validate(
        {
            "peerTimeout": "1h",
            "limits": {"maxPeers": 5},
            "durability": "Unlogged",
            "retention": {"maxAge": "24h", "maxMessages": 10, "maxBytes": 100000},
        }
    )
    wanted = DesiredChannel.from_spec(spec, namespace="team", name="orders", uid=Uid("u"))
    assert wanted == replace(
        WANTED,
        name="team.orders",
        owner_uid=Uid("u"),
        durability="Unlogged",
        max_peers=5,
        peer_timeout=timedelta(hours=1),
        max_age=timedelta(days=1),
        max_messages=10,
        max_bytes=100000,
    )
    assert wanted.unlogged
