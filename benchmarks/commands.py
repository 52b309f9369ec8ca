"""What the benchmark tells its processes, and what they answer. All of it is pickled. Times are in nanoseconds."""

from array import array
from dataclasses import dataclass, field

from benchmarks.clients.base import Endpoint


@dataclass(frozen=True)
class Connect:
    """Join all these channels, all at once; with `receive`, with a handler that records what arrives."""

    endpoints: tuple[Endpoint, ...]
    receive: bool


@dataclass(frozen=True)
class Connected:
    """How many joined, in how many seconds, and why the others did not."""

    joined: int
    seconds: float
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Publish:
    """Publish on every connection of the process.

    Attributes:
        size: Characters of padding in each message.
        in_flight: Publishes at once, on each connection.
        count: Stop after so many, in the whole process.
        seconds: Stop after so long.
        rate: Start so many a second, evenly spaced; None: as fast as they return.
        gap: Pause at random between these numbers of seconds after each.
        warm_up: Whether the receivers leave these out.
    """

    size: int
    in_flight: int = 1
    count: int | None = None
    seconds: float | None = None
    rate: float | None = None
    gap: tuple[float, float] | None = None
    warm_up: bool = False


@dataclass(frozen=True)
class Published:
    """How many were taken, what went wrong, how long it all took and, if so asked by `gap`, each call."""

    count: int
    errors: int
    first_error: str | None
    seconds: float
    calls: "array[int]"

    @property
    def per_second(self) -> float:
        """The rate of those taken."""
        return self.count / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Receive:
    """Wait for so many messages since the last `Reset`, as long as some arrive; answer with all there are.

    Attributes:
        expected: Number of messages that will arrive.
        timeout: Seconds to wait at most.
        quiet: Seconds without any arrival after which no more are expected.
        warm_up: Wait for messages of a warm-up instead.
    """

    expected: int
    timeout: float
    quiet: float = 3.0
    warm_up: bool = False


@dataclass(frozen=True)
class Received:
    """What the handlers of one process were given: when each arrived, and how long after its publish call."""

    count: int
    arrived: "array[int]" = field(repr=False)
    latencies: "array[int]" = field(repr=False)

    @property
    def first_published(self) -> int:
        """When the first of them was published.

        Raises:
            ValueError: There are none.
        """
        return min(at - latency for at, latency in zip(self.arrived, self.latencies, strict=True))


@dataclass(frozen=True)
class Reset:
    """Forget what was received."""


@dataclass(frozen=True)
class Resume:
    """Let stalled handlers go on."""


@dataclass(frozen=True)
class Memory:
    """Answer with the resident bytes of the process."""


@dataclass(frozen=True)
class Stop:
    """Leave all channels and end."""


Command = Connect | Publish | Receive | Reset | Resume | Memory | Stop


@dataclass(frozen=True)
class Failed:
    """A command was not carried out."""

    reason: str
