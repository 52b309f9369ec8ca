"""Doorbell datagrams from anybody, damaged, repeated, of another channel: the log is delivered and nothing else."""

import hmac
import struct

import fuzzing
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from log_reader import Harness, payloads, settle

from bus_runtime import lookout as lookout_module
from bus_runtime.datagram import Opener, Ring, Sealer, key_id, named_key

KEY, OTHER_KEY, FORMER_KEY = b"k" * 32, b"o" * 32, b"f" * 32

announcements = st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 9), st.integers(0, 2**32 - 1) | st.integers(0, 9))


def sealed_by_hand(content: bytes) -> bytes:
    """What a member with the key could send if it did not keep to the format."""
    header = b"\xb5\x01" + key_id(KEY) + b"s" * 16 + struct.pack(">Q", 1)
    cipher = AESGCM(hmac.digest(KEY, b"pgmq-bus doorbell v1" + b"s" * 16, "sha256"))
    return header + cipher.encrypt(b"\0" * 4 + struct.pack(">Q", 1), content, header)


@fuzzing.examples(200)
@given(st.binary(max_size=1300) | st.binary(max_size=60).map(lambda rest: b"\xb5\x01" + key_id(KEY) + rest))
def test_what_was_not_sealed_announces_nothing(datagram: bytes) -> None:
    named_key(datagram)
    assert Opener(KEY).open(datagram) is None


@fuzzing.examples(200)
@given(announcements, st.binary(max_size=40))
def test_whatever_a_member_seals_announces_messages_there_can_be(announced: tuple[int, int], rest: bytes) -> None:
    ring = Opener(KEY).open(sealed_by_hand(struct.pack(">QI", *announced) + rest))
    if ring is not None:
        assert ring.first_id >= 1
        assert ring.count >= 1
        assert ring.first_id + ring.count - 1 <= 2**63 - 1
        assert ring.payloads is None or len(ring.payloads) == ring.count


@fuzzing.examples(200)
@given(
    st.integers(1, 1000),
    st.lists(st.binary(max_size=30), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
    st.floats(0, 1),
)
def test_a_damaged_datagram_announces_nothing(
    first_id: int, messages: list[bytes], turned: list[tuple[float, int]], kept: float
) -> None:
    whole = Sealer(KEY).seal(first_id, len(messages), messages)
    damaged = bytearray(whole)
    for where, bits in turned:
        damaged[int(where * len(whole))] ^= bits
    damaged = damaged[: round(kept * len(whole))]
    expected = Ring(first_id, len(messages), tuple(messages)) if damaged == whole else None
    assert Opener(KEY).open(bytes(damaged)) == expected


steps = st.lists(
    st.tuples(
        st.sampled_from(["publish"] * 3 + ["ring"] * 6 + ["repeat", "damage", "former", "other", "noise", "wake"]),
        st.integers(1, 4),
        st.integers(0, 10**6),
    ),
    max_size=25,
)


@fuzzing.examples(100)
@given(steps)
async def test_a_reader_delivers_the_log_in_order_and_nothing_else(taken: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lookout_module, "FIRST_LOOK", 600.0)
        harness = Harness(max_poll=600.0)
        await harness.start()
        opener, sealers = Opener(KEY), {key: Sealer(key) for key in (KEY, OTHER_KEY, FORMER_KEY)}
        published, sent = 0, []

        def hear(datagram: bytes) -> None:
            ring = opener.open(datagram)
            if ring is None:
                return
            if ring.payloads is None:
                harness.waker.wake(ring.first_id + ring.count - 1)
            else:
                harness.waker.offer(ring.first_id, ring.payloads)

        for step, count, number in taken:
            before = harness.reader.position
            if step == "publish":
                await harness.publish(count)
                published += count
            elif step in ("ring", "former", "other") and published:
                # Whoever is not of this channel announces whatever it likes.
                first = number % published + 1
                last = min(first + count - 1, published) if step == "ring" else first + count - 1
                key = {"ring": KEY, "former": FORMER_KEY, "other": OTHER_KEY}[step]
                messages = payloads(last - first + 1) if step == "ring" else [b'"forged"'] * count
                carried = messages if number % 3 else None
                sent.append(sealers[key].seal(first, len(messages), carried))
                hear(sent[-1])
            elif step == "repeat" and sent:
                hear(sent[number % len(sent)])
            elif step == "damage" and sent:
                datagram = bytearray(sent[number % len(sent)])
                datagram[number % len(datagram)] ^= count
                hear(bytes(datagram))
            elif step == "noise":
                hear(b"\xb5\x01" + key_id(KEY) + number.to_bytes(50, "big"))
            elif step == "wake":
                harness.waker.wake()
                await settle()
            assert harness.reader.position >= before
            assert harness.received == list(range(1, len(harness.received) + 1))
            assert len(harness.received) <= published
        harness.waker.wake()
        await settle()
        assert harness.received == list(range(1, published + 1))
        await harness.stop()
