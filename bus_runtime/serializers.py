"""Messages to JSON and back, compatible with the reference client's `JSONMessageSerializer`.

The format is that of pipecat-ai 1.14 (`pipecat.bus.serializers.json`): a typed value is
`{"__type__": tag, "__data__": ...}`, where the data of a dataclass or pydantic model is an object of its
fields without those that are None, of an enum its member name, of bytes their base64. Enums that are
also strings or numbers travel as those. Unlike the reference, only registered types are built
(see `registry.py`), and a value that cannot be written is an error rather than a silently missing field.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import orjson
from pydantic import BaseModel

from bus_runtime.errors import SerializationError, UnknownTypeError
from bus_runtime.messages import BusMessage
from bus_runtime.registry import TypeRegistry, default_registry

SerializeFunc = Callable[[Any], Any]
DeserializeFunc = Callable[[Any], Any]

#: Values nested deeper than this are refused, well before Python's recursion limit (1000 frames,
#: of which each level takes up to three) and orjson's own (254 levels, two per typed value).
MAX_DEPTH = 100

_TYPE = "__type__"
_DATA = "__data__"
_BYTES_TAG = "bytes"
_PLAIN = frozenset({str, int, bool, type(None)})


class MessageSerializer(ABC):
    """Turns bus messages into bytes and back.

    A `PgmqBus` stores the bytes as `jsonb`, so they must be a UTF-8 JSON document.
    """

    @abstractmethod
    def serialize(self, message: BusMessage) -> bytes:
        """The message as bytes.

        Raises:
            SerializationError: The message holds something that cannot travel.
        """

    @abstractmethod
    def deserialize(self, data: bytes) -> BusMessage | None:
        """The message that `data` holds.

        Raises:
            SerializationError: `data` does not make a message (`UnknownTypeError`: of a type known here).
        """


class TypeAdapter(ABC):
    """Writes and reads values of one type, and of its subclasses, that have no representation of their own."""

    @abstractmethod
    def serialize(self, obj: Any, serialize_value: SerializeFunc) -> dict[str, Any]:
        """The object as a JSON object; `serialize_value` writes nested values."""

    @abstractmethod
    def deserialize(
        self,
        data: dict[str, Any],
        deserialize_value: DeserializeFunc,
        target_type: type | None = None,
    ) -> Any:
        """The object back from what `serialize` made; `target_type` is the registered class the wire names."""


class JSONMessageSerializer(MessageSerializer):
    """The wire format of the reference client, with a table of types instead of imports."""

    def __init__(self) -> None:
        self._registry = TypeRegistry(parent=default_registry)
        self._adapters: dict[type[Any], TypeAdapter] = {}
        self._fields: dict[type[Any], tuple[dataclasses.Field[Any], ...]] = {}

    def register_type(self, cls: type[Any], tag: str | None = None) -> None:
        """Let a dataclass, enum or pydantic model travel on this bus under `tag` (default: its dotted path).

        Raises:
            ValueError: The tag belongs to another class.
        """
        self._registry.register(cls, tag)

    def register_adapter(self, type_: type[Any], adapter: TypeAdapter, tag: str | None = None) -> None:
        """Let values of `type_` travel, written and read by `adapter`, under `tag` (default: its dotted path)."""
        self._adapters[type_] = adapter
        self._registry.register(type_, tag)

    def serialize(self, message: BusMessage) -> bytes:
        """The message as compact UTF-8 JSON."""
        try:
            return orjson.dumps(self._write(message, 0))
        except (TypeError, ValueError, RecursionError) as exc:
            if isinstance(exc, SerializationError):
                raise
            raise SerializationError(f"cannot write {type(message).__name__} as JSON: {exc}") from exc

    def deserialize(self, data: bytes) -> BusMessage:
        """The message that `data` holds."""
        try:
            value = self._read(orjson.loads(data), 0)
        except SerializationError:
            raise
        # Reading runs constructors, validators and adapters of the application: whatever they raise on
        # what the wire holds is one bad message, and no reason to stop reading.
        except Exception as exc:
            raise SerializationError(f"not a message: {type(exc).__name__}: {exc}") from exc
        if not isinstance(value, BusMessage):
            raise SerializationError(f"expected a bus message, got {type(value).__name__}")
        return value

    # --- writing ---

    def _write(self, value: Any, depth: int) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, str | int | float):
            return _scalar(value)
        if depth >= MAX_DEPTH:
            raise SerializationError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {_key(k): self._write(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._write(v, depth + 1) for v in value]
        if isinstance(value, bytes | bytearray):
            return {_TYPE: _BYTES_TAG, _DATA: base64.b64encode(value).decode("ascii")}
        return self._write_typed(value, depth)

    def _write_typed(self, value: Any, depth: int) -> dict[str, Any]:
        cls = type(value)
        adapter, adapted = self._adapter_for(cls)
        tag = self._registry.tag_of(cls)
        if tag is None and adapted is not None:
            tag = self._registry.tag_of(adapted)
        if tag is None:
            raise SerializationError(
                f"{cls.__module__}.{cls.__name__} is not registered, so no peer could read it; "
                "use register_message(), serializer.register_type() or serializer.register_adapter()"
            )
        data: Any
        if adapter is not None:
            data = adapter.serialize(value, partial(self._write, depth=depth + 1))
        elif isinstance(value, Enum):
            data = value.name
        elif isinstance(value, BaseModel):
            data = self._write_items(value.__dict__.items(), depth)
        elif dataclasses.is_dataclass(cls):
            data = self._write_items(((f.name, getattr(value, f.name)) for f in self._fields_of(cls)), depth)
        else:
            raise SerializationError(
                f"{cls.__name__} is neither dataclass, enum nor pydantic model: give it an adapter"
            )
        return {_TYPE: tag, _DATA: data}

    def _write_items(self, items: Any, depth: int) -> dict[str, Any]:
        return {name: self._write(value, depth + 1) for name, value in items if value is not None}

    # --- reading ---

    def _read(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            if depth >= MAX_DEPTH:
                raise SerializationError(f"nested deeper than {MAX_DEPTH} levels")
            if _TYPE in value and _DATA in value:
                return self._read_typed(value[_TYPE], value[_DATA], depth)
            return {k: self._read(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            if depth >= MAX_DEPTH:
                raise SerializationError(f"nested deeper than {MAX_DEPTH} levels")
            return [self._read(v, depth + 1) for v in value]
        return value

    def _read_typed(self, tag: Any, data: Any, depth: int) -> Any:
        if not isinstance(tag, str):
            raise SerializationError(f"{_TYPE} must be a string, got {type(tag).__name__}")
        if tag == _BYTES_TAG:
            return base64.b64decode(data, validate=True)
        cls = self._registry.resolve(tag)
        if cls is None:
            raise UnknownTypeError(tag)
        adapter, _ = self._adapter_for(cls)
        if adapter is not None:
            return adapter.deserialize(data, partial(self._read, depth=depth + 1), target_type=cls)
        if issubclass(cls, Enum):
            return cls[data]
        if not isinstance(data, dict):
            raise SerializationError(f"{_DATA} of {tag} must be an object, got {type(data).__name__}")
        values = {k: self._read(v, depth + 1) for k, v in data.items()}
        if issubclass(cls, BaseModel):
            return cls.model_validate(values)
        return self._build(cls, values)

    def _build(self, cls: type[Any], values: dict[str, Any]) -> Any:
        """A dataclass instance. Fields the wire leaves out are None, as the writer omits exactly those;
        fields that this version of the class does not have are ignored."""
        arguments: dict[str, Any] = {}
        assigned_later: dict[str, Any] = {}
        for field in self._fields_of(cls):
            if field.name in values:
                (arguments if field.init else assigned_later)[field.name] = values[field.name]
            elif field.init and field.default is field.default_factory is dataclasses.MISSING:
                arguments[field.name] = None
        built = cls(**arguments)
        for name, value in assigned_later.items():
            setattr(built, name, value)
        return built

    def _fields_of(self, cls: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
        fields = self._fields.get(cls)
        if fields is None:
            fields = self._fields[cls] = dataclasses.fields(cls)
        return fields

    def _adapter_for(self, cls: type[Any]) -> tuple[TypeAdapter | None, type[Any] | None]:
        if self._adapters:
            for base in cls.__mro__:
                if base in self._adapters:
                    return self._adapters[base], base
        return None, None


def _scalar(value: str | float) -> str | float:
    """A finite number or a string, without the subclass it may have: enums that are strings or numbers are those."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise SerializationError(f"{value} is not a JSON number")
    return float(value)


def _key(key: Any) -> str:
    """An object key as Python's `json` writes it, which is what the reference client uses."""
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, int | float):
        return orjson.dumps(key if key is None or type(key) is bool else _scalar(key)).decode()
    raise SerializationError(f"an object key must be a string, got {type(key).__name__}")
