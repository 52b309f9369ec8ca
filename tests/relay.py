"""A network between doorbells that does what a test says: a relay before each, whose address is the advertised one."""

import asyncio
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bus_runtime.address import parse_address
from bus_runtime.doorbell import Doorbell

#: Datagrams that a relay remembers: it may pass on thousands a second, for hours.
_REMEMBERED = 1000

#: What becomes of a datagram: copies, each after so many seconds.
Fault = Callable[[bytes], Iterable[tuple[float, bytes]]]


def deliver(datagram: bytes) -> Iterable[tuple[float, bytes]]:
    return [(0, datagram)]


def block(_: bytes) -> Iterable[tuple[float, bytes]]:
    return []


def lose(rng: random.Random, share: float) -> Fault:
    return lambda datagram: [] if rng.random() < share else [(0, datagram)]


def disorder(rng: random.Random, seconds: float, copies: int) -> Fault:
    """So many copies, each delayed by up to so many seconds."""
    return lambda datagram: [(rng.uniform(0, seconds), datagram) for _ in range(copies)]


def damage(rng: random.Random) -> Fault:
    """The datagram, and a copy with a bit turned."""

    def fault(datagram: bytes) -> Iterable[tuple[float, bytes]]:
        damaged = bytearray(datagram)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        return [(0, bytes(damaged)), (0, datagram)]

    return fault


@dataclass
class Relay:
    """What stands before one doorbell."""

    doorbell: Doorbell
    fault: Fault = deliver
    seen: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = parse_address(self.doorbell.address)
        assert target is not None
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._loop.add_reader(self._socket, self._readable)
        self.doorbell.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def send(self, datagram: bytes) -> None:
        """Past all faults."""
        if self._socket.fileno() >= 0:
            self._socket.sendto(datagram, self._target)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(65536)
            except BlockingIOError:
                return
            self.seen.append(datagram)
            del self.seen[:-_REMEMBERED]
            for delay, copy in self.fault(datagram):
                if delay:
                    self._loop.call_later(delay, self.send, copy)
                else:
                    self.send(copy)


class Network:
    """The relays of all doorbells, in the order in which those were hung; `open_doorbell` replaces the real one."""

    def __init__(self, open_doorbell: Callable[..., Doorbell | None]) -> None:
        self._open_doorbell = open_doorbell
        self.fault: Fault = deliver
        self.relays: list[Relay] = []

    def open_doorbell(self, *arguments: Any) -> Doorbell | None:
        doorbell = self._open_doorbell(*arguments)
        if doorbell is not None:
            relay = Relay(doorbell, self.fault)
            self.relays.append(relay)
            close = doorbell.close

            def close_both() -> None:
                relay.close()
                close()

            doorbell.close = close_both  # type: ignore[method-assign]
        return doorbell

    def become(self, fault: Fault) -> None:
        """For all doorbells from now on."""
        self.fault = fault
        for relay in self.relays:
            relay.fault = fault

    def close(self) -> None:
        for relay in self.relays:
            relay.close()
