"""When which channel's isolation is verified: spread evenly, and bounded whatever their number.

A channel that is new, got a new credential, was put right or has failed is verified at its next reconciliation. The
others take their turn, the one that was verified longest ago first: each once per interval if they are few, and less
often if they are many. Each success is one write to the API server, so the bound holds for both.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bus_operator import status, tallies
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.probes import Verdict
from bus_operator.reporting import Wake, utc_now

CONDITION = "IsolationVerified"
FIELD = "lastVerifiedTime"

PERIOD = 60.0
"""Seconds between two looks at whose turn it is."""

PER_PERIOD = 30
"""How many take their turn in a period: about a hundredth of a core."""

FIRST_PER_PERIOD = 300
"""The same for those that never were verified, as after an upgrade from a version that did not."""

UNCLEAR_PAUSE = timedelta(minutes=5)
"""After an attempt that has shown nothing, such as while the login has no connection left."""

_OUTCOMES = {"Verified": "verified", "Unclear": "unclear"}

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class VerificationSchedule:
    """Decides; and wakes channels whose turn it is.

    Args:
        inventory: The BusChannels, whose statuses say when they were verified.
        wake: Asks for a channel to be reconciled soon.
        interval: Seconds between two verifications of a channel, if they are few.
        clock: The current time.
    """

    def __init__(
        self, inventory: Inventory, wake: Wake, *, interval: float, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._inventory = inventory
        self._wake = wake
        self._interval = timedelta(seconds=interval)
        self._period = min(PERIOD, interval)
        self._clock = clock
        self._asked: set[Key] = set()
        self._not_before: dict[Key, datetime] = {}

    def ask(self, channel: Key) -> None:
        """Has a channel verified at its next reconciliation."""
        self._asked.add(channel)

    def is_due(self, channel: Resource, generation: int | None) -> bool:
        """Whether the channel is verified at this reconciliation; `generation` is that of its credential now."""
        return (
            channel.key in self._asked
            or channel.status.get("credentialGeneration") != generation
            or _condition(channel).get("status") == "False"
        )

    def done(self, channel: Resource, verdict: Verdict) -> dict[str, Any]:
        """Takes what came of it. Returns what it means for the status."""
        self._asked.discard(channel.key)
        tallies.verified(_OUTCOMES.get(verdict.reason, "failed"))
        pause = UNCLEAR_PAUSE if verdict.reason == "Unclear" else self._interval
        now = self._clock()
        self._not_before[channel.key] = now + min(pause, self._interval)
        return {FIELD: status.timestamp(now)} if verdict.reason == "Verified" else {}

    def whose_turn(self) -> list[Key]:
        """Those that were verified too long ago or never, the longest ago first; as many as fit into a period.

        A time to come is one of a clock that was set back since, and says nothing.
        """
        now = self._clock()
        before, latest = status.timestamp(now - self._interval), status.timestamp(now)
        due = sorted(
            (channel.status.get(FIELD, ""), channel.key)
            for channel in self._inventory.channels.values()
            if "credentialGeneration" in channel.status
            and not before < channel.status.get(FIELD, "") <= latest
            # Else the channels of a database that is down would take everybody's turn.
            and not now < self._not_before.get(channel.key, _LONG_AGO) <= now + self._interval
        )
        never = [key for last, key in due if not last][:FIRST_PER_PERIOD]
        return never or [key for _, key in due[:PER_PERIOD]]

    async def run(self) -> None:
        """Wakes channels until it is cancelled."""
        while True:
            turn = self.whose_turn()
            for key in turn:
                self._not_before[key] = self._clock() + self._interval
                self.ask(key)
                self._wake("BusChannel", key)
                await asyncio.sleep(self._period / len(turn))
            if not turn:
                await asyncio.sleep(self._period)
            self._forget_gone()

    def _forget_gone(self) -> None:
        there = self._inventory.channels
        self._asked.intersection_update(there)
        self._not_before = {key: moment for key, moment in self._not_before.items() if key in there}


def condition(channel: Resource, verdict: Verdict | None) -> status.Condition:
    """What a verdict says; without one, or one that has shown nothing, what was found out last stands."""
    if verdict is not None:
        match verdict.reason:
            case "Verified":
                message = f"what a peer does works, and {verdict.refused} attempts at anything else were refused"
                return status.Condition.true(CONDITION, verdict.reason, message)
            case "Unclear":
                pass
            case _:
                return status.Condition.false(CONDITION, verdict.reason, verdict.message)
    last = _condition(channel)
    if last.get("status") in ("True", "False"):
        return status.Condition(CONDITION, last["status"], last["reason"], last["message"])
    message = verdict.message if verdict is not None else "its turn comes soon"
    return status.Condition(CONDITION, "Unknown", "NotVerifiedYet", message, advisory=True)


def _condition(channel: Resource) -> Mapping[str, Any]:
    return status.find(channel.status.get("conditions", ()), CONDITION) or {}
