"""How the channels are used: what the last survey of each database read, for the metrics.

A BusDatabase's reconciliation surveys it each resync, and hands over what it read. Only where that is less than once
a minute, it is looked at from here. A database that hangs delays nobody: each has a look of its own, and no second one
before the first has ended.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bus_operator import catalog
from bus_operator.catalog import ChannelUsage
from bus_operator.database_access import UsableDatabase
from bus_operator.errors import BusError
from bus_operator.inventory import Key

logger = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two surveys; less where the resync is shorter."""

ROUND = 5.0
"""Seconds after which it is asked again whose turn it is: a database that has just come is not left for a minute."""

PATIENCE = 2
"""Intervals for which a resync's survey is waited for: one out of turn may put off the next by nearly one."""

OUTDATED = 3
"""Intervals after which what was seen says nothing any more."""


@dataclass
class Totals:
    """What the channels of a database add up to since the operator began to look; deleted channels stay counted."""

    published: int = 0
    redelivered: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Survey:
    """What was seen in a database."""

    at: float
    """By the monotonic clock."""
    by_shard: Mapping[int, Sequence[ChannelUsage]]
    totals: Totals
    losing: frozenset[str] = frozenset()
    """UIDs of the BusChannels that lost messages since the look before."""
    by_uid: Mapping[str, ChannelUsage] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        used = (usage for usages in self.by_shard.values() for usage in usages)
        object.__setattr__(self, "by_uid", {usage.owner_uid: usage for usage in used if usage.owner_uid is not None})

    @property
    def usages(self) -> Iterable[ChannelUsage]:
        """All channels, retained ones included."""
        return (usage for usages in self.by_shard.values() for usage in usages)

    def followed_by(self, at: float, by_shard: Mapping[int, Sequence[ChannelUsage]]) -> "Survey":
        """The next one, with what has happened since."""
        totals = Totals(self.totals.published, self.totals.redelivered, self.totals.lost)
        losing = set()
        for shard, usages in by_shard.items():
            if shard not in self.by_shard:
                continue
            before = {usage.id: usage for usage in self.by_shard[shard]}
            for now in usages:
                then = before.get(now.id)
                lost = _growth(now.lost, then.lost if then else 0)
                totals.published += _growth(now.published, then.published if then else 0)
                totals.redelivered += _growth(now.redelivered, then.redelivered if then else 0)
                totals.lost += lost
                if lost and now.owner_uid is not None:
                    losing.add(now.owner_uid)
        return Survey(at, by_shard, totals, frozenset(losing))


def _growth(now: int, then: int) -> int:
    # A channel whose registry was made anew begins again.
    return now - then if now >= then else now


class Surveys:
    """The last survey of each database.

    Args:
        resync: Seconds after which somebody else records a survey.
        clock: Seconds that only grow.
    """

    def __init__(self, *, resync: float = INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = min(max(resync, ROUND), INTERVAL)
        # Where it is done here, half a round early: else it would be late by most of one.
        self._patience = PATIENCE * self._interval if resync <= INTERVAL else INTERVAL - ROUND / 2
        self._clock = clock
        self._last: dict[Key, Survey] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}

    def of(self, database: Key) -> Survey | None:
        """What was seen last; None when that was never, or too long ago."""
        survey = self._last.get(database)
        if survey is None or survey.at < self._clock() - OUTDATED * self._interval:
            return None
        return survey

    def current(self) -> Iterable[tuple[Key, Survey]]:
        """The databases that were looked at, with what was seen."""
        for key in tuple(self._last):
            if (survey := self.of(key)) is not None:
                yield key, survey

    def keep_only(self, databases: Iterable[Key]) -> None:
        """Forgets the databases that are gone."""
        there = set(databases)
        self._last = {key: survey for key, survey in self._last.items() if key in there}

    async def run(self, usable: Callable[[], Iterable[tuple[Key, UsableDatabase]]]) -> None:
        """Looks where nobody else does, until it is cancelled.

        Args:
            usable: The databases that can be looked at now.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._running = {key: task for key, task in self._running.items() if not task.done()}
                for key, database in usable():
                    if key not in self._running and self._is_due(key):
                        self._running[key] = group.create_task(self._look(key, database))
                await asyncio.sleep(ROUND)

    def _is_due(self, database: Key) -> bool:
        last = self._last.get(database)
        return last is None or self._clock() >= last.at + self._patience

    async def _look(self, key: Key, database: UsableDatabase) -> None:
        began = self._clock()
        by_shard = {}
        try:
            for shard in database.shards.usable:
                async with database.slots, database.connect(shard.admin) as connection:
                    by_shard[shard.index] = await catalog.survey(connection)
        except BusError as exc:
            # Its own reconciliation says so where users see it.
            logger.debug("BusDatabase %s/%s was not surveyed: %s", *key, exc)
            return
        except Exception:  # a defect: it costs some metrics, and nothing else
            logger.exception("BusDatabase %s/%s was not surveyed", *key)
            return
        self.record(key, by_shard, began)

    def record(self, database: Key, by_shard: Mapping[int, Sequence[ChannelUsage]], began: float = math.inf) -> None:
        """Takes what was read in the shards of a database.

        Args:
            database: Which.
            by_shard: All channels of each shard, by its index.
            began: When reading began, by the monotonic clock; by default just now.
        """
        before = self._last.get(database)
        now = self._clock()
        if before is None:
            self._last[database] = Survey(now, by_shard, Totals())
        elif began >= before.at:
            # Of two that were read at the same time the first counts: older numbers after newer ones would look like
            # those of channels that began anew.
            self._last[database] = before.followed_by(now, by_shard)
