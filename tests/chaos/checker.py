"""Decides from histories alone whether the bus kept what it promises; see docs/reliability.md.

    verdict = check(read_all(directory), Promise("Sync"))
    assert verdict, verdict

It knows nothing of ids, positions or logs: only of what processes did and were told. Pure: nothing is read but the
events. A million events take some seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chaos.case import Case
from chaos.delivery import PeerCheck
from chaos.disorder import check_order
from chaos.history import Event
from chaos.observed import FAILED, FOREIGN, PUBLISHED, UNKNOWN, Incarnation, Observed
from chaos.promises import Promise
from chaos.verdict import Broken, Verdict

__all__ = ["Broken", "Promise", "Verdict", "check"]


def check(histories: Iterable[Iterable[Event]], promise: Promise | Mapping[str, Promise]) -> Verdict:
    """What became of the promises.

    Without the event `settled` nobody is expected to have received everything: peers may be where they happen to be.

    Args:
        histories: All of them, one for each file; each in the order in which it was written.
        promise: What the channel promises, or each of the channels by its name.

    Raises:
        ValueError: The histories contradict themselves.
    """
    observed = Observed(histories)
    verdict = Verdict()
    verdict.tally.events = observed.events
    for channel in observed.channels.values():
        case = Case(channel, observed, promise if isinstance(promise, Promise) else promise[channel.name], verdict)
        _count(case)
        for incarnation in channel.incarnations:
            _check_sources(case, incarnation)
        check_order(case)
        by_call = sorted(range(len(channel.names)), key=channel.invoked.__getitem__)
        for processes in channel.peers():
            PeerCheck(case, processes).run(by_call)
    return verdict


def _count(case: Case) -> None:
    tally, channel = case.verdict.tally, case.channel
    tally.published += channel.outcome.count(PUBLISHED)
    tally.unknown += channel.outcome.count(UNKNOWN)
    tally.failed += channel.outcome.count(FAILED)
    tally.peers += len(channel.peers())
    tally.processes += len(channel.calls)
    tally.received += sum(len(incarnation.received) for incarnation in channel.incarnations)
    tally.told += sum(incarnation.told for incarnation in channel.incarnations)


def _check_sources(case: Case, incarnation: Incarnation) -> None:
    """Everything that was received was published before, here, and not in vain."""
    channel = case.channel
    for message, when in incarnation.firsts():
        outcome = channel.outcome[message]
        if outcome in (PUBLISHED, UNKNOWN) and when >= channel.invoked[message]:
            continue
        text = f"{incarnation} received {case.describe(message)} at {case.when(when)}"
        if outcome == FAILED:
            case.verdict.add(Broken.FAILED, text)
        elif outcome != FOREIGN:
            case.verdict.add(Broken.PHANTOM, f"{text}, before its publish began")
        elif (home := _home(case, channel.names[message])) is not None:
            case.verdict.add(Broken.CHANNEL, f"{text} on {channel.name!r}; it was published to {home!r}")
        else:
            case.verdict.add(Broken.PHANTOM, text)


def _home(case: Case, name: str) -> str | None:
    """The channel that a message was published to."""
    for channel in case.observed.channels.values():
        number = channel.index.get(name)
        if number is not None and channel.outcome[number] != FOREIGN:
            return channel.name
    return None
