"""The UDP endpoint of one peer: it rings the other peers' doorbells, and hears its own.

A ring is only ever a hint, so whatever goes wrong with one is counted and ignored: a datagram that cannot be sent, one
that never arrives, one that somebody else made up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bus_runtime.address import format_address, parse_address
from bus_runtime.datagram import MAX_DATAGRAM, Opener, Sealer, named_key, portions

logger = logging.getLogger(__name__)

#: Bytes to ask the kernel for in either direction; it gives what it allows. A burst must survive a busy event loop.
_BUFFER = 1024 * 1024

#: Datagrams to take per wake-up, so that a flood leaves the event loop time for others.
_MAX_PER_WAKE_UP = 64

#: Datagrams that one publish may cause in all, and per peer. Each costs this process some 5 microseconds and saves a
#: peer from reading the messages in it from the log, but meanwhile nothing else happens here.
_MAX_PER_PUBLISH = 1024
_MAX_PER_PEER = 32

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
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._targets: list[tuple[str, int]] = []
        self.counters = DoorbellCounters()
        self._loop = asyncio.get_running_loop()
        self._six = ":" in ip
        self._socket = _bind(self._six)
        try:
            self._loop.add_reader(self._socket, self._readable)
        except BaseException:
            self._socket.close()
            raise
        self.address = format_address(ip, self._socket.getsockname()[1])

    def set_roster(self, key: bytes, addresses: Iterable[str]) -> None:
        """Ring these addresses from now on, and hear and seal with that key. Our own address is left out."""
        if key != self._key:
            self._key, self._sealer, self._opener = key, Sealer(key), Opener(key)
        others = dict.fromkeys(address for address in addresses if address != self.address)
        parsed = (parse_address(address) for address in others)
        self._targets = [(self._reachable(ip), port) for ip, port in filter(None, parsed)]

    def ring(self, first_id: int, count: int, payloads: Sequence[bytes] | None = None) -> None:
        """Announce committed messages to all peers; small ones travel along."""
        if self._sealer is None or not self._targets:
            return
        at_most = min(_MAX_PER_PEER, max(1, _MAX_PER_PUBLISH // len(self._targets)))
        datagrams = [
            self._sealer.seal(first_id + start, len(portion), portion)
            for start, portion in portions(payloads or (), at_most)
        ] or [self._sealer.seal(first_id, count)]
        sendto = self._socket.sendto
        # Peer by peer, so that each finds its whole burst when it wakes up.
        for target in self._targets:
            for datagram in datagrams:
                try:
                    sendto(datagram, target)
                except OSError:
                    # No room, no route, or the other family: that peer reads the log when it looks.
                    self.counters.dropped += 1
                else:
                    self.counters.sent += 1

    def close(self) -> None:
        """Hear and ring no more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._unknown_key is not None:
            self._unknown_key.cancel()
            self._unknown_key = None
        self._targets = []

    def _reachable(self, ip: str) -> str:
        """The address as this socket's family writes it."""
        return f"::ffff:{ip}" if self._six and ":" not in ip else ip

    def _readable(self) -> None:
        for _ in range(_MAX_PER_WAKE_UP):
            try:
                # One byte more, so that what was cut off is not taken for whole.
                datagram = self._socket.recv(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                # An earlier send's failure, which some systems report here.
                continue
            self._received(datagram)
            if self._socket.fileno() < 0:
                return

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
        if self._unknown_key is None:
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


def _bind(six: bool) -> socket.socket:
    """A socket on a free port of all interfaces: the advertised address may be translated on the way to this host."""
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if six:
            # Peers with IPv4 addresses are rung through the same socket.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        made.bind(("::" if six else "0.0.0.0", 0))  # noqa: S104 - the datagrams are authenticated
    except BaseException:
        made.close()
        raise
    return made
