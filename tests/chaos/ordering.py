"""The order of a channel's messages, as far as it can be known, and whether there is one at all.

Three things say that a message came before another: a process was handed them one after the other; one publisher
called `publish` for them one after the other (where the client keeps that order); the publish of one had returned
before that of the other began. All are edges of one graph. If it has a cycle, some order is broken; if not, sorting
it shows which messages certainly precede which.

Real time costs no edge for each pair: a tick stands for a moment, comes after what had returned by then and the tick
before, and precedes what began later. Ticks are nodes behind the messages.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from itertools import pairwise

from chaos.observed import FOREIGN, NEVER, PUBLISHED, Channel


class Graph:
    """Nodes are numbers; an edge leads from what comes first."""

    def __init__(self, size: int) -> None:
        # Most messages have one successor.
        self._first = array("l", [-1]) * size
        self._more: dict[int, list[int]] = {}
        self._incoming = array("l", [0]) * size

    def add(self, before: int, after: int) -> None:
        """An edge, unless it is there."""
        first = self._first[before]
        if first == after:
            return
        if first < 0:
            self._first[before] = after
        else:
            more = self._more.setdefault(before, [])
            if after in more:
                return
            more.append(after)
        self._incoming[after] += 1

    def append(self) -> int:
        """Another node."""
        self._first.append(-1)
        self._incoming.append(0)
        return len(self._first) - 1

    def add_new(self, before: int, after: int) -> None:
        """An edge of which it is known that it is not there: of ticks, which have many."""
        if self._first[before] < 0:
            self._first[before] = after
        else:
            self._more.setdefault(before, []).append(after)
        self._incoming[after] += 1

    def after(self, node: int) -> Iterable[int]:
        """Where its edges lead."""
        first = self._first[node]
        if first < 0:
            return ()
        more = self._more.get(node)
        return (first,) if more is None else (first, *more)

    def sort(self, messages: int) -> tuple[array[int], bytearray]:
        """Positions in an order that all edges agree with; -1 for what is on a cycle or behind one.

        And for each message whether it certainly precedes all that have a higher position. Nodes from `messages` on
        are
        ticks: they have no position of their own.
        """
        position = array("l", [-1]) * len(self._first)
        certain = bytearray(messages)
        incoming = array("l", self._incoming)
        ready: deque[int] = deque()
        ticks: list[int] = []
        for node, count in enumerate(incoming):
            if count == 0:
                (ready if node < messages else ticks).append(node)
        done = 0
        while ready or ticks:
            # Ticks first. Then, if one message alone has nothing before it, all that are left come after it.
            if ticks:
                node = ticks.pop()
                position[node] = done
            else:
                certain[ready[0]] = len(ready) == 1
                node = ready.popleft()
                position[node] = done
                done += 1
            for after in self.after(node):
                incoming[after] -= 1
                if incoming[after] == 0:
                    (ready if after < messages else ticks).append(after)
        return position, certain

    def cycle(self, messages: int, position: array[int]) -> list[int]:
        """A short cycle among the nodes that could not be sorted; empty if all could."""
        left = {node for node, at in enumerate(position) if at < 0}
        before: dict[int, int] = {}
        for node in left:
            for after in self.after(node):
                if after in left:
                    before.setdefault(after, node)
        # Each unsorted message has an unsorted node before it: going back ends in a circle.
        node = next((node for node in left if node < messages), -1)
        passed: set[int] = set()
        while node >= 0 and node not in passed:
            passed.add(node)
            node = before[node]
        while node >= messages:
            node = before[node]
        return [] if node < 0 else self._way_round(node, left)

    def _way_round(self, start: int, within: set[int]) -> list[int]:
        """The shortest way from a node to itself."""
        came_from: dict[int, int] = {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for after in self.after(node):
                if after == start:
                    way = [node]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return way[::-1]
                if after in within and after not in came_from:
                    came_from[after] = node
                    queue.append(after)
        return []


def add_deliveries(graph: Graph, channel: Channel) -> None:
    """What each process was handed comes in that order."""
    for incarnation in channel.incarnations:
        for (before, _), (after, _) in pairwise(incarnation.firsts()):
            graph.add(before, after)


def add_calls(graph: Graph, channel: Channel) -> None:
    """What each publisher published comes in that order, where its client promises that.

    What has no certain outcome has no certain place: a statement whose connection broke may still be carried out,
    after those that were sent later.
    """
    for calls, ordered in channel.calls:
        if ordered:
            for before, after in pairwise(call for call in calls if channel.outcome[call] == PUBLISHED):
                graph.add(before, after)


def add_real_time(graph: Graph, channel: Channel) -> None:
    """What had been published comes before what was not yet being published."""
    invoked, returned = channel.invoked, channel.returned
    taken = [message for message, outcome in enumerate(channel.outcome) if outcome != FOREIGN]
    waiting = deque(sorted((m for m in taken if returned[m] < NEVER), key=returned.__getitem__))
    tick = -1
    for message in sorted(taken, key=invoked.__getitem__):
        if waiting and returned[waiting[0]] < invoked[message]:
            former, tick = tick, graph.append()
            if former >= 0:
                graph.add_new(former, tick)
            while waiting and returned[waiting[0]] < invoked[message]:
                graph.add_new(waiting.popleft(), tick)
        if tick >= 0:
            graph.add_new(tick, message)
