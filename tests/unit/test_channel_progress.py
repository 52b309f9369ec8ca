"""When a channel needs no look of its own any more."""

from dataclasses import replace

import pytest
from planned_channel import OBSERVED, WANTED, login

from bus_operator.actions import (
    ChannelAction,
    CreateChannel,
    DropLogin,
    InstallChannelFunctions,
    IssueCredential,
    PublishLogin,
    UpdateChannel,
)
from bus_operator.channel_progress import Found


def at_rest(*actions: ChannelAction, logins: int = 1) -> bool:
    observed = replace(OBSERVED, logins=tuple(login(number + 1) for number in range(logins)))
    return Found(observed, actions, "orders-bus", "7").at_rest


@pytest.mark.parametrize(
    "actions",
    [
        [],
        [CreateChannel(WANTED), IssueCredential(1, 101)],
        # Else nobody would notice an edit of its Secret until the next resync.
        [UpdateChannel(WANTED), InstallChannelFunctions(OBSERVED.queue, in_place=True)],
    ],
)
def test_nothing_follows(actions: list[ChannelAction]) -> None:
    assert at_rest(*actions)
    assert not at_rest(*actions, logins=2)


@pytest.mark.parametrize("action", [IssueCredential(2, 101), PublishLogin("a", 2), DropLogin("a", 1)])
def test_another_look_follows(action: ChannelAction) -> None:
    assert not at_rest(UpdateChannel(WANTED), action)
