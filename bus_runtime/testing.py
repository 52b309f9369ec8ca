"""The channel log in memory, so that applications can test what they do on a bus without PostgreSQL.

    broker = InMemoryBroker()
    bus = PgmqBus(backend=InMemoryBackend(broker), channel="orders")

Buses whose backends share a broker exchange messages as processes on one channel do: same order for
everyone, a cursor per peer, durable peers, redelivery of what a durable peer did not acknowledge. Messages are
serialized on the way, so what would not survive the wire does not survive here either.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from bus_runtime.backend import JoinOptions, LogRecord, Membership, Offer, Wake, Waker
from bus_runtime.errors import AccessDeniedError, PeerRefusedError, RejectedError
from bus_runtime.facade import ReferenceMethods


@dataclass
class _Peer:
    name: str | None
    acknowledged: int
    delivered: int
    since: int = 0


@dataclass
class _Channel:
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    joins: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    head: int = 0
    trimmed: int = 0
    log: dict[int, bytes] = field(default_factory=dict)
    peers: dict[str, _Peer] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)

    def trim(self) -> None:
        floor = min((peer.acknowledged for peer in self.peers.values()), default=self.head)
        for msg_id in [i for i in self.log if i <= floor]:
            del self.log[msg_id]
        self.trimmed = max(self.trimmed, floor)


class InMemoryBroker:
    """What the database is for real backends: share one between the backends of a test.

    Args:
        max_message_bytes: Largest message, in bytes of JSON.
    """

    def __init__(self, *, max_message_bytes: int = 1024 * 1024) -> None:
        self.max_message_bytes = max_message_bytes
        self._channels: dict[str, _Channel] = {}

    def channel(self, name: str) -> _Channel:
        """The channel of that name; it exists once it is asked for."""
        return self._channels.setdefault(name, _Channel())

    def backlog(self, name: str) -> int:
        """How many messages of a channel some peer has not acknowledged."""
        return len(self.channel(name).log)

    def drop_peers(self, name: str) -> None:
        """Forget all peers of a channel, as the server does with those that were silent for too long."""
        self.channel(name).peers.clear()


class InMemoryBackend(ReferenceMethods):
    """A `LogBackend` and `PgmqBackend` over an `InMemoryBroker`."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__()
        self._broker = broker

    async def join_channel(self, channel: str, options: JoinOptions) -> Membership:
        """Become a peer at the head, or where the durable peer was.

        Raises:
            PeerRefusedError: `options.since` claims a place that a later process has.
        """
        state = self._broker.channel(channel)
        queue = uuid.uuid4().hex
        known = next((q for q, p in state.peers.items() if options.peer is not None and p.name == options.peer), None)
        former = None if known is None else state.peers[known]
        since = next(state.joins)
        if options.since is not None:
            since = int(options.since)
            if former is not None and former.since > since:
                raise PeerRefusedError("another process joined under the same name", sqlstate="BUS01")
        if known is not None:
            del state.peers[known]
        position = state.head if former is None else former.acknowledged
        delivered = position if former is None else former.delivered
        state.peers[queue] = _Peer(options.peer, acknowledged=position, delivered=delivered, since=since)
        return Membership(
            queue=queue,
            position=position,
            delivered=delivered,
            wake=f"{channel}/{queue}",
            max_message_bytes=self._broker.max_message_bytes,
            peer_timeout_seconds=600.0,
            resumed=known is not None,
            head=state.head,
            since=None if options.peer is None else str(since),
        )

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """Append to the log and offer it to the peers."""
        state = self._broker.channel(channel)
        self._peer(channel, queue)
        for payload in payloads:
            if len(payload) > self._broker.max_message_bytes:
                raise RejectedError(f"message of {len(payload)} bytes is too large", sqlstate="54000")
        ids = []
        for payload in payloads:
            state.head = next(state.ids)
            state.log[state.head] = payload
            ids.append(state.head)
        for peer, offer in list(state.offers.items()):
            if ids and peer in state.peers:
                offer(ids[0], payloads)
        return ids

    async def read_after(
        self, channel: str, queue: str, *, after: int, acknowledge: int | None, limit: int
    ) -> list[LogRecord]:
        """Read from an explicit position, and acknowledge."""
        state, peer = self._broker.channel(channel), self._peer(channel, queue)
        # Messages may have come with their announcement: where the reader stands is what it was given.
        peer.delivered = max(peer.delivered, min(after, state.head))
        if acknowledge is not None and peer.acknowledged < acknowledge <= peer.delivered:
            peer.acknowledged = acknowledge
            state.trim()
        if limit == 0:
            return []
        records = []
        if after < state.trimmed:
            records.append(LogRecord(state.trimmed, None, lost=state.trimmed - after))
        records += [LogRecord(i, payload) for i, payload in state.log.items() if i > after][:limit]
        if records:
            peer.delivered = max(peer.delivered, records[-1].msg_id)
        return records

    async def leave_channel(self, channel: str, queue: str, *, forget: bool) -> None:
        """Leave; with `forget` the peer is gone."""
        if forget:
            state = self._broker.channel(channel)
            state.peers.pop(queue, None)
            state.trim()

    def waker(self, membership: Membership) -> Waker:
        """Offered each publish."""
        channel, _, queue = str(membership.wake).rpartition("/")
        return _BrokerWaker(self._broker.channel(channel), queue)

    async def close(self) -> None:
        """Nothing to close."""

    def _peer(self, channel: str, queue: str) -> _Peer:
        peer = self._broker.channel(channel).peers.get(queue)
        if peer is None:
            raise AccessDeniedError("bus: access denied", sqlstate="42501")
        return peer


class _BrokerWaker:
    mode = "doorbell"

    def __init__(self, channel: _Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue

    @property
    def audience(self) -> int:
        return max(1, len(self._channel.peers))

    async def start(self, wake: Wake, offer: Offer) -> None:
        self._channel.offers[self._queue] = offer

    def overlooked(self) -> None:
        raise AssertionError("the broker announces everything")

    async def close(self) -> None:
        self._channel.offers.pop(self._queue, None)
