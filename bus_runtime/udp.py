"""A non-blocking UDP socket that sends and takes many datagrams at once, where the system can.

On Linux a burst to one peer is a single call: the kernel cuts it into datagrams of one size (UDP_SEGMENT), and puts
those that arrive together into one again (UDP_GRO). That makes a burst of twenty cost a tenth. On the network there is
no difference.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Sequence

#: Bytes to ask the kernel for in either direction; it gives what it allows. A burst must survive a busy event loop.
_BUFFER = 1024 * 1024

#: From linux/udp.h; Python has no names for them.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104

#: Bytes and datagrams that the kernel takes in one call.
_MAX_BURST = 65_536
MAX_SEGMENTS = 54


class UdpSocket:
    """Bound to a free port of all interfaces: an advertised address may be translated on the way to this host.

    Args:
        six: Whether to speak IPv6, and IPv4 through it.
        size: Bytes of the largest datagram to take.

    Raises:
        OSError: There is no such socket to be had.
    """

    def __init__(self, six: bool, size: int) -> None:
        self._six = six
        self._size = size
        self._socket = _bind(six)
        self._burst = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", size))]
        self._cuts = sys.platform == "linux"
        self._joins = False
        if self._cuts:
            self._ancillary_space = socket.CMSG_SPACE(struct.calcsize("i"))
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
                self._joins = True

    @property
    def port(self) -> int:
        """Where it is bound to."""
        return int(self._socket.getsockname()[1])

    @property
    def cuts(self) -> bool:
        """Whether a burst costs hardly more than one datagram."""
        return self._cuts

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def target(self, ip: str, port: int) -> tuple[str, int]:
        """An address as this socket's family writes it."""
        return (f"::ffff:{ip}" if self._six and ":" not in ip else ip, port)

    def send(self, datagrams: Sequence[bytes], targets: Sequence[tuple[str, int]]) -> int:
        """Send them all to each target; how many could be handed to the network.

        Args:
            datagrams: At most `MAX_SEGMENTS`, each of exactly the socket's size but for the last, which may be shorter.
            targets: As `target` gives them.
        """
        burst = b"".join(datagrams) if self._cuts and len(datagrams) > 1 else b""
        sent = 0
        # Target by target, so that each finds its whole burst when it wakes up.
        for target in targets:
            if burst and self._cuts:
                try:
                    self._socket.sendmsg([burst], self._burst, 0, target)
                except BlockingIOError:
                    continue
                except OSError:
                    # A device or a route that cannot do it; or the peer cannot be reached at all.
                    one_by_one = self._send_one_by_one(datagrams, target)
                    self._cuts = one_by_one == 0
                    sent += one_by_one
                else:
                    sent += len(datagrams)
            else:
                sent += self._send_one_by_one(datagrams, target)
        return sent

    def receive(self) -> list[bytes] | None:
        """The next datagrams; None when there are none."""
        while True:
            try:
                if not self._joins:
                    # One byte more, so that what was cut off is not taken for whole.
                    return [self._socket.recv(self._size + 1)]
                data, ancillary, _, _ = self._socket.recvmsg(_MAX_BURST, self._ancillary_space)
            except BlockingIOError:
                return None
            except OSError:
                # An earlier send's failure, which some systems report here.
                continue
            for level, kind, value in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    (size,) = struct.unpack("i", value)
                    return [data[start : start + size] for start in range(0, len(data), size)]
            return [data]

    def _send_one_by_one(self, datagrams: Sequence[bytes], target: tuple[str, int]) -> int:
        sent = 0
        for datagram in datagrams:
            try:
                self._socket.sendto(datagram, target)
            except OSError:
                # No room, no route, or the other family.
                continue
            sent += 1
        return sent


def _bind(six: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        made.bind(("::" if six else "0.0.0.0", 0))  # noqa: S104 - what arrives is authenticated
    except BaseException:
        made.close()
        raise
    return made
