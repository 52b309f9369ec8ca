"""What a bus needs from a transport: the reference client's five methods, and the fuller log of `pgmq_bus_v1`.

`PgmqBackend` is the protocol of pipecat-ai 1.14 (`pipecat.bus.network.pgmq_backends`), kept exactly, so
that backends written for either client work with both. `LogBackend` is what the channel log offers beyond
it: an explicit cursor, acknowledgements in order, batches, durable peers, wake-ups. `PgmqBus`
uses it where the backend has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass
class BackendMessage:
    """One message as a `PgmqBackend` returns it; `message` is the decoded JSON object."""

    msg_id: int
    message: dict[str, Any]


@runtime_checkable
class PgmqBackend(Protocol):
    """The reference client's view of a transport. One backend may serve several buses."""

    async def join(self, channel: str) -> str:
        """Become a peer of `channel`; the opaque name of the queue to read from."""
        ...

    async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
        """Send `payload` to the peers of `channel`."""
        ...

    async def read(
        self,
        queue: str,
        *,
        channel: str,
        vt: int,
        qty: int,
        max_poll_seconds: int,
        poll_interval_ms: int,
    ) -> list[BackendMessage]:
        """Wait at most `max_poll_seconds` for up to `qty` messages; unarchived ones return after `vt` seconds."""
        ...

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        """Acknowledge a message."""
        ...

    async def leave(self, queue: str, *, channel: str) -> None:
        """Stop being a peer; the queue is gone afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What a peer says about itself when it joins; the operator shows it in the channel's status.

    Attributes:
        peer: Durable name: the same name continues at its acknowledged position. None: an unnamed peer,
            which starts at the head and is dropped when it leaves.
        application: Name of the application.
        host: Host or pod name.
        runtime: Client library and version.
        since: `Membership.since` of a durable peer that the server does not know any more: it claims its place, and is
            refused (`PeerRefusedError`) if another process joined later.
    """

    peer: str | None = None
    application: str | None = None
    host: str | None = None
    runtime: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """What joining gave: who we are on the channel, and the channel's limits.

    Attributes:
        queue: Opaque name of this peer, the key of its cursor.
        position: Id of the last acknowledged message; reading continues after it.
        delivered: Id up to which an earlier process of this durable peer was handed messages: what it did not
            acknowledge is delivered again.
        wake: What to wait on for new messages (a secret); None when there is nothing but polling.
        max_message_bytes: Largest message the channel takes, in bytes of JSON; None: no limit known.
        peer_timeout_seconds: A peer that is not heard of for longer may be dropped.
        resumed: Whether a durable peer was found and continues.
        announced: Whether whatever comes after `position` is rung for. With a doorbell there is nothing to look for
            then, to begin with: in a new session, the first call of a function costs the server most.
        head: Id of the newest message that the log ever held; None where it is `position`, as for a peer that is new.
        since: When a durable peer joined, for `JoinOptions.since`; None where a place cannot be claimed: a server with
            an older schema.
    """

    queue: str
    position: int
    delivered: int
    wake: str | None
    max_message_bytes: int | None
    peer_timeout_seconds: float
    resumed: bool
    announced: bool = False
    head: int | None = None
    since: str | None = None

    def continues(self, position: int) -> bool:
        """Whether this is the log in which a reader got as far as `position`, so that it may go on there.

        No id is given twice, not even after a crash: what comes after the last one is new to it. One that was made anew
        does not reach as far.
        """
        return position <= (self.position if self.head is None else self.head)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One entry read from the log: either a message's JSON, or a gap.

    Attributes:
        msg_id: Id of the message, or of the last one of the gap.
        payload: The message as JSON bytes; None for a gap.
        lost: At most how many messages of the gap were trimmed while this peer was away. 0 for a gap that only
            holds what is not delivered to this peer, such as its own messages on a channel without self delivery.
    """

    msg_id: int
    payload: bytes | None
    lost: int = 0


class Wake(Protocol):
    """Tells a reader that there may be new messages: up to that id if it is known."""

    def __call__(self, up_to: int | None = None) -> None:
        """Wake it."""
        ...


#: Takes announced messages: the id of the first, and their JSON in the order of their ids, which ascend without a gap.
#: None stands for a message that is not for this peer.
Offer = Callable[[int, Sequence[bytes | None]], None]


class Waker(Protocol):
    """Tells a reader that there may be something to read. Spurious calls are harmless, missed ones are made up for."""

    @property
    def mode(self) -> str:
        """How waking works right now: `doorbell`, `listen` or `poll`; with `poll` the reader must look by itself."""
        ...

    @property
    def audience(self) -> int:
        """How many peers the channel has, as far as is known; at least 1. Acknowledgements are paced by it."""
        ...

    async def start(self, wake: Wake, offer: Offer) -> None:
        """Begin to call `wake` whenever there may be new messages, or none were watched for a while.

        Where messages come with the announcement they are offered instead. A reader that stands just before them
        may take them; anybody else takes the offer for a wake-up and reads the log, which alone is the truth.
        """
        ...

    def overlooked(self) -> None:
        """The reader found messages by itself that nothing had announced: another way of waking may be better."""
        ...

    async def close(self) -> None:
        """Stop calling."""
        ...


@runtime_checkable
class LogBackend(Protocol):
    """A channel log with one cursor per peer, as `pgmq_bus_v1` offers it.

    Methods raise subclasses of `BackendError`; `BackendError.retryable` tells whether repeating is safe.
    """

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        """Become a peer of `channel`. Repeating is safe: an unused peer expires."""
        ...

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """Append JSON messages to the log, all or none; their ids, ascending in the given order."""
        ...

    async def read_after(
        self,
        channel: str,
        queue: str,
        *,
        after: int,
        acknowledge: int | None,
        limit: int,
    ) -> list[LogRecord]:
        """At most `limit` records with an id above `after`, in order, at once.

        Acknowledges everything up to `acknowledge`, and tells the server that this peer lives. With a `limit` of 0
        that is all it does.
        """
        ...

    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        """Release what reading this queue held; with `forget` the server drops the peer as well."""
        ...

    def waker(self, membership: Membership) -> Waker:
        """What wakes a reader of this membership."""
        ...

    async def close(self) -> None:
        """Close the connections that this backend opened itself."""
        ...
