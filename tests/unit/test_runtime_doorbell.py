"""Ringing and hearing over real sockets on loopback."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from recorder import eventually

from bus_runtime import doorbell as module
from bus_runtime.address import ADDRESS_VARIABLE, advertised_ip, format_address, parse_address
from bus_runtime.datagram import CAPACITY, LENGTH_SIZE, MAX_DATAGRAM, Sealer
from bus_runtime.doorbell import Doorbell, open_doorbell
from bus_runtime.udp import MAX_SEGMENTS, UdpSocket

KEY = b"k" * 32
OTHER_KEY = b"o" * 32


@dataclass
class Heard:
    """A doorbell and what it heard."""

    rings: list[tuple[int, int, list[bytes] | None]] = field(default_factory=list)
    unknown_keys: int = 0

    def open(self, ip: str = "127.0.0.1") -> "Heard":
        self.doorbell = Doorbell(ip, self.on_ring, self.on_unknown_key)
        return self

    def on_ring(self, first_id: int, count: int, payloads: Sequence[bytes] | None) -> None:
        self.rings.append((first_id, count, None if payloads is None else list(payloads)))

    def on_unknown_key(self) -> None:
        self.unknown_keys += 1

    def receive(self, datagram: bytes) -> None:
        """As if it had come from anywhere."""
        address = parse_address(self.doorbell.address)
        assert address is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(datagram, address)


Make = Callable[..., Heard]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Heard] = []

    def make(ip: str = "127.0.0.1") -> Heard:
        made.append(Heard().open(ip))
        return made[-1]

    yield make
    for heard in made:
        heard.doorbell.close()


def acquaint(*peers: Heard, key: bytes = KEY) -> None:
    addresses = [peer.doorbell.address for peer in peers]
    for peer in peers:
        peer.doorbell.set_roster(key, addresses)


async def test_a_ring_reaches_all_others(make: Make) -> None:
    peers = [make() for _ in range(4)]
    acquaint(*peers)
    peers[0].doorbell.ring(7, 1, [b"{}"])
    await eventually(lambda: all(peer.rings for peer in peers[1:]))
    assert [peer.rings for peer in peers] == [[], *([[(7, 1, [b"{}"])]] * 3)]
    assert peers[0].doorbell.counters.sent == 3
    assert peers[1].doorbell.counters.rung == 1


async def test_what_was_prepared_is_rung_only_if_it_is_right(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sender, receiver = make(), make()
    acquaint(sender, receiver)
    sealed: list[int] = []
    seal = Sealer.seal

    def count(self: Sealer, first_id: int, *args: object, **options: object) -> bytes:
        sealed.append(first_id)
        return seal(self, first_id, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Sealer, "seal", count)
    sender.doorbell.prepare(7, b'"a"')
    sender.doorbell.ring(7, 1, [b'"a"'])
    assert sealed == [7], "not sealed again"
    sender.doorbell.prepare(8, b'"b"')
    sender.doorbell.ring(9, 1, [b'"b"'])
    sender.doorbell.prepare(10, b'"b"')
    sender.doorbell.ring(10, 1, [b'"c"'])
    await eventually(lambda: len(receiver.rings) == 3)
    sender.doorbell.prepare(11, b'"d"')
    acquaint(sender, receiver, key=OTHER_KEY)
    sender.doorbell.ring(11, 1, [b'"d"'])
    assert sealed == [7, 8, 9, 10, 10, 11, 11]
    await eventually(lambda: len(receiver.rings) == 4)
    assert receiver.rings == [(7, 1, [b'"a"']), (9, 1, [b'"b"']), (10, 1, [b'"c"']), (11, 1, [b'"d"'])]
    sender.doorbell.ring(7, 1, [b'"a"'])
    await eventually(lambda: receiver.rings[4:] == [(7, 1, [b'"a"'])])


async def test_a_batch_travels_in_as_many_datagrams_as_it_takes(make: Make) -> None:
    sender, receiver = make(), make()
    acquaint(sender, receiver)
    payloads = [b"%d" % n + b"x" * 400 for n in range(20)]
    sender.doorbell.ring(100, 20, payloads)
    await eventually(lambda: sum(count for _, count, _ in receiver.rings) == 20)
    assert [first for first, _, _ in receiver.rings] == list(range(100, 120, 2))
    assert [payload for _, _, some in receiver.rings for payload in some or []] == payloads


@pytest.mark.parametrize(
    "payloads",
    [[b"{}", b"x" * (CAPACITY - LENGTH_SIZE + 1), b"{}"], [b"x" * 800] * (MAX_SEGMENTS + 1)],
    ids=["one is too large", "too many"],
)
async def test_what_does_not_fit_is_announced_in_one_datagram(make: Make, payloads: list[bytes]) -> None:
    sender, receiver = make(), make()
    acquaint(sender, receiver)
    sender.doorbell.ring(100, len(payloads), payloads)
    await eventually(lambda: receiver.rings)
    assert receiver.rings == [(100, len(payloads), None)]
    assert sender.doorbell.counters.sent == 1


async def test_many_peers_are_told_and_not_sent_everything(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each datagram takes a call of its own."""
    monkeypatch.setattr(module, "_MAX_CALLS_PER_PUBLISH", 6)
    sender, receivers = make(), [make() for _ in range(3)]
    sender.doorbell._socket._cuts = False
    acquaint(sender, *receivers)
    sender.doorbell.ring(1, 2, [b"x" * 1000] * 2)
    sender.doorbell.ring(3, 3, [b"x" * 1000] * 3)
    await eventually(lambda: all(len(receiver.rings) == 3 for receiver in receivers))
    assert [(first, count, payloads is None) for first, count, payloads in receivers[0].rings] == [
        (1, 1, False),
        (2, 1, False),
        (3, 3, True),
    ]


async def test_bursts_arrive_whole(make: Make) -> None:
    sender, receivers = make(), [make() for _ in range(3)]
    acquaint(sender, *receivers)
    payloads = [b"%d" % n + b"x" * 700 for n in range(MAX_SEGMENTS)]
    for burst in range(3):
        sender.doorbell.ring(1 + burst * MAX_SEGMENTS, MAX_SEGMENTS, payloads)
        await eventually(lambda burst=burst: all(len(r.rings) == (burst + 1) * MAX_SEGMENTS for r in receivers))
    for receiver in receivers:
        assert [first for first, _, _ in receiver.rings] == list(range(1, 3 * MAX_SEGMENTS + 1))
        assert [some[0] for _, _, some in receiver.rings if some] == payloads * 3
    assert sender.doorbell.counters.sent == 9 * MAX_SEGMENTS


async def test_a_burst_larger_than_one_wake_up_arrives(make: Make) -> None:
    sender, receiver = make(), make()
    acquaint(sender, receiver)
    for first_id in range(1, 151):
        sender.doorbell.ring(first_id, 1)
    await eventually(lambda: len(receiver.rings) == 150)
    assert [first for first, _, _ in receiver.rings] == list(range(1, 151))


async def test_who_handles_a_ring_has_a_turn_before_more_is_asked_for(make: Make) -> None:
    sender, receiver = make(), make()
    acquaint(sender, receiver)
    turns: list[str] = []
    original = receiver.doorbell._socket.receive

    def receive() -> list[bytes] | None:
        datagrams = original()
        turns.append("datagram" if datagrams else "nothing")
        return datagrams

    def on_ring(*_: object) -> None:
        asyncio.get_running_loop().call_soon(turns.append, "handler")

    receiver.doorbell._socket.receive = receive  # type: ignore[method-assign]
    receiver.doorbell._on_ring = on_ring
    sender.doorbell.ring(1, 1, [b"{}"])
    await eventually(lambda: len(turns) == 3)
    assert turns == ["datagram", "handler", "nothing"]


async def test_without_a_roster_nothing_is_rung_or_heard(make: Make) -> None:
    peer = make()
    peer.doorbell.ring(1, 1)
    peer.receive(Sealer(KEY).seal(1, 1))
    await eventually(lambda: peer.unknown_keys)
    assert peer.rings == []
    assert peer.doorbell.counters.sent == 0


async def test_a_changed_roster_counts_at_once(make: Make) -> None:
    one, two, three = make(), make(), make()
    acquaint(one, two)
    one.doorbell.ring(1, 1)
    await eventually(lambda: two.rings)
    acquaint(one, three)
    one.doorbell.ring(2, 1)
    await eventually(lambda: three.rings)
    assert [peer.rings for peer in (two, three)] == [[(1, 1, None)], [(2, 1, None)]]


async def test_another_key_is_reported_at_most_once_a_second(make: Make) -> None:
    peer = make()
    acquaint(peer)
    peer.receive(Sealer(OTHER_KEY).seal(1, 1))
    await eventually(lambda: peer.unknown_keys == 1)
    for _ in range(50):
        peer.receive(Sealer(OTHER_KEY).seal(1, 1))
    await eventually(lambda: peer.doorbell.counters.forged == 51)
    assert peer.unknown_keys == 1
    await eventually(lambda: peer.unknown_keys == 2, seconds=3)
    assert peer.doorbell._unknown_key is None, "nothing came since"
    acquaint(peer, key=OTHER_KEY)
    peer.receive(Sealer(OTHER_KEY).seal(8, 1))
    await eventually(lambda: peer.rings == [(8, 1, None)])
    assert peer.unknown_keys == 2


async def test_forgeries_are_counted_and_cause_nothing(make: Make) -> None:
    peer = make()
    acquaint(peer)
    sealed = Sealer(KEY).seal(1, 1, [b"{}"])
    noise = [b"", b"x", sealed[:-1], sealed[:-1] + b"?", sealed + b"x" * MAX_DATAGRAM, b"\0" * 60_000]
    for datagram in noise:
        peer.receive(datagram)
    await eventually(lambda: peer.doorbell.counters.forged == len(noise))
    assert peer.rings == []
    assert peer.unknown_keys == 0


async def test_unreachable_peers_do_not_keep_the_others_from_being_rung(make: Make) -> None:
    sender, receiver = make(), make()
    nonsense = ["10.0.0.1", "localhost:99", "127.0.0.1:0", "127.0.0.1:70000", "", "0.0.0.0:5000"]
    sender.doorbell.set_roster(
        KEY, [*nonsense, "[2001:db8::1]:9000", "255.255.255.255:9000", receiver.doorbell.address]
    )
    receiver.doorbell.set_roster(KEY, [])
    sender.doorbell.ring(1, 1)
    await eventually(lambda: receiver.rings)
    assert sender.doorbell.counters.sent == 1
    assert sender.doorbell.counters.dropped == 2


async def test_a_closed_doorbell_neither_hears_nor_rings(make: Make) -> None:
    one, two = make(), make()
    acquaint(one, two)
    two.doorbell.ring(1, 1)
    two.doorbell.ring(2, 1)
    one.doorbell.close()
    one.doorbell.close()
    one.doorbell.ring(1, 1)
    await asyncio.sleep(0)
    assert one.rings == two.rings == []


async def test_closing_from_within_a_ring(make: Make) -> None:
    one, two = make(), make()
    acquaint(one, two)
    two.doorbell._on_ring = lambda *_: (two.rings.append((0, 0, None)), two.doorbell.close())[0]
    for _ in range(3):
        one.doorbell.ring(1, 1)
    await eventually(lambda: two.rings)
    assert len(two.rings) == 1


async def test_both_families_ring_each_other(make: Make) -> None:
    six, four = make("::1"), make("127.0.0.1")
    acquaint(six, four)
    assert six.doorbell.address.startswith("[::1]:")
    six.doorbell.ring(1, 1)
    await eventually(lambda: four.rings)
    other = make("::1")
    acquaint(six, other)
    six.doorbell.ring(2, 1)
    await eventually(lambda: other.rings)


async def test_without_a_socket_there_is_no_doorbell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> UdpSocket:
        raise PermissionError("not here")

    monkeypatch.setattr(module, "UdpSocket", refuse)
    assert open_doorbell(None, lambda *_: None, lambda: None) is None
    assert caplog.records == []
    assert open_doorbell("127.0.0.1", lambda *_: None, lambda: None) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    ("variable", "local", "expected"),
    [
        (None, "10.1.2.3", "10.1.2.3"),
        (None, None, None),
        (None, "fd00::17", "fd00::17"),
        (None, "::ffff:10.1.2.3", "10.1.2.3"),
        (None, "fe80::1%eth0", None),
        ("10.9.9.9", "10.1.2.3", "10.9.9.9"),
        ("FD00::0017", "10.1.2.3", "fd00::17"),
        ("", "10.1.2.3", None),
        ("off", "10.1.2.3", None),
        ("Off", "10.1.2.3", None),
        ("pod.example", "10.1.2.3", None),
        ("0.0.0.0", "10.1.2.3", None),
    ],
)
def test_which_address_is_advertised(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, local: str | None, expected: str | None
) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(ADDRESS_VARIABLE, variable)
    assert advertised_ip(local) == expected


def test_an_address_that_makes_no_sense_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "pod.example")
    assert advertised_ip("10.1.2.3") is None
    assert "pod.example" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:4711", ("10.0.0.1", 4711)),
        ("[fd00::1]:4711", ("fd00::1", 4711)),
        ("[10.0.0.1]:4711", ("10.0.0.1", 4711)),
        ("10.0.0.1", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:65536", None),
        ("10.0.0.300:1", None),
        ("host:1", None),
        ("10.0.0.1:1\n", None),
        ("224.0.0.1:1", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_address(text) == expected
    if expected is not None:
        assert parse_address(format_address(*expected)) == expected
