"""What all checks of one channel work on."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from chaos.observed import FOREIGN, NEVER, Channel, Observed
from chaos.promises import Promise
from chaos.verdict import Verdict

SECOND = 1_000_000_000


@dataclass(eq=False, slots=True)
class Case:
    """One channel, and what was found out about it.

    Attributes:
        channel: The channel.
        observed: All that happened.
        promise: What the channel promises.
        verdict: Where violations are noted.
        seen_at: When each message was seen first, by whomever.
        position: Of each message in the order of all, or -1; see `Graph.sort`.
        certain: Whether each message certainly precedes all that have a higher position.
    """

    channel: Channel
    observed: Observed
    promise: Promise
    verdict: Verdict
    seen_at: array[int] = field(init=False)
    position: array[int] = field(init=False)
    certain: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.seen_at = array("q", [NEVER]) * len(self.channel.names)
        for incarnation in self.channel.incarnations:
            for message, when in zip(incarnation.received, incarnation.received_at, strict=True):
                if when < self.seen_at[message]:
                    self.seen_at[message] = when

    def when(self, time: int) -> str:
        """A time as seconds since the beginning."""
        return f"{(time - self.observed.began) / SECOND:.3f} s"

    def describe(self, message: int) -> str:
        """A message and its publish."""
        channel, name = self.channel, self.channel.names[message]
        if channel.outcome[message] == FOREIGN:
            return name
        returned = channel.returned[message]
        end = f" to {self.when(returned)}" if returned < NEVER else ", without an acknowledgement"
        return f"{name} (published {self.when(channel.invoked[message])}{end})"

    def precedes(self, message: int, position: int) -> bool:
        """Whether a message certainly comes before what has that position."""
        return bool(self.certain[message]) and 0 <= self.position[message] < position
