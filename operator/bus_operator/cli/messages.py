"""What a message of a channel looks like to people: its type, who sent it to whom, and what is in it."""

import json
from dataclasses import dataclass
from typing import Any

import orjson

_TYPE, _DATA = "__type__", "__data__"
_ENVELOPE = ("id", "name", "source", "target")
"""Fields that every message of bus_runtime and pipecat has; see `bus_runtime.messages.BusMessage`."""

_DEEP = 250
"""Brackets: less of them are never nested too deeply for anything."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        id: Its id in the channel.
        payload: Its JSON, decoded.
        type: Its wire tag, such as `pipecat.bus.messages.BusEndMessage`; None for JSON that is no bus message.
        source: The worker that sent it, as it calls itself.
        target: The worker it is for; None: everybody.
        body: What is in it besides.
    """

    id: int
    payload: Any
    type: str | None
    source: str | None
    target: str | None
    body: Any

    @property
    def short_type(self) -> str:
        """The class without its module."""
        return "-" if self.type is None else _shown(self.type.rpartition(".")[2])

    @property
    def route(self) -> str:
        """From whom to whom."""
        if self.type is None:
            return ""
        return f"{self.source or '?'} → {self.target or 'all'}"

    def shortened(self, width: int) -> str:
        """The body as JSON in one line, of at most so many characters."""
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))
        # What could move the cursor is written as an escape, wherever a message came from.
        text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
        return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def read(msg_id: int, payload: bytes) -> Message:
    """What the JSON of a message says about itself."""
    value = _decoded(payload)
    if isinstance(value, dict) and isinstance(value.get(_TYPE), str) and isinstance(data := value.get(_DATA), dict):
        body = {key: item for key, item in data.items() if key not in _ENVELOPE}
        return Message(msg_id, value, value[_TYPE], _name(data.get("source")), _name(data.get("target")), body)
    return Message(msg_id, value, None, None, None, value)


def _decoded(payload: bytes) -> Any:
    """The value; the text itself where that could not be written again. Whoever may publish chooses how deep it is."""
    try:
        value = orjson.loads(payload)
        # It refuses what is nested so deeply that Python's encoder may, too.
        orjson.dumps(value)
        return value
    except orjson.JSONDecodeError:
        pass
    except TypeError:
        return payload.decode(errors="replace")
    try:
        # jsonb holds numbers that orjson refuses; Python takes them, up to some thousands of digits.
        return json.loads(payload) if payload.count(b"[") + payload.count(b"{") < _DEEP else payload.decode()
    except ValueError:
        return payload.decode(errors="replace")


def _name(value: object) -> str | None:
    """A worker's name, however it calls itself."""
    return _shown(value) if isinstance(value, str) else None


def _shown(text: str) -> str:
    """In one line that commands no terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)[:100]
