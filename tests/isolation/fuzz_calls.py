"""Calls of the client-callable functions, made up from what has been seen: valid, foreign, nearly right and odd."""

import ipaddress
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIGNATURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bus_join": ("select public.bus_join({})", ("text",)),
    "bus_publish": ("select public.bus_publish({})", ("text", "text", "jsonb")),
    "bus_subscribe": (
        "select msg_id, message from public.bus_subscribe({})",
        ("text", "text", "integer", "integer", "integer"),
    ),
    "bus_archive": ("select public.bus_archive({})", ("text", "text", "bigint")),
    "bus_leave": ("select public.bus_leave({})", ("text", "text")),
    "join_channel": ("select pgmq_bus_v1.join_channel({})", ("text", "jsonb")),
    "leave": ("select pgmq_bus_v1.leave({})", ("text", "text")),
    "notify": ("select pgmq_bus_v1.notify({})", ("text", "text")),
    "roster": ("select pgmq_bus_v1.roster({})", ("text", "text")),
    "wake_by": ("select pgmq_bus_v1.wake_by({})", ("text", "text", "text", "boolean")),
    "v1_publish": ("select pgmq_bus_v1.publish({})", ("text", "text", "jsonb[]")),
    "v1_read": (
        "select msg_id, message, lost from pgmq_bus_v1.read({})",
        ("text", "text", "bigint", "bigint", "integer", "integer"),
    ),
    "publish": ("select ids, roster from pgmq_bus_channel.publish_{token}({})", ("text", "text[]")),
    "read": (
        "select msg_id, message, lost, roster from pgmq_bus_channel.read_{token}({})",
        ("text", "bigint", "bigint", "integer", "bigint"),
    ),
}
"""Every function that a client may call, and the types of its parameters."""

_RANGES = {"integer": 2**31, "bigint": 2**63}
_INTEGER = re.compile(r"[+-]?[0-9]+")
#: A byte that is no UTF-8, as the driver is to send it.
NO_UTF8 = "\udcff"


@dataclass(frozen=True)
class Message:
    """JSON as it is sent, and as PostgreSQL writes it; or the SQLSTATE that reading it ends with."""

    sent: str
    stored: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Call:
    """One call. JSON arguments are in `messages` as well, None where the argument is null."""

    function: str
    args: tuple[str | None, ...]
    token: str = ""
    messages: tuple[Message | None, ...] | None = None

    @property
    def schema(self) -> str:
        return "public" if self.function.startswith("bus_") else "pgmq_bus"

    @property
    def statement(self) -> str:
        text, types = SIGNATURES[self.function]
        return text.format(", ".join(f"${n + 1}" for n in range(len(types))), token=self.token)

    def number(self, index: int) -> int | None:
        text = self.args[index]
        return None if text is None else int(text)

    def bind(self, refusal: Callable[[str], Exception]) -> None:
        """Raises the refusal of the first argument that is no value of its parameter's type."""
        for text, kind in zip(self.args, SIGNATURES[self.function][1], strict=True):
            if text is None:
                continue
            if NO_UTF8 in text:
                raise refusal("22021")
            if kind in _RANGES:
                if _INTEGER.fullmatch(text) is None:
                    raise refusal("22P02")
                if not -_RANGES[kind] <= int(text) < _RANGES[kind]:
                    raise refusal("22003")
            elif kind == "boolean" and text not in ("true", "false"):
                raise refusal("22P02")
            elif kind.startswith("jsonb"):
                for message in self.messages or ():
                    if message is not None and message.error is not None:
                        raise refusal(message.error)


def is_address(text: str) -> bool:
    """What `pgmq_bus.require_address` lets pass."""
    parts = re.fullmatch(r"(?:((?:[0-9]{1,3}[.]){3}[0-9]{1,3})|\[([0-9a-fA-F:.]{2,45})\]):([0-9]{4,5})", text)
    if parts is None or "\n" in text or not 1024 <= int(parts[3]) <= 65535:
        return False
    try:
        ipaddress.ip_address(parts[1] or parts[2])
    except ValueError:
        return False
    return True


ODD_TEXTS = [
    None, "", " ", "%", "'", '"', "\\", "$1", "x'; drop table pgmq_bus.peer; --", "null", "\u202e", "\U0001f600",
    "\u017f", "e\u0301", "\ufeff", "x" * 201, "y" * 10_000, NO_UTF8, "pgmq_bus", "pgmq_bus_owner", "postgres", "*",
    "\n", "0",
    "-1", "{}", "../..", "public.bus_join", "q_bus_", "bus_", "00000000000000000000000000000000",
]  # fmt: skip
ODD_NUMBERS = [
    None, "0", "-1", "1", "2", "2147483647", "2147483648", "-2147483648", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "1.5", "", "abc", "NaN", "99999999999999999999999999",
]  # fmt: skip
ODD_VERSIONS = [None, "0", "-1", "1", "9223372036854775807"]
BAD_ADDRESSES = [
    "", "localhost:4000", "10.0.0.1:80", "10.0.0.1", "10.0.0.256:4000", "[fd00::1:4000", "[::g]:4000", "10.0.0.1:99999",
    "10.0.0.1:4000\n", " 10.0.0.1:4000", "10.0.0.1:4000;", "٣.0.0.1:4000",
]  # fmt: skip
BAD_MESSAGES = [
    Message("{", error="22P02"), Message("", error="22P02"), Message("1 2", error="22P02"),
    Message("NaN", error="22P02"),
    Message('"\\ud800"', error="22P02"), Message('"\\u0000"', error="22P05"), Message("1e131072", error="22003"),
    Message("[" * 100_000 + "]" * 100_000, error="54001"), Message("{'a': 1}", error="22P02"),
    Message('"' + "\x01" + '"', error="22P02"),
]  # fmt: skip
ODD_MESSAGES = [
    Message(text, text)
    for text in (
        "null", "true", "false", "0", "-1", '""', "{}", "[]", "[null]", '{"": null}', "12345678901234567890123", "0.1",
        '{"k\\ny": [null, true, 0.1, {"a": {}}]}', '"\u202e\U0001f600\ud7ff\uffff"', "[" * 500 + "]" * 500,
        '"' + "x" * 2046 + '"', '"' + "x" * 2047 + '"', '"' + "€" * 682 + '"', '"' + "€" * 683 + '"',
        '"' + "x" * 50_000 + '"',
        '"\\"\\\\\\n\'$$%s{0}"', '{"__proto__": {"x": 1}, "constructor": null}',
    )
] + [
    Message('{"b":1,"a":2,"a":3}', '{"a": 3, "b": 1}'), Message(" [1 , 2] ", "[1, 2]"), Message("1e2", "100"),
    Message("-0.0", "0.0"), Message("1.500", "1.500"), Message('"\\u03c0\\ud83d\\ude00"', '"π😀"'),
    Message('{"bb": 1, "a": 2}', '{"a": 2, "bb": 1}'), Message("1e131071", "1" + "0" * 131_071),
    Message('"\\/"', '"/"'),
]  # fmt: skip


def _array(messages: Sequence[Message | None]) -> str:
    def quoted(message: Message | None) -> str:
        if message is None:
            return "NULL"
        return '"' + message.sent.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return "{" + ",".join(map(quoted, messages)) + "}"


@dataclass
class Seen:
    """What the one who calls can put into a call: its own channel's names, and others'. First what is its own."""

    channels: tuple[str, ...]
    tokens: tuple[str, ...]
    own_queues: list[str]
    other_queues: Callable[[], list[str]]
    own_ids: list[int]
    other_ids: Callable[[], list[int]]
    roster: int
    #: In everything that it writes.
    marker: str
    #: The first bytes of its addresses.
    network: str


class Inventor:
    """Makes up the arguments of one call, by a random number generator that the fuzzer seeds."""

    def __init__(self, seen: Seen, rng: random.Random) -> None:
        self._seen = seen
        self._rng = rng
        aim = rng.random()
        self._odd = 0.35 if aim > 0.8 else 0.0
        self._foreign = 0.6 if 0.55 < aim <= 0.8 else 0.0

    def call(self, function: str) -> Call:
        """A call of the function."""
        rng = self._rng
        token = ""
        if function in ("publish", "read"):
            token = self._token()
        make: Callable[[], tuple[tuple[str | None, ...], tuple[Message | None, ...] | None]]
        make = getattr(self, f"_{function}")
        args, messages = make()
        if rng.random() < self._odd * 0.3 and SIGNATURES[function][1][:2] == ("text", "text"):
            args = (args[1], args[0], *args[2:])
        return Call(function, args, token, messages)

    # ---- arguments

    def _token(self) -> str:
        """Which channel's own function: seldom one that is not there."""
        own, *others = self._seen.tokens
        if self._rng.random() < self._odd * 0.3:
            return self._rng.choice(["", "0" * 12, own[:-1], own + "0"])
        return self._rng.choice(others) if self._rng.random() < self._foreign else own

    def _pick(self, names: Sequence[str], odd: Sequence[str | None]) -> str | None:
        """A name: the caller's own, another's, a near miss or an odd one."""
        rng = self._rng
        if rng.random() < self._odd:
            return self._near(names[0]) if names and rng.random() < 0.4 else rng.choice(odd)
        if len(names) > 1 and rng.random() < self._foreign:
            return rng.choice(names[1:])
        return names[0] if names else rng.choice(odd)

    def _near(self, name: str) -> str:
        rng = self._rng
        at = rng.randrange(len(name))
        return rng.choice(
            [
                name[:-1],
                name + " ",
                " " + name,
                name.upper(),
                name[:at] + "x" + name[at + 1 :],
                name * 2,
                name + "\u200b",
            ]
        )

    def _channel(self) -> str | None:
        return self._pick(self._seen.channels, [*ODD_TEXTS, *self._seen.own_queues[:1]])

    def _queue(self) -> str | None:
        seen, rng = self._seen, self._rng
        if rng.random() < self._foreign and (others := seen.other_queues()):
            return rng.choice(others)
        return self._pick([rng.choice(seen.own_queues)] if seen.own_queues else [], [*ODD_TEXTS, seen.channels[0]])

    def _id(self) -> str | None:
        seen, rng = self._seen, self._rng
        if rng.random() < self._odd:
            return rng.choice(ODD_NUMBERS)
        ids = (seen.other_ids() if rng.random() < self._foreign else None) or seen.own_ids
        return str(max(rng.choice(ids) + rng.choice((0, 0, 0, -1, 1)), 0)) if ids else "0"

    def _number(self, *valid: int) -> str | None:
        rng = self._rng
        return rng.choice(ODD_NUMBERS) if rng.random() < self._odd else str(rng.choice(valid))

    def _message(self) -> Message | None:
        seen, rng = self._seen, self._rng
        chance = rng.random()
        if chance < self._odd * 0.5:
            return rng.choice([None, *BAD_MESSAGES, Message(f'"{NO_UTF8}"', error="22021")])
        if chance > 0.9:
            return rng.choice(ODD_MESSAGES)
        text = f'{{"m": "{seen.marker}", "n": {rng.randrange(10**6)}}}'
        return Message(text, text)

    def _batch(self) -> tuple[Message | None, ...] | None:
        rng = self._rng
        if rng.random() < self._odd * 0.3:
            return rng.choice([None, (), (Message("1", "1"),) * 10_001])
        return tuple(self._message() for _ in range(rng.choice((1, 1, 1, 2, 3, 5))))

    def _options(self) -> Message | None:
        seen, rng = self._seen, self._rng
        if rng.random() < self._odd * 0.5:
            return rng.choice([None, Message("[]"), Message('"peer"'), Message("null"), Message("7"), *BAD_MESSAGES])
        options: dict[str, object] = {}
        if rng.random() < 0.4:
            options["peer"] = self._option(f"peer-{rng.randrange(4)} {seen.marker}")
        if rng.random() < 0.4:
            options["address"] = self._address()
        if rng.random() < 0.3:
            options["application"] = self._option(rng.choice([seen.marker, seen.marker * 40]))
            options["host"] = self._option(seen.marker)
        if rng.random() < 0.3:
            options["runtime"] = self._option(rng.choice(["bus_runtime/0.0.1", "pipecat", seen.marker]))
        if rng.random() < 0.4:
            options["listens"] = rng.choice([True, False])
        if "peer" in options and rng.random() < 0.5:
            options["since"] = self._option(rng.choice(["0", "1700000000000000", "9999999999999999"]))
        if rng.random() < self._odd:
            key = rng.choice(["listens", "peer", "address", "since", "x", ""])
            options[key] = rng.choice([7, {"a": []}, None, "true", []])
        text = json.dumps(options)
        return Message(text, text)

    def _option(self, valid: str) -> object:
        rng = self._rng
        odd = ["", "x" * 200, "x" * 201, 7, None, [], {"a": 1}, True, "\u202e\U0001f600"]
        return rng.choice(odd) if rng.random() < self._odd else valid

    def _address(self) -> str | None:
        rng = self._rng
        if rng.random() < self._odd:
            return rng.choice(BAD_ADDRESSES)
        return rng.choice([f"{self._seen.network}.{rng.randrange(9)}.1:{rng.randrange(1024, 65536)}", None])

    # ---- functions

    def _bus_join(self) -> tuple[tuple[str | None, ...], None]:
        return (self._channel(),), None

    def _join_channel(self) -> tuple[tuple[str | None, ...], tuple[Message | None, ...]]:
        options = self._options()
        return (self._channel(), None if options is None else options.sent), (options,)

    def _bus_publish(self) -> tuple[tuple[str | None, ...], tuple[Message | None, ...]]:
        message = self._message()
        return (self._channel(), self._queue(), None if message is None else message.sent), (message,)

    def _v1_publish(self) -> tuple[tuple[str | None, ...], tuple[Message | None, ...] | None]:
        batch = self._batch()
        return (self._channel(), self._queue(), None if batch is None else _array(batch)), batch

    def _publish(self) -> tuple[tuple[str | None, ...], tuple[Message | None, ...] | None]:
        batch = self._batch()
        return (self._queue(), None if batch is None else _array(batch)), batch

    def _bus_subscribe(self) -> tuple[tuple[str | None, ...], None]:
        # A long poll that finds nothing takes its second: mostly asked not to wait.
        seconds = self._number(0) if self._rng.random() < 0.995 else self._number(1, 3600)
        visibility = self._number(600, 3600, 43200, 1)
        return (self._queue(), self._channel(), visibility, self._number(1, 2, 10, 10_000), seconds), None

    def _bus_archive(self) -> tuple[tuple[str | None, ...], None]:
        return (self._queue(), self._channel(), self._id()), None

    def _bus_leave(self) -> tuple[tuple[str | None, ...], None]:
        return (self._queue(), self._channel()), None

    def _names(self) -> tuple[tuple[str | None, ...], None]:
        return (self._channel(), self._queue()), None

    _leave = _notify = _roster = _names

    def _wake_by(self) -> tuple[tuple[str | None, ...], None]:
        listens = self._rng.choice(["maybe", "", "2"] if self._rng.random() < self._odd else ["true", "false", None])
        return (self._channel(), self._queue(), self._address(), listens), None

    def _acknowledged(self) -> str | None:
        return None if self._rng.random() < 0.4 else self._id()

    def _v1_read(self) -> tuple[tuple[str | None, ...], None]:
        limit = self._number(0, 1, 2, 5, 100, 10_000)
        return (self._channel(), self._queue(), self._id(), self._acknowledged(), self._number(1, 30), limit), None

    def _read(self) -> tuple[tuple[str | None, ...], None]:
        rng = self._rng
        roster = str(self._seen.roster) if rng.random() < 0.6 else rng.choice(ODD_VERSIONS)
        limit = self._number(0, 1, 2, 5, 100, 10_000)
        return (self._queue(), self._id(), self._acknowledged(), limit, roster), None
