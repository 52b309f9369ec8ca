"""What is promised, as data: the table of docs/reliability.md, which says it in words and gives the reasons.

A `Promise` is a channel's: how durable its messages are, and so what a fault of the server may cost. With what a peer
is (its name, its client, when it acknowledges) it makes a `PeerPromise`: what becomes of messages when that peer's
process ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from chaos.history import Fault

Durability = Literal["Sync", "Async", "Unlogged"]
Acknowledge = Literal["on_handled", "on_dispatch"]
Client = Literal["bus_runtime", "pipecat"]

#: Messages that a server may not have written yet are at most so many times wal_writer_delay old: see PostgreSQL's
#: documentation, "Asynchronous Commit".
_WRITER_DELAYS = 3


@dataclass(frozen=True, slots=True)
class PeerPromise:
    """What a peer may rely on, beyond what its channel promises everybody.

    Attributes:
        resumes: Its name joins again where it had acknowledged: what is published while it is away, it gets. Without,
            its life ends with its process.
        lost_in_hand: At most so many messages a killed process takes with it: handed to it, and not handled.
        repeats_itself: One process may be handed a message twice, after a fault. Without, only the next process of a
            name is handed again what the former one had not acknowledged.
        ordered_calls: Messages of one of its processes are in the log in the order of the calls of `publish`, also of
            those that did not wait for each other. Without, only in the order of calls that did.
    """

    resumes: bool
    lost_in_hand: int
    repeats_itself: bool
    ordered_calls: bool

    @classmethod
    def of(
        cls, *, named: bool, acknowledge: Acknowledge, client: Client = "bus_runtime", in_hand: int = 1000
    ) -> PeerPromise:
        """The cell of the table for this kind of peer.

        Args:
            named: Whether it has a durable name.
            acknowledge: When it acknowledges.
            client: Which client it is; pipecat's acknowledges when it has dispatched, whatever `acknowledge` says.
            in_hand: How many messages each of its subscribers may hold.
        """
        return cls(
            resumes=named,
            lost_in_hand=in_hand if named and acknowledge == "on_dispatch" else 0,
            repeats_itself=client == "pipecat",
            ordered_calls=client == "bus_runtime",
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """What a channel promises.

    Attributes:
        durability: The channel's.
        standby: What a failover goes to: a standby that commits wait for, or one that they do not wait for.
        wal_writer_delay: The server's setting, in seconds.
        replication_lag: How many seconds the standby was behind at most, with what nobody waits for.
        trims: Whether messages may go before a peer read them, if it is told: the channel has a retention, or a peer
            was away for longer than its peer timeout.
    """

    durability: Durability = "Sync"
    standby: Literal["synchronous", "asynchronous"] = "synchronous"
    wal_writer_delay: float = 0.2
    replication_lag: float = 0.0
    trims: bool = False

    def forgotten(self, fault: Fault) -> float | None:
        """How old messages are at most, in seconds, that such a fault may take from those who had not read them.

        None: it takes none. Infinity: all of them.
        """
        if fault == "disruption":
            return None
        if self.durability == "Unlogged":
            return math.inf
        unwritten = _WRITER_DELAYS * self.wal_writer_delay if self.durability == "Async" else 0.0
        if fault == "failover" and (self.standby == "asynchronous" or self.durability == "Async"):
            # Nobody waits for any standby with what is Async.
            return unwritten + self.replication_lag
        return unwritten or None
