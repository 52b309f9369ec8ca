"""Makes JSON that a user types into what bus_runtime and pipecat put on the wire; see `bus_runtime.serializers`."""

import dataclasses
import itertools
from typing import Any

import orjson

from bus_operator.errors import SpecError
from bus_runtime import BusDataMessage, BusMessage
from bus_runtime.registry import default_registry

_TYPE, _DATA = "__type__", "__data__"
_RUNTIME = "pipecat.bus.messages"
"""Where the messages are that every client knows."""

DEFAULT_TYPE = BusDataMessage.__name__


class Envelopes:
    """Makes messages of one kind.

    Args:
        type_: The wire tag, such as `shop.messages.OrderPlaced`; of the messages that every client knows the class's
            name is enough.
        source: Who sends them.
        target: Whom they are for; None: everybody.
        raw: Leave JSON as it is, whatever it is.
    """

    def __init__(
        self, type_: str = DEFAULT_TYPE, *, source: str = "busctl", target: str | None = None, raw: bool = False
    ) -> None:
        self.tag = type_ if "." in type_ else f"{_RUNTIME}.{type_}"
        self._raw = raw
        self._source = source
        self._target = target
        self._ids = itertools.count()
        self._class: type[Any] | None = default_registry.resolve(self.tag)
        if not raw and "." not in type_ and self._class is None:
            raise SpecError(
                f"there is no message {type_!r} that every client knows: write its module as well, as in"
                f" shop.messages.{type_}"
            )

    def wrap(self, text: str | bytes) -> bytes:
        """The message that this JSON makes. What is an envelope already, as `busctl tail --json` shows it, stays so.

        Raises:
            SpecError: It is no JSON, or none that makes a message.
        """
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            shown = text.decode(errors="replace") if isinstance(text, bytes) else text
            raise SpecError(f"{shown.strip()[:60]!r} is no JSON: {exc}") from exc
        if self._raw or (isinstance(value, dict) and value.keys() == {_TYPE, _DATA}):
            return orjson.dumps(value)
        if not isinstance(value, dict):
            raise SpecError(
                'a message has fields, so its JSON is an object, such as {"order": "A-1"}; --raw takes any JSON'
            )
        number = next(self._ids)
        head: dict[str, Any] = {
            "id": number,
            "name": f"{self.tag.rpartition('.')[2]}#{number}",
            "source": self._source,
        }
        if self._target is not None:
            head["target"] = self._target
        return orjson.dumps({_TYPE: self.tag, _DATA: head | value})

    def unknown_fields(self, text: str | bytes) -> list[str]:
        """Fields that the class does not have, so that receivers ignore them; none where it is not known here."""
        if self._raw or self._class is None or not issubclass(self._class, BusMessage):
            return []
        value = orjson.loads(text)
        if not isinstance(value, dict) or value.keys() == {_TYPE, _DATA}:
            return []
        return sorted(value.keys() - {field.name for field in dataclasses.fields(self._class)})
