"""Bursts over real sockets, with what the system can do and without."""

import errno
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bus_runtime.udp import MAX_SEGMENTS, UdpSocket

SIZE = 1200
BURST = [bytes([n]) * SIZE for n in range(MAX_SEGMENTS - 1)] + [b"last"]


@pytest.fixture
def receiver() -> Iterator[UdpSocket]:
    receiver = UdpSocket(False, SIZE)
    yield receiver
    receiver.close()


@pytest.fixture
def sender() -> Iterator[UdpSocket]:
    sender = UdpSocket(False, SIZE)
    yield sender
    sender.close()


def drain(receiver: UdpSocket, count: int) -> list[bytes]:
    taken: list[bytes] = []
    deadline = time.monotonic() + 5
    while len(taken) < count and time.monotonic() < deadline:
        taken += receiver.receive() or []
    assert receiver.receive() is None
    return taken


class Refusing:
    """A socket whose bursts fail with an error, and whose single datagrams do if told so."""

    def __init__(self, real: Any, error: int, single: bool = False) -> None:
        self._real = real
        self._error = error
        self._single = single

    def sendmsg(self, *_: object) -> int:
        raise OSError(self._error, "refused")

    def sendto(self, *arguments: Any) -> int:
        if self._single:
            raise OSError(self._error, "refused")
        return int(self._real.sendto(*arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize(("cuts", "joins"), [*itertools.product([True, False], repeat=2)])
def test_a_burst_arrives_whole(sender: UdpSocket, receiver: UdpSocket, cuts: bool, joins: bool) -> None:
    sender._cuts = cuts and sender._cuts
    if not joins and receiver._joins:
        receiver._socket.setsockopt(17, 104, 0)
        receiver._joins = False
    target = sender.target("127.0.0.1", receiver.port)
    assert sender.send(BURST, [target, target]) == 2 * len(BURST)
    assert drain(receiver, 2 * len(BURST)) == BURST * 2
    assert sender.send([b"alone"], [target]) == 1
    assert drain(receiver, 1) == [b"alone"]


def test_where_bursts_are_refused_datagrams_go_one_by_one(sender: UdpSocket, receiver: UdpSocket) -> None:
    sender._cuts = True
    refusing: Any = Refusing(sender._socket, errno.EIO)
    sender._socket = refusing
    target = sender.target("127.0.0.1", receiver.port)
    assert sender.send(BURST, [target]) == len(BURST)
    assert drain(receiver, len(BURST)) == BURST
    assert not sender.cuts, "not tried again"


def test_a_peer_that_cannot_be_reached_is_not_the_bursts_fault(sender: UdpSocket) -> None:
    sender._cuts = True
    refusing: Any = Refusing(sender._socket, errno.EHOSTUNREACH, single=True)
    sender._socket = refusing
    assert sender.send(BURST, [("127.0.0.1", 9)]) == 0
    assert sender.cuts


@pytest.mark.parametrize("cuts", [True, False])
def test_a_full_buffer_is_no_error(sender: UdpSocket, cuts: bool) -> None:
    sender._cuts = cuts
    refusing: Any = Refusing(sender._socket, errno.EAGAIN, single=True)
    sender._socket = refusing
    assert sender.send(BURST, [("127.0.0.1", 9)]) == 0
    assert sender.cuts == cuts


def test_what_is_too_large_does_not_look_whole(sender: UdpSocket, receiver: UdpSocket) -> None:
    target = sender.target("127.0.0.1", receiver.port)
    for size in (SIZE + 1, 60_000):
        sender.send([b"x" * size], [target])
        assert len(drain(receiver, 1)[0]) > SIZE
