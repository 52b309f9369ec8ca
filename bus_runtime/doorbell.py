"""The UDP endpoint of one peer: it rings the other peers' doorbells, and hears its own.

A ring is only ever a hint, so whatever goes wrong with one is counted and ignored: a datagram that cannot be sent, one
that never arrives, one that somebody else made up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bus_runtime.address import format_address, parse_address
from bus_runtime.datagram import MAX_DATAGRAM, Opener, Sealer, named_key, portions
from bus_runtime.udp import MAX_SEGMENTS, UdpSocket

logger = logging.getLogger(__name__)

#: Datagrams to take per wake-up, or a few more, so that a flood leaves the event loop time for others.
_MAX_PER_WAKE_UP = 64

#: Calls of some 5 microseconds that one publish may cause. They save the peers from reading the messages from the log,
#: but meanwhile nothing else happens in this process.
_MAX_CALLS_PER_PUBLISH = 512

#: Seconds between reports of a key that is not ours: anybody can claim one.
_UNKNOWN_KEY_INTERVAL = 1.0

#: Told of what was announced: the first id, how many there are, and the messages if they travelled along.
OnRing = Callable[[int, int, Sequence[bytes] | None], None]


@dataclass(slots=True)
class DoorbellCounters:
    """Datagrams so far.

    Attributes:
        sent: Handed to the network.
        dropped: Could not even be sent.
        rung: Arrived, and announced something.
        forged: Arrived, and were not sealed with the channel's key.
    """

    sent: int = 0
    dropped: int = 0
    rung: int = 0
    forged: int = 0


class Doorbell:
    """A bound socket, heard from now on until `close`. Made by `open_doorbell`.

    Args:
        ip: The address to advertise.
        on_ring: Called for each genuine datagram.
        on_unknown_key: Called, at most once a second, when a datagram names another key: ours may be outdated.

    Raises:
        OSError: There is no such socket to be had.
        NotImplementedError: The event loop cannot watch one.
    """

    def __init__(
        self,
        ip: str,
        on_ring: OnRing,
        on_unknown_key: Callable[[], None],
    ) -> None:
        self._on_ring = on_ring
        self._on_unknown_key = on_unknown_key
        self._unknown_key_at = float("-inf")
        self._unknown_key: asyncio.TimerHandle | None = None
        self._key: bytes | None = None
        self._prepared: tuple[Sealer, int, bytes, bytes] | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._targets: list[tuple[str, int]] = []
        self.counters = DoorbellCounters()
        self._loop = asyncio.get_running_loop()
        self._socket = UdpSocket(":" in ip, MAX_DATAGRAM)
        try:
            self._loop.add_reader(self._socket, self._readable)
        except BaseException:
            self._socket.close()
            raise
        self.address = format_address(ip, self._socket.port)

    def set_roster(self, key: bytes, addresses: Iterable[str]) -> None:
        """Ring these addresses from now on, and hear and seal with that key. Our own address is left out."""
        if key != self._key:
            self._key, self._sealer, self._opener = key, Sealer(key), Opener(key)
        others = dict.fromkeys(address for address in addresses if address != self.address)
        self._targets = [self._socket.target(*parsed) for parsed in map(parse_address, others) if parsed is not None]

    def ring(self, first_id: int, count: int, payloads: Sequence[bytes] | None = None) -> None:
        """Announce committed messages to all peers; small ones travel along."""
        if self._sealer is None or not self._targets:
            return
        datagrams = self._seal(self._sealer, first_id, payloads or ()) or [self._sealer.seal(first_id, count)]
        sent = self._socket.send(datagrams, self._targets)
        self.counters.sent += sent
        # Those peers read the log when they look.
        self.counters.dropped += len(datagrams) * len(self._targets) - sent

    def prepare(self, first_id: int, payload: bytes) -> None:
        """Seal what is probably about to be rung: a lone message with that id. Costs nothing but time if it is not."""
        if self._sealer is not None and self._targets:
            self._prepared = (self._sealer, first_id, payload, self._sealer.seal(first_id, 1, (payload,)))

    def close(self) -> None:
        """Hear and ring no more."""
        if not self._socket.closed:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._unknown_key is not None:
            self._unknown_key.cancel()
            self._unknown_key = None
        self._targets = []

    def _seal(self, sealer: Sealer, first_id: int, payloads: Sequence[bytes]) -> list[bytes]:
        """The messages in as many datagrams as it takes; none if that were too many."""
        if len(payloads) == 1:
            prepared, self._prepared = self._prepared, None
            if prepared is not None and prepared[:3] == (sealer, first_id, payloads[0]):
                return [prepared[3]]
            return [sealer.seal(first_id, 1, payloads)]
        calls = max(1, _MAX_CALLS_PER_PUBLISH // len(self._targets))
        carried = portions(payloads, MAX_SEGMENTS if self._socket.cuts else min(calls, MAX_SEGMENTS))
        last = len(carried) - 1
        return [
            sealer.seal(first_id + start, len(portion), portion, fill=index < last)
            for index, (start, portion) in enumerate(carried)
        ]

    def _readable(self) -> None:
        datagrams = self._socket.receive()
        if datagrams is None:
            return
        for datagram in datagrams:
            self._received(datagram)
        # It came alone, as a rule: whoever is to handle it has a turn before anybody asks whether there is more.
        self._loop.call_soon(self._take_rest)

    def _take_rest(self) -> None:
        taken = 0
        while taken < _MAX_PER_WAKE_UP and not self._socket.closed:
            datagrams = self._socket.receive()
            if datagrams is None:
                return
            taken += len(datagrams)
            for datagram in datagrams:
                self._received(datagram)

    def _received(self, datagram: bytes) -> None:
        ring = None if self._opener is None else self._opener.open(datagram)
        if ring is not None:
            self.counters.rung += 1
            self._on_ring(ring.first_id, ring.count, ring.payloads)
            return
        self.counters.forged += 1
        named = named_key(datagram)
        if named is None or (self._opener is not None and named == self._opener.key_id):
            return
        if self._unknown_key is None and not self._socket.closed:
            # Late rather than never: the key may have changed once more.
            due = self._unknown_key_at + _UNKNOWN_KEY_INTERVAL
            self._unknown_key = self._loop.call_at(max(due, self._loop.time()), self._report_unknown_key)

    def _report_unknown_key(self) -> None:
        self._unknown_key = None
        self._unknown_key_at = self._loop.time()
        self._on_unknown_key()


def open_doorbell(ip: str | None, on_ring: OnRing, on_unknown_key: Callable[[], None]) -> Doorbell | None:
    """A doorbell to be reached at `ip`; None where that is None or no such socket can be had, which is logged.

    Args:
        ip: As `address.advertised_ip` gives it.
        on_ring: See `Doorbell`.
        on_unknown_key: See `Doorbell`.
    """
    if ip is None:
        return None
    try:
        return Doorbell(ip, on_ring, on_unknown_key)
    except (OSError, NotImplementedError) as exc:
        logger.warning("no doorbell, other peers cannot wake this one directly: %s: %s", type(exc).__name__, exc)
        return None
