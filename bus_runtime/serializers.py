"""Messages to JSON and back, compatible with the reference client's `JSONMessageSerializer`.

The format is that of pipecat-ai 1.14 (`pipecat.bus.serializers.json`): a typed value is
`{"__type__": tag, "__data__": ...}`, where the data of a dataclass or pydantic model is an object of its
fields without those that are None, of an enum its member name, of bytes their base64. Enums that are
also strings or numbers travel as those. Unlike the reference, only registered types are built
(see `registry.py`), a value that cannot be written is an error rather than a silently missing field, and
so is a dictionary that would arrive as something else. A None travels where leaving it out would mean another value.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any

import orjson
from pydantic import BaseModel

from bus_runtime.errors import SerializationError, UnknownTypeError
from bus_runtime.messages import BusMessage
from bus_runtime.registry import TypeRegistry, default_registry
from bus_runtime.shapes import ModelShape, Shape

SerializeFunc = Callable[[Any], Any]
DeserializeFunc = Callable[[Any], Any]

#: Values nested deeper than this are refused, well before Python's recursion limit (1000 frames,
#: of which each level takes up to three) and orjson's own (254 levels, two per typed value).
MAX_DEPTH = 100

_TYPE = "__type__"
_DATA = "__data__"
_BYTES_TAG = "bytes"
_QUOTED_TYPE = b'"__type__"'
#: Written as they are. Not floats: one that is not finite is refused.
_PLAIN = frozenset({str, int, bool, type(None)})
_SCALARS = (str, int, float)


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
        # How a class is written and read depends on the class alone, so it is found out once. Tags are looked up
        # each time: they may be registered for the whole process at any moment.
        self._writers: dict[type[Any], Callable[[Any, int], Any]] = {}
        self._readers: dict[type[Any], Callable[[str, Any, int, bool], Any]] = {}

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
        self._writers.clear()
        self._readers.clear()

    def serialize(self, message: BusMessage) -> bytes:
        """The message as compact UTF-8 JSON."""
        if not isinstance(message, BusMessage):
            raise SerializationError(_no_message(message))
        try:
            return orjson.dumps(self._write(message, 0))
        except (TypeError, ValueError, RecursionError) as exc:
            if isinstance(exc, SerializationError):
                raise
            raise SerializationError(f"cannot write {type(message).__name__} as JSON: {exc}") from exc

    def deserialize(self, data: bytes) -> BusMessage:
        """The message that `data` holds."""
        try:
            value = orjson.loads(data)
            if type(value) is dict and _TYPE in value and _DATA in value and _is_flat(data):
                value = self._read_typed(value[_TYPE], value[_DATA], 0, True)
            else:
                value = self._read(value, 0)
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
        cls = type(value)
        if cls in _PLAIN or (cls is float and math.isfinite(value)):
            return value
        writer = self._writers.get(cls)
        if writer is None:
            writer = self._writers[cls] = self._writer_for(cls)
        return writer(value, depth)

    def _writer_for(self, cls: type[Any]) -> Callable[[Any, int], Any]:
        if issubclass(cls, _SCALARS):
            return _write_scalar
        if issubclass(cls, dict):
            return self._write_dict
        if issubclass(cls, list | tuple):
            return self._write_list
        if issubclass(cls, bytes | bytearray):
            return _write_bytes
        adapter, adapted = self._adapter_for(cls)
        data_of: Callable[[Any, int], Any]
        if adapter is not None:
            data_of = partial(self._write_adapted, adapter)
        elif issubclass(cls, Enum):
            data_of = _write_name
        elif issubclass(cls, BaseModel):
            data_of = partial(self._write_fields, ModelShape(cls))
        elif dataclasses.is_dataclass(cls):
            data_of = partial(self._write_fields, Shape(cls))
        else:
            data_of = _write_nothing
        return partial(self._write_typed, data_of, adapted)

    def _write_dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        _check_depth(depth)
        written = {
            key if type(key) is str else _key(key): item if type(item) in _PLAIN else self._write(item, depth + 1)
            for key, item in value.items()
        }
        if _TYPE in written and _DATA in written:
            # Often what somebody outside has sent: it must not choose what our peers build.
            raise SerializationError(f"a dictionary with the keys {_TYPE} and {_DATA} would be read as another value")
        if len(written) < len(value):
            raise SerializationError("two keys of a dictionary are the same in JSON, such as 1 and '1'")
        return written

    def _write_list(self, value: Iterable[Any], depth: int) -> list[Any]:
        _check_depth(depth)
        return [item if type(item) in _PLAIN else self._write(item, depth + 1) for item in value]

    def _write_typed(
        self, data_of: Callable[[Any, int], Any], adapted: type[Any] | None, value: Any, depth: int
    ) -> dict[str, Any]:
        _check_depth(depth)
        cls = type(value)
        tag = self._registry.tag_of(cls)
        if tag is None and adapted is not None:
            tag = self._registry.tag_of(adapted)
        if tag is None:
            raise SerializationError(
                f"{cls.__module__}.{cls.__name__} is not registered, so no peer could read it; "
                "use register_message(), serializer.register_type() or serializer.register_adapter()"
            )
        return {_TYPE: tag, _DATA: data_of(value, depth)}

    def _write_adapted(self, adapter: TypeAdapter, value: Any, depth: int) -> Any:
        return adapter.serialize(value, partial(self._write, depth=depth + 1))

    def _write_fields(self, shape: Shape | ModelShape, value: Any, depth: int) -> dict[str, Any]:
        optional = shape.optional
        return {
            name: item if type(item) in _PLAIN else self._write(item, depth + 1)
            for name, item in shape.items(value)
            if item is not None or name not in optional
        }

    # --- reading ---

    def _read(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            _check_depth(depth)
            if _TYPE in value and _DATA in value:
                return self._read_typed(value[_TYPE], value[_DATA], depth, False)
            return self._read_items(value, depth)
        if isinstance(value, list):
            _check_depth(depth)
            return [self._read(item, depth + 1) for item in value]
        return value

    def _read_items(self, data: dict[str, Any], depth: int) -> dict[str, Any]:
        return {key: item if type(item) in _PLAIN else self._read(item, depth + 1) for key, item in data.items()}

    def _read_typed(self, tag: Any, data: Any, depth: int, is_flat: bool) -> Any:
        """The value of a type the wire names; with `is_flat` nothing in `data` needs to be looked at."""
        if not isinstance(tag, str):
            raise SerializationError(f"{_TYPE} must be a string, got {type(tag).__name__}")
        if tag == _BYTES_TAG:
            return base64.b64decode(data, validate=True)
        cls = self._registry.resolve(tag)
        if cls is None:
            raise UnknownTypeError(tag, self._registry.namesakes(tag))
        reader = self._readers.get(cls)
        if reader is None:
            reader = self._readers[cls] = self._reader_for(cls)
        return reader(tag, data, depth, is_flat)

    def _reader_for(self, cls: type[Any]) -> Callable[[str, Any, int, bool], Any]:
        adapter, _ = self._adapter_for(cls)
        if adapter is not None:
            return partial(self._read_adapted, adapter, cls)
        if issubclass(cls, Enum):
            return partial(_read_name, cls)
        shape = ModelShape(cls) if issubclass(cls, BaseModel) else Shape(cls)
        return partial(self._read_fields, shape.build)

    def _read_adapted(self, adapter: TypeAdapter, cls: type[Any], _: str, data: Any, depth: int, __: bool) -> Any:
        return adapter.deserialize(data, partial(self._read, depth=depth + 1), target_type=cls)

    def _read_fields(
        self, build: Callable[[dict[str, Any]], Any], tag: str, data: Any, depth: int, is_flat: bool
    ) -> Any:
        if not isinstance(data, dict):
            raise SerializationError(f"{_DATA} of {tag} must be an object, got {type(data).__name__}")
        return build(data if is_flat else self._read_items(data, depth))

    def _adapter_for(self, cls: type[Any]) -> tuple[TypeAdapter | None, type[Any] | None]:
        if self._adapters:
            for base in cls.__mro__:
                if base in self._adapters:
                    return self._adapters[base], base
        return None, None


def _is_flat(data: bytes) -> bool:
    """Whether a JSON document that is a typed value certainly holds no other one, and is not nested too deeply.

    Looking at the bytes is many times quicker than looking at each value, and says no when in doubt: for a
    `__type__` that may be written with escapes, and for as many brackets as the depth limit allows levels.
    """
    return data.count(_QUOTED_TYPE) == 1 and b"\\u" not in data and data.count(b"{") + data.count(b"[") < MAX_DEPTH


def _no_message(value: object) -> str:
    """What a publisher did wrong; without the value, which may be large or secret."""
    what = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
    return (
        f"what was published is {what}, and no BusMessage, so no peer could read it: publish an instance of a class"
        " such as @dataclass(kw_only=True) class Hello(BusDataMessage), Hello(source=..., ...)"
    )


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise SerializationError(f"nested deeper than {MAX_DEPTH} levels")


def _write_scalar(value: str | float, _: int) -> str | float:
    return _scalar(value)


def _write_bytes(value: bytes | bytearray, depth: int) -> dict[str, Any]:
    _check_depth(depth)
    return {_TYPE: _BYTES_TAG, _DATA: base64.b64encode(value).decode("ascii")}


def _write_name(value: Enum, _: int) -> str:
    return value.name


def _write_nothing(value: Any, _: int) -> Any:
    raise SerializationError(
        f"{type(value).__name__} is neither dataclass, enum nor pydantic model: give it an adapter"
    )


def _read_name(cls: type[Enum], _: str, data: Any, __: int, ___: bool) -> Enum:
    return cls[data]


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
