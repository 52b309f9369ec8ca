"""What differs from what should be there, in words, and what becomes of it. Pure: no I/O."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Repair(Enum):
    """How a difference is put right."""

    STATEMENT = "statement"
    """By a statement of its own."""
    FUNCTIONS = "functions"
    """By the installer, which makes the shared functions anew."""
    CHANNEL_FUNCTIONS = "channel functions"
    """By making the channel's own functions anew."""
    ROLE = "role"
    """By making the channel's role anew."""
    LOG = "log"
    """By making the log anew; what was in it is lost."""
    QUEUE = "queue"
    """By having PGMQ complete what a queue consists of."""
    SETTINGS = "settings"
    """By setting a login's session defaults anew."""
    CREDENTIAL = "credential"
    """By a new credential: its password must reach the binding, so that is the channel's reconciliation's to do."""
    DROP_LOGIN = "drop login"
    """By dropping a login that nobody registered."""
    REPORT = "report"
    """Not at all: it is somebody else's, or cannot be guessed. Somebody has to look, and run the statement."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be."""

    object: str
    """What, as PostgreSQL calls it: `function pgmq_bus_v1.leave(text,text)`."""
    problem: str
    repair: Repair
    channel: str | None = None
    """The wire name of the channel that it belongs to; None for what all of them share."""
    statement: str | None = None
    """What puts it right, or what somebody has to run."""

    def __str__(self) -> str:
        return f"{self.object}: {self.problem}"

    @property
    def remedy(self) -> str:
        """What it is, and what to do about it where that is left to somebody else."""
        return f"{self} (run: {self.statement})" if self.statement else str(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Difference":
        """Reads a row of a drift query."""
        return cls(row["object"], row["problem"], Repair(row["repair"]), row["channel"], row["statement"])


@dataclass(frozen=True)
class DriftReport:
    """What one look found in a database."""

    repaired: tuple[Difference, ...] = ()
    remaining: tuple[Difference, ...] = ()
    """What is still so: it is not ours to repair, or this administrator may not."""

    def of(self, channel: str | None) -> "DriftReport":
        """The part that concerns one channel, or what is shared."""
        return DriftReport(
            tuple(item for item in self.repaired if item.channel == channel),
            tuple(item for item in self.remaining if item.channel == channel),
        )

    def without(self, known: Collection[Difference]) -> "DriftReport":
        """What is not known already."""
        return DriftReport(
            tuple(item for item in self.repaired if item not in known),
            tuple(item for item in self.remaining if item not in known),
        )

    def __add__(self, other: "DriftReport") -> "DriftReport":
        return DriftReport(self.repaired + other.repaired, self.remaining + other.remaining)

    @property
    def channels(self) -> frozenset[str]:
        """The wire names of the channels concerned."""
        return frozenset(item.channel for item in (*self.repaired, *self.remaining) if item.channel is not None)

    def __bool__(self) -> bool:
        return bool(self.repaired or self.remaining)


def summary(differences: Sequence[Difference], *, remedies: bool = False, limit: int = 1000) -> str:
    """All of them in one line; those that do not fit into `limit` characters are counted."""
    texts = list(dict.fromkeys(item.remedy if remedies else str(item) for item in differences))
    told: list[str] = []
    for text in texts:
        if told and sum(map(len, told)) + 2 * len(told) + len(text) > limit:
            return f"{'; '.join(told)}; and {len(texts) - len(told)} more"
        told.append(text)
    return "; ".join(told)


def split(found: Sequence[Difference], left: Iterable[Difference]) -> DriftReport:
    """What was put right between two looks, and what was not."""
    remaining = set(left)
    return DriftReport(tuple(item for item in found if item not in remaining), tuple(remaining))
