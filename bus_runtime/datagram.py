"""The datagram by which one peer tells another what it has just committed. Pure: no sockets, no clock.

    offset  bytes
    0       2       magic and version, b"\\xb5\\x01"
    2       4       key id: the beginning of the SHA-256 of the channel's doorbell key
    6       16      sender: random, one per process and key
    22      8       counter of the sender, big endian
    30      n + 16  sealed: AES-256-GCM of what follows, with the 30 bytes before as associated data

    sealed  8       id of the first message, big endian
            4       how many messages, whose ids follow each other without a gap
            ...     nothing, or as many times: length in 2 bytes, then so many bytes of JSON; then maybe filling

Each sender encrypts under a key of its own, HMAC-SHA256(doorbell key, "pgmq-bus doorbell v1" + sender), with its
counter as the nonce. So no two processes ever share a nonce, and none has to be agreed on or remembered. Replays are
not filtered: ids only ever move a reader forward, so a repeated datagram says nothing new.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: Bytes of the largest datagram: what every network carries without fragments (IPv6 promises 1280 with headers).
MAX_DATAGRAM = 1200

_MAGIC = b"\xb5\x01"
_PURPOSE = b"pgmq-bus doorbell v1"
_KEY_ID_SIZE = 4
_SENDER_SIZE = 16
_SENDER = slice(6, 22)
_HEADER_SIZE = 30
_TAG_SIZE = 16
_NONCE_PREFIX = b"\x00" * 4

_ANNOUNCEMENT = struct.Struct(">QI")
_COUNTER = struct.Struct(">Q")
_LENGTH = struct.Struct(">H")

#: Bytes of JSON that travel in one datagram, each message with `LENGTH_SIZE` more.
CAPACITY = MAX_DATAGRAM - _HEADER_SIZE - _TAG_SIZE - _ANNOUNCEMENT.size
LENGTH_SIZE = _LENGTH.size

_MIN_DATAGRAM = MAX_DATAGRAM - CAPACITY
_MAX_ID = 2**63 - 1
_CACHED_SENDERS = 1024


@dataclass(frozen=True, slots=True)
class Ring:
    """What a datagram announces.

    Attributes:
        first_id: Id of the first message.
        count: How many messages; the others have the ids that follow.
        payloads: Their JSON, when it travelled along.
    """

    first_id: int
    count: int
    payloads: tuple[bytes, ...] | None


def key_id(channel_key: bytes) -> bytes:
    """What a datagram names its key by: it tells keys apart and reveals nothing of them."""
    return hashlib.sha256(channel_key).digest()[:_KEY_ID_SIZE]


def named_key(datagram: bytes) -> bytes | None:
    """The id of the key that a datagram claims to be sealed with; None when it is none of ours at all."""
    if datagram[:2] != _MAGIC or not _MIN_DATAGRAM <= len(datagram) <= MAX_DATAGRAM:
        return None
    return datagram[2:6]


def fits(payloads: Sequence[bytes]) -> bool:
    """Whether these messages can travel along in one datagram."""
    return sum(map(len, payloads)) + LENGTH_SIZE * len(payloads) <= CAPACITY


def portions(payloads: Sequence[bytes], at_most: int) -> list[tuple[int, Sequence[bytes]]]:
    """The messages in order, in portions that each fit into a datagram, with the index of each portion's first one.

    Empty when one is too large or it would take more than `at_most`: then none travels, because behind a gap a reader
    has to look at the log anyway.
    """
    starts: list[int] = []
    room = 0
    for index, payload in enumerate(payloads):
        size = len(payload) + LENGTH_SIZE
        if size > room:
            if size > CAPACITY or len(starts) == at_most:
                return []
            starts.append(index)
            room = CAPACITY
        room -= size
    return [(start, payloads[start:end]) for start, end in itertools.pairwise([*starts, len(payloads)])]


class Sealer:
    """Makes the datagrams of one process under one doorbell key.

    Args:
        channel_key: The channel's doorbell key.
    """

    def __init__(self, channel_key: bytes) -> None:
        self._channel_key = channel_key
        self._begin()

    def seal(self, first_id: int, count: int, payloads: Sequence[bytes] | None = None, *, fill: bool = False) -> bytes:
        """The datagram, the same for every peer, that announces `count` messages from `first_id` on.

        Args:
            first_id: Id of the first message.
            count: How many messages.
            payloads: Their JSON, which travels along if it fits.
            fill: Whether a datagram with messages is to have the full size, as others in a burst.
        """
        if os.getpid() != self._process:
            # A forked child continues the counter of its parent, and must not use the same nonces.
            self._begin()
        counter = _COUNTER.pack(next(self._counter))
        header = self._prefix + counter
        content = _ANNOUNCEMENT.pack(first_id, count)
        if payloads is not None and fits(payloads):
            content += b"".join([_LENGTH.pack(len(payload)) + payload for payload in payloads])
            if fill:
                content = content.ljust(_ANNOUNCEMENT.size + CAPACITY, b"\x00")
        return header + self._cipher.encrypt(_NONCE_PREFIX + counter, content, header)

    def _begin(self) -> None:
        self._process = os.getpid()
        sender = os.urandom(_SENDER_SIZE)
        self._prefix = _MAGIC + key_id(self._channel_key) + sender
        self._cipher = _cipher(self._channel_key, sender)
        self._counter = itertools.count()


class Opener:
    """Opens datagrams that were sealed under one doorbell key.

    Args:
        channel_key: The channel's doorbell key.
    """

    def __init__(self, channel_key: bytes) -> None:
        self._channel_key = channel_key
        self._ciphers: OrderedDict[bytes, AESGCM] = OrderedDict()
        self.key_id = key_id(channel_key)
        # Here and not with the first datagram: it takes some 100 ms, and whoever has a key is about to use it.
        from cryptography.exceptions import InvalidTag

        self._invalid = InvalidTag

    def open(self, datagram: bytes) -> Ring | None:
        """What it announces; None for whatever this key did not seal. Never raises."""
        if named_key(datagram) != self.key_id:
            return None
        sender, header = datagram[_SENDER], datagram[:_HEADER_SIZE]
        known = self._ciphers.get(sender)
        cipher = known or _cipher(self._channel_key, sender)
        try:
            content = cipher.decrypt(_NONCE_PREFIX + datagram[22:_HEADER_SIZE], datagram[_HEADER_SIZE:], header)
        except self._invalid:
            return None
        # Only who proved to have the key is remembered, so that a flood of invented senders displaces nobody.
        if known is None:
            self._ciphers[sender] = cipher
            if len(self._ciphers) > _CACHED_SENDERS:
                self._ciphers.popitem(last=False)
        else:
            self._ciphers.move_to_end(sender)
        return _parse(content)


def _cipher(channel_key: bytes, sender: bytes) -> AESGCM:
    # Imported when first needed: it is half of what importing this package would take.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(channel_key, _PURPOSE + sender, "sha256"))


def _parse(content: bytes) -> Ring | None:
    """The announcement in `content`, whose length is at least that of one."""
    first_id, count = _ANNOUNCEMENT.unpack_from(content)
    if not 0 < first_id <= _MAX_ID or not 0 < count <= _MAX_ID - first_id + 1:
        return None
    offset, end = _ANNOUNCEMENT.size, len(content)
    if offset == end:
        return Ring(first_id, count, None)
    payloads = []
    for _ in range(count):
        if end - offset < LENGTH_SIZE:
            return None
        (length,) = _LENGTH.unpack_from(content, offset)
        offset += LENGTH_SIZE + length
        if offset > end:
            return None
        payloads.append(content[offset - length : offset])
    return Ring(first_id, count, tuple(payloads))
