"""Whether the orders that were seen and promised agree, and if not, in the simplest terms, which is broken."""

from __future__ import annotations

from chaos.case import Case
from chaos.observed import FOREIGN, PUBLISHED, Incarnation
from chaos.ordering import Graph, add_calls, add_deliveries, add_real_time
from chaos.verdict import Broken


def check_order(case: Case) -> None:
    """All orders are one; notes in the case what comes before what."""
    count = len(case.channel.names)
    graph = Graph(count)
    add_deliveries(graph, case.channel)
    add_calls(graph, case.channel)
    add_real_time(graph, case.channel)
    case.position, case.certain = graph.sort(count)
    cycle = graph.cycle(count, case.position)
    if cycle and not _explain(case):
        # No process saw it alone, nor do deliveries contradict each other: together they contradict the publishers.
        broken = Broken.REAL_TIME_ORDER if max(cycle) >= count else Broken.PUBLISHER_ORDER
        case.verdict.add(broken, _account(case, [message for message in cycle if message < count]))


def _explain(case: Case) -> bool:
    """Which orders are broken, in the simplest terms; False if none is by itself."""
    before = case.verdict.counts.total()
    for incarnation in case.channel.incarnations:
        _check_calls(case, incarnation)
        _check_real_time(case, incarnation)
    count = len(case.channel.names)
    graph = Graph(count)
    add_deliveries(graph, case.channel)
    cycle = graph.cycle(count, graph.sort(count)[0])
    if cycle:
        case.verdict.add(Broken.TOTAL_ORDER, _account(case, cycle))
    return case.verdict.counts.total() > before


def _check_calls(case: Case, incarnation: Incarnation) -> None:
    """One process against each publisher's order of calls."""
    channel = case.channel
    place = {
        call: (publisher, number)
        for publisher, (calls, ordered) in enumerate(channel.calls)
        if ordered
        for number, call in enumerate(calls)
        if channel.outcome[call] == PUBLISHED
    }
    last: dict[int, tuple[int, int]] = {}
    for message, when in incarnation.firsts():
        if message not in place:
            continue
        publisher, number = place[message]
        furthest, which = last.get(publisher, (-1, -1))
        if number < furthest:
            case.verdict.add(
                Broken.PUBLISHER_ORDER,
                f"{incarnation} received {case.describe(message)} at {case.when(when)}, "
                f"after {case.describe(which)}, whose publish was called later",
            )
        else:
            last[publisher] = (number, message)


def _check_real_time(case: Case, incarnation: Incarnation) -> None:
    """One process against the times of publishes."""
    channel = case.channel
    latest = -1
    for message, when in incarnation.firsts():
        if channel.outcome[message] == FOREIGN:
            continue
        if latest >= 0 and channel.returned[message] < channel.invoked[latest]:
            publisher = channel.publisher[message]
            if publisher != channel.publisher[latest] or not channel.calls[publisher][1]:
                case.verdict.add(
                    Broken.REAL_TIME_ORDER,
                    f"{incarnation} received {case.describe(message)} at {case.when(when)}, "
                    f"after {case.describe(latest)}",
                )
        elif latest < 0 or channel.invoked[message] > channel.invoked[latest]:
            latest = message


def _account(case: Case, cycle: list[int]) -> str:
    """Why each message of a cycle comes before the next one, and the last before the first."""
    channel = case.channel
    wanted = set(cycle)
    seen = [(incarnation, _places(incarnation, wanted)) for incarnation in channel.incarnations]
    way = [*cycle, cycle[0]]
    steps = []
    at = 0
    while at < len(cycle):
        # As far as one process alone tells.
        end, which = max((_told_by(places, way, at), number) for number, (_, places) in enumerate(seen))
        before, after = way[at], way[max(end, at + 1)]
        if end > at:
            incarnation, places = seen[which]
            steps.append(
                f"{incarnation} received {case.describe(before)} at {case.when(places[before][1])} "
                f"and then {case.describe(after)} at {case.when(places[after][1])}"
            )
        elif channel.returned[before] < channel.invoked[after]:
            steps.append(f"{case.describe(before)} had been published before {case.describe(after)}")
        else:
            steps.append(f"publish was called for {case.describe(before)} before {case.describe(after)}")
        at = max(end, at + 1)
    return "; ".join(steps)


def _told_by(places: dict[int, tuple[int, int]], way: list[int], start: int) -> int:
    """Up to where on the way one process received one message after the other."""
    end = start
    while end + 1 < len(way) and way[end] in places and way[end + 1] in places:
        if places[way[end + 1]][0] <= places[way[end]][0]:
            break
        end += 1
    return end


def _places(incarnation: Incarnation, wanted: set[int]) -> dict[int, tuple[int, int]]:
    """Of some messages: the place in which a process received them, and when."""
    firsts = enumerate(incarnation.firsts())
    return {message: (place, when) for place, (message, when) in firsts if message in wanted}
