"""Conditions: one place that builds them and keeps their transition times."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from bus_operator.texts import escaped

ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    """A condition as it is now; the transition time comes from `merge`."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    advisory: bool = False
    """Whether it may be unknown without anybody having to wait for it."""

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about it says in fields."""
        return {"reason": self.reason}

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    @classmethod
    def true(cls, type_: str, reason: str, message: str = "") -> "Condition":
        """It holds."""
        return cls(type_, "True", reason, message)

    @classmethod
    def false(cls, type_: str, reason: str, message: str) -> "Condition":
        """It does not hold; the message says why and what to do."""
        return cls(type_, "False", reason, message)

    @classmethod
    def unknown(cls, type_: str, reason: str, message: str) -> "Condition":
        """It could not be found out, because something before it failed."""
        return cls(type_, "Unknown", reason, message)


def timestamp(now: datetime) -> str:
    """RFC 3339 with seconds, as Kubernetes writes times."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(conditions: Sequence[Condition]) -> Condition:
    """The summary: Ready when all hold, else the first that does not."""
    for condition in conditions:
        if condition.status != "True" and not (condition.advisory and condition.status == "Unknown"):
            return Condition("Ready", "False", condition.reason, condition.message)
    return Condition.true("Ready", "Ready", "everything is in place")


def merge(
    previous: Iterable[Mapping[str, Any]], conditions: Iterable[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Conditions for the status; lastTransitionTime moves only where the status changed."""
    before = {item.get("type"): item for item in previous}
    merged = []
    for condition in conditions:
        old = before.get(condition.type, {})
        same = old.get("status") == condition.status
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                # The API server refuses messages longer than 32,768 characters.
                "message": escaped(condition.message[:32_000])[:32_000],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"]
                if same and "lastTransitionTime" in old
                else timestamp(now),
            }
        )
    return merged


def find(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type in a status."""
    return next((item for item in conditions if item.get("type") == type_), None)
