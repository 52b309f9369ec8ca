"""What the checker says: which promises were broken, by which messages, for whom, when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

#: Violations of one promise that are described; of further ones there is the count.
_DESCRIBED = 10


class Broken(StrEnum):
    """A promise that can be broken, in the words of docs/reliability.md."""

    LOST = "lost: an acknowledged message did not reach a peer that was joined"
    UNTOLD = "lost untold: more messages were trimmed than a peer was told of"
    PARTIAL = "partial: a message reached some peers and not others that were joined"
    HOLE = "hole: a fault took messages from the middle of the log, not from its end"
    DUPLICATE = "duplicate: a message came again without a cause"
    PUBLISHER_ORDER = "publisher order: messages of one publisher came in another order than that of its calls"
    REAL_TIME_ORDER = "real-time order: a message came before one whose publish had returned before its own began"
    TOTAL_ORDER = "total order: peers saw messages in different orders"
    PHANTOM = "phantom: a message came that nobody published"
    FAILED = "failed and delivered: a message came whose publish had certainly failed"
    CHANNEL = "cross-channel: a message came on another channel than it was published to"
    EARLY = "from before: a peer got a message that was published before it joined"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise.

    Attributes:
        broken: Which.
        text: By which message, for whom, when.
    """

    broken: Broken
    text: str

    def __str__(self) -> str:
        return f"{self.broken}\n    {self.text}"


@dataclass(slots=True)
class Tally:
    """What the histories hold.

    Attributes:
        events: Lines.
        published: Messages whose publish returned.
        unknown: Messages whose outcome their publisher does not know, or did not live to see.
        failed: Messages that were certainly not published.
        received: Deliveries to peers, repetitions included.
        repeated: Deliveries of what a peer had been handed before, with a cause.
        forgiven: Messages that a peer missed, within what a fault may take.
        told: Messages that peers were told had been lost to them.
        peers: Peers.
        processes: Processes.
    """

    events: int = 0
    published: int = 0
    unknown: int = 0
    failed: int = 0
    received: int = 0
    repeated: int = 0
    forgiven: int = 0
    told: int = 0
    peers: int = 0
    processes: int = 0

    def __str__(self) -> str:
        return (
            f"{self.published} published, {self.unknown} with unknown outcome, {self.failed} failed; {self.received} "
            f"received by {self.peers} peers in {self.processes} processes, {self.repeated} of them again; "
            f"{self.forgiven} missed as promised, {self.told} told lost; {self.events} events"
        )


@dataclass(slots=True)
class Verdict:
    """What became of the promises. True as a condition when all were kept.

    Attributes:
        violations: The first ones of each promise.
        counts: How many there are of each promise.
        tally: What the histories hold.
    """

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[Broken] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    def __bool__(self) -> bool:
        return not self.counts

    def __str__(self) -> str:
        if self:
            return f"all promises kept: {self.tally}"
        lines = [f"PROMISES BROKEN: {self.tally}"]
        for broken, count in self.counts.items():
            described = [violation.text for violation in self.violations if violation.broken is broken]
            more = [f"and {count - len(described)} more"] if count > len(described) else []
            lines += [f"  {broken} ({count})", *(f"    - {text}" for text in described + more)]
        return "\n".join(lines)

    def add(self, broken: Broken, text: str) -> None:
        """Note a violation."""
        self.counts[broken] += 1
        if self.counts[broken] <= _DESCRIBED:
            self.violations.append(Violation(broken, text))
