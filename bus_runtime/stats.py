"""What a bus counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BusState = Literal["stopped", "running", "refused"]


@dataclass(slots=True)
class Counters:
    """Running totals since the bus was made; the parts of a bus share one instance."""

    published: int = 0
    publish_errors: int = 0
    received: int = 0
    handled: int = 0
    undecodable: int = 0
    lost: int = 0
    reconnects: int = 0
    rejoined: int = 0
    redelivered: int = 0
    announced: int = 0
    overlooked: int = 0


@dataclass(frozen=True, slots=True)
class BusStats:
    """A snapshot of a `PgmqBus`. Counts are totals since the bus was made.

    Attributes:
        state: `running`; `stopped`; or `refused`: a durable peer whose queue the server no longer accepts
            (see `PeerRefusedError`).
        wake: How new messages are noticed: `doorbell` (announced by their publishers), `listen` (notified by the
            server) or `poll`.
        published: Messages the backend accepted.
        publish_errors: Messages that were not published, or whose outcome is unknown.
        received: Messages read from the channel, undecodable ones included.
        handled: Messages every subscriber of this process is through with.
        handler_errors: Exceptions raised by subscribers.
        undecodable: Messages set aside because they could not be decoded.
        lost: Messages trimmed from the log before this peer read them (an upper bound).
        redelivered: Messages received again that an earlier process of this durable peer had not acknowledged.
        announced: Messages that came with their announcement and were not read from the log, of those received.
        overlooked: Times that messages were found in the log which should have been announced and were not.
        reconnects: Outages of reading that ended.
        rejoined: Times that the server did not know this peer any more, and it joined anew.
        position: Id of the last message read; None for backends without a log.
        acknowledged: Id up to which the server knows everything is handled; None as above.
        in_flight: Messages read and not yet handled.
        queued: Messages that subscribers hold, waiting or under way; one that several hold counts for each.
        queued_bytes: Bytes of their JSON.
        lagging: Subscribers that have as many messages as they may hold, and how many messages at most they are behind
            what this process has read. 0: nobody here is further, and reading waits.
        generation: Generation of the binding's credentials in use; None where there is no binding.
    """

    state: BusState
    wake: str
    published: int
    publish_errors: int
    received: int
    handled: int
    handler_errors: int
    undecodable: int
    lost: int
    redelivered: int
    announced: int
    overlooked: int
    reconnects: int
    rejoined: int
    position: int | None
    acknowledged: int | None
    in_flight: int
    queued: int
    queued_bytes: int
    lagging: dict[str, int]
    generation: str | None
