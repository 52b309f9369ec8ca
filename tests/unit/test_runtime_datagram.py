"""The doorbell datagram: what is sealed comes out, and nothing else ever does."""

import hashlib
import hmac
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus_runtime import datagram
from bus_runtime.datagram import (
    CAPACITY,
    LENGTH_SIZE,
    MAX_DATAGRAM,
    Opener,
    Ring,
    Sealer,
    fits,
    key_id,
    named_key,
    portions,
)

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
SEED = 20240607


def handmade(content: bytes, *, key: bytes = KEY, sender: bytes = b"s" * 16, counter: int = 7) -> bytes:
    """A datagram made from its description, without the code under test."""
    header = b"\xb5\x01" + hashlib.sha256(key).digest()[:4] + sender + struct.pack(">Q", counter)
    subkey = hmac.new(key, b"pgmq-bus doorbell v1" + sender, "sha256").digest()
    return header + AESGCM(subkey).encrypt(b"\0" * 4 + struct.pack(">Q", counter), content, header)


@pytest.mark.parametrize(
    ("first_id", "count", "payloads"),
    [
        (1, 1, None),
        (2**63 - 1, 1, None),
        (17, 500, None),
        (5, 1, [b'{"a": 1}']),
        (5, 3, [b"{}", b"", b"[1]"]),
        (5, 1, [b"x" * (CAPACITY - LENGTH_SIZE)]),
    ],
)
def test_what_is_sealed_comes_out(first_id: int, count: int, payloads: list[bytes] | None) -> None:
    sealed = Sealer(KEY).seal(first_id, count, payloads)
    assert len(sealed) <= MAX_DATAGRAM
    assert Opener(KEY).open(sealed) == Ring(first_id, count, None if payloads is None else tuple(payloads))


def test_what_does_not_fit_stays_behind() -> None:
    payload = b"x" * (CAPACITY - LENGTH_SIZE + 1)
    assert not fits([payload])
    assert Opener(KEY).open(Sealer(KEY).seal(5, 1, [payload])) == Ring(5, 1, None)
    many = [b"{}"] * (CAPACITY // (2 + LENGTH_SIZE))
    assert fits(many)
    assert not fits([*many, b"{}"])
    assert Opener(KEY).open(Sealer(KEY).seal(5, len(many), many)) == Ring(5, len(many), tuple(many))


def test_a_full_datagram_holds_the_same() -> None:
    sealed = Sealer(KEY).seal(5, 2, [b"{}", b""], fill=True)
    assert len(sealed) == MAX_DATAGRAM
    assert Opener(KEY).open(sealed) == Ring(5, 2, (b"{}", b""))
    assert len(Sealer(KEY).seal(5, 2, fill=True)) < MAX_DATAGRAM, "what carries nothing stays small"


@pytest.mark.parametrize(
    ("sizes", "at_most", "expected"),
    [
        ([], 3, []),
        ([10], 3, [(0, 1)]),
        ([10, 10, 10], 3, [(0, 3)]),
        ([600, 600, 600], 3, [(0, 1), (1, 1), (2, 1)]),
        ([500, 500, 500, 500], 2, [(0, 2), (2, 2)]),
        ([CAPACITY - LENGTH_SIZE, 0], 2, [(0, 1), (1, 1)]),
        ([600, 600, 600], 2, []),
        ([10, CAPACITY - LENGTH_SIZE + 1], 3, []),
    ],
)
def test_messages_are_put_into_as_few_datagrams_as_it_takes(
    sizes: list[int], at_most: int, expected: list[tuple[int, int]]
) -> None:
    payloads = [bytes(size) for size in sizes]
    found = portions(payloads, at_most)
    assert [(start, len(portion)) for start, portion in found] == expected
    assert all(fits(portion) and portion == payloads[start : start + len(portion)] for start, portion in found)


def test_the_layout_is_the_documented_one() -> None:
    content = struct.pack(">QI", 41, 2) + struct.pack(">H", 2) + b"{}" + struct.pack(">H", 3) + b"[7]"
    assert Opener(KEY).open(handmade(content)) == Ring(41, 2, (b"{}", b"[7]"))
    sealed = Sealer(KEY).seal(41, 2, [b"{}", b"[7]"])
    sender, counter = sealed[6:22], struct.unpack(">Q", sealed[22:30])[0]
    assert sealed == handmade(content, sender=sender, counter=counter)


def test_neither_ids_nor_messages_are_in_the_clear() -> None:
    sealed = Sealer(KEY).seal(0x1122334455667788, 1, [b"a secret of the channel"])
    assert b"secret" not in sealed
    assert struct.pack(">Q", 0x1122334455667788) not in sealed


def test_no_nonce_is_used_twice() -> None:
    sealers = [Sealer(KEY) for _ in range(4)]
    headers = [sealer.seal(1, 1)[6:30] for sealer in sealers for _ in range(100)]
    assert len(set(headers)) == len(headers)


def test_a_forked_child_does_not_use_its_parents_nonces() -> None:
    code = """
import os, sys
from bus_runtime.datagram import Sealer
sealer = Sealer(bytes(32))
sealer.seal(1, 1)
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, sealer.seal(2, 1)[6:30])
    os._exit(0)
child, parent = os.read(read, 24), sealer.seal(2, 1)[6:30]
os.wait()
sys.exit(child == parent or len(child) != 24)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_a_replay_says_the_same_again() -> None:
    opener, sealed = Opener(KEY), Sealer(KEY).seal(9, 1, [b"{}"])
    assert opener.open(sealed) == opener.open(sealed) == Ring(9, 1, (b"{}",))


def test_another_channels_key_opens_nothing() -> None:
    sealed = Sealer(OTHER_KEY).seal(1, 1)
    assert Opener(KEY).open(sealed) is None
    assert named_key(sealed) == key_id(OTHER_KEY) != Opener(KEY).key_id
    # Even when it claims our key.
    assert Opener(KEY).open(sealed[:2] + key_id(KEY) + sealed[6:]) is None


def test_another_version_is_none_of_ours() -> None:
    sealed = Sealer(KEY).seal(1, 1)
    for magic in (b"\xb5\x02", b"\xb4\x01", b"\0\0"):
        assert named_key(magic + sealed[2:]) is None
        assert Opener(KEY).open(magic + sealed[2:]) is None


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">QI", 0, 1),
        struct.pack(">QI", 2**63, 1),
        struct.pack(">QI", 2**63 - 1, 2),
        struct.pack(">QI", 1, 0),
        struct.pack(">QI", 1, 1) + b"\0",
        struct.pack(">QI", 1, 1) + b"\0\5abc",
        struct.pack(">QI", 1, 2) + b"\0\3abc",
        struct.pack(">QI", 1, 2**32 - 1) + b"\0\3abc\0\3abc",
        struct.pack(">QI", 1, 0) + b"\0\3abc",
    ],
)
def test_nonsense_of_a_member_is_ignored(content: bytes) -> None:
    assert Opener(KEY).open(handmade(content)) is None


def test_noise_is_ignored() -> None:
    rng = random.Random(SEED)
    opener = Opener(KEY)
    for _ in range(2000):
        noise = rng.randbytes(rng.randrange(0, 1500))
        assert opener.open(noise) is None
        assert opener.open(b"\xb5\x01" + opener.key_id + noise) is None
    assert opener.open(b"\xb5\x01" + opener.key_id + bytes(100_000)) is None


def test_damaged_datagrams_are_ignored() -> None:
    rng = random.Random(SEED)
    opener, sealer = Opener(KEY), Sealer(KEY)
    for number in range(500):
        payloads = [rng.randbytes(rng.randrange(0, 300)) for _ in range(rng.randrange(1, 4))]
        sealed = sealer.seal(number + 1, len(payloads), payloads)
        assert opener.open(sealed) == Ring(number + 1, len(payloads), tuple(payloads))
        position = rng.randrange(len(sealed))
        flipped = bytearray(sealed)
        flipped[position] ^= 1 << rng.randrange(8)
        assert opener.open(bytes(flipped)) is None
        assert opener.open(sealed[: rng.randrange(len(sealed))]) is None
        assert opener.open(sealed + b"\0") is None


def test_random_content_of_a_member_never_raises() -> None:
    """Sealed with the right key: everything behind the tag is reached."""
    rng = random.Random(SEED)
    opener = Opener(KEY)
    for number in range(2000):
        content = struct.pack(">QI", rng.randrange(2**64), rng.choice([1, 2, 3, rng.randrange(2**32)]))
        content += bytes(rng.choices([0, 0, 0, 1, 2, 3, 255], k=rng.randrange(0, 20)))
        ring = opener.open(handmade(content, counter=number))
        if ring is not None:
            assert 0 < ring.first_id <= ring.first_id + ring.count - 1 < 2**63
            assert ring.payloads is None or len(ring.payloads) == ring.count


def test_a_flood_of_invented_senders_displaces_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram, "_CACHED_SENDERS", 4)
    opener, sealer = Opener(KEY), Sealer(KEY)
    member = sealer.seal(1, 1)
    opener.open(member)
    for _ in range(50):
        opener.open(member[:6] + os.urandom(16) + member[22:])
    assert list(opener._ciphers) == [member[6:22]]


def test_the_cache_of_senders_keeps_the_busy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram, "_CACHED_SENDERS", 4)
    opener, busy = Opener(KEY), Sealer(KEY)
    for _ in range(20):
        assert opener.open(busy.seal(1, 1)) is not None
        assert opener.open(Sealer(KEY).seal(1, 1)) is not None
    assert len(opener._ciphers) == 4
    assert busy.seal(1, 1)[6:22] in opener._ciphers
