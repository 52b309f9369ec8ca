"""Whether doorbells can be relied on. Pure: it is told what happens, and when.

They can be until messages come that nobody had rung for. From then on it has to be proven anew that they arrive, and
from every publisher: ids ascend without a gap, so a ring that is missing shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: So many overlooked announcements within so many seconds are one too many, where rings did arrive in between: single
#: datagrams get lost.
_STRIKES = 3
_STRIKES_SECONDS = 60.0

#: A proof: so many rings, and for so many seconds none missing. The time doubles with each relapse, up to the maximum,
#: and is what it was again once doorbells have been relied on for `_FORGIVE` times as long.
_RINGS = 3
_PATIENCE = 30.0
_MAX_PATIENCE = 3600.0
_FORGIVE = 10

#: Seconds by which rings of several publishers may overtake each other.
_OVERTAKING = 1.0
_MAX_HOLES = 64


@dataclass(slots=True)
class _Hole:
    """Ids for which nobody has rung yet, though somebody has for later ones."""

    first: int
    last: int
    since: float


class DoorbellTrust:
    """The verdict on one membership's doorbell.

    Args:
        hung: Whether there is one.
        clock: Seconds that never go back.
    """

    def __init__(self, hung: bool, clock: Callable[[], float]) -> None:
        self._hung = hung
        self._clock = clock
        self._patience = 0.0
        self._strikes: list[float] = []
        self._rang = False
        self._since = clock()
        self._rings = 0
        self._head = 0
        self._holes: list[_Hole] = []
        self.trusted = hung

    def overlooked(self) -> None:
        """There were messages that nothing had announced."""
        now = self._clock()
        if not self.trusted:
            self._restart(now)
            return
        self._strikes = [at for at in self._strikes if now - at < _STRIKES_SECONDS]
        self._strikes.append(now)
        rang, self._rang = self._rang, False
        if rang and len(self._strikes) < _STRIKES:
            return
        forgiven = now - self._since >= self._patience * _FORGIVE
        self._patience = _PATIENCE if forgiven else min(self._patience * 2, _MAX_PATIENCE)
        self.trusted = False
        self._head = 0
        self._restart(now)

    def rang(self, first_id: int, count: int) -> None:
        """A genuine ring arrived for these ids."""
        self._rang = True
        if self.trusted or not self._hung:
            return
        now = self._clock()
        if not self._cover(first_id, first_id + count - 1, now):
            # A replay, or later than whatever else told of it.
            return
        self._rings += 1
        if self._is_missing_some(now):
            self._restart(now)
        elif self._rings >= _RINGS and not self._holes and now - self._since >= self._patience:
            self.trusted = True
            self._since = now
            self._strikes.clear()

    def published(self, first_id: int, count: int) -> None:
        """These ids are our own: nobody rings us for them."""
        if not self.trusted:
            now = self._clock()
            self._cover(first_id, first_id + count - 1, now)
            # Where nobody else rings, no ring notices it.
            if self._is_missing_some(now):
                self._restart(now)

    def _is_missing_some(self, now: float) -> bool:
        """Whether rings are missing that should have come by now."""
        return len(self._holes) > _MAX_HOLES or any(now - hole.since > _OVERTAKING for hole in self._holes)

    def _restart(self, now: float) -> None:
        self._since = now
        self._rings = 0
        self._holes.clear()

    def _cover(self, first: int, last: int, now: float) -> bool:
        """Note that these ids were announced; whether that was news."""
        if first > self._head:
            if 0 < self._head < first - 1:
                self._holes.append(_Hole(self._head + 1, first - 1, now))
            self._head = last
            return True
        news = last > self._head
        self._head = max(self._head, last)
        holes = []
        for hole in self._holes:
            if last < hole.first or hole.last < first:
                holes.append(hole)
                continue
            news = True
            if hole.first < first:
                holes.append(_Hole(hole.first, first - 1, hole.since))
            if last < hole.last:
                holes.append(_Hole(last + 1, hole.last, hole.since))
        self._holes = holes
        return news
