"""The serializer on its own: what travels, what is refused, and that nothing but registered types is built.

That the reference client reads and writes the same is tested with the reference itself, in tests/interop.
"""

import enum
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import pydantic.dataclasses
import pytest
from pydantic import BaseModel, Field, RootModel

from bus_runtime import (
    BusActivateWorkerMessage,
    BusDataMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusWorkerRegistryMessage,
    JSONMessageSerializer,
    SerializationError,
    TypeAdapter,
    UnknownTypeError,
    WorkerRegistryEntry,
)
from bus_runtime.serializers import MAX_DEPTH


class Colour(enum.Enum):
    RED = "#f00"


class Size(enum.IntEnum):
    BIG = 3


class Item(BaseModel):
    sku: str
    tags: list[str] = []
    note: str | None = None


@dataclass
class Address:
    street: str
    flat: int | None = None


@dataclass
class Order(BusDataMessage):
    payload: Any
    comment: str | None = None


@dataclass
class Parcel:
    weight: float | None = 1.5
    labels: list[str] | None = field(default_factory=list)


class Stock(BaseModel):
    owner: str | None
    unit: str | None = "kg"
    even_more: str = Field("", alias="evenMore")


class Open(BaseModel, extra="allow"):
    note: str | None = None


class Prices(RootModel[dict[str, int]]):
    pass


@pytest.fixture
def serializer() -> JSONMessageSerializer:
    serializer = JSONMessageSerializer()
    for cls in (Colour, Item, Address, Parcel, Stock, Open, Prices):
        serializer.register_type(cls)
    return serializer


def round_trip(serializer: JSONMessageSerializer, payload: Any) -> Any:
    message = serializer.deserialize(serializer.serialize(Order(payload, source="test")))
    assert isinstance(message, Order)
    return message.payload


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "snow \u2603 \U0001f600",
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        True,
        False,
        [],
        {},
        [1, [2, [3, {"a": None}]]],
        {"nested": {"none stays": None}},
        b"\x00\xff bytes",
        {"blob": [b"", b"x"]},
        Colour.RED,
        Address("Elm", 3),
        Address("Oak"),
        Item(sku="1", tags=["a"], note="n"),
        [Item(sku="2"), Address("Ash"), Colour.RED],
        Parcel(None, None),
        Stock(owner=None, unit=None, evenMore="x"),
        Open(note=None, other=1, none=None),
        Prices({"apple": 3}),
    ],
    ids=repr,
)
def test_values_survive(serializer: JSONMessageSerializer, value: Any) -> None:
    assert round_trip(serializer, value) == value


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Size.BIG, 3),
        ({1: "a", None: "c", 1.5: "d"}, {"1": "a", "null": "c", "1.5": "d"}),
        ({True: "b"}, {"true": "b"}),
        (bytearray(b"x"), b"x"),
    ],
    ids=repr,
)
def test_values_that_arrive_as_their_json_relatives(
    serializer: JSONMessageSerializer, value: Any, arrives: Any
) -> None:
    assert round_trip(serializer, value) == arrives


def test_id_and_name_travel_and_none_does_not(serializer: JSONMessageSerializer) -> None:
    message = BusEndMessage(source="a")
    raw = json.loads(serializer.serialize(message))
    assert raw == {
        "__type__": "pipecat.bus.messages.BusEndMessage",
        "__data__": {"id": message.id, "name": message.name, "source": "a"},
    }
    again = serializer.deserialize(json.dumps(raw).encode())
    assert (again.id, again.name, again.source, again.target) == (message.id, message.name, "a", None)


def test_nested_types_of_the_hierarchy(serializer: JSONMessageSerializer) -> None:
    message = BusWorkerRegistryMessage("r", [WorkerRegistryEntry("w", active=True, started_at=1.5)], source="r")
    again = serializer.deserialize(serializer.serialize(message))
    assert again == message


def self_containing() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep_list(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@dataclass
class Unregistered:
    x: int


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan is not a JSON number"),
        (float("-inf"), "-inf is not a JSON number"),
        (2**64, "64-bit"),
        ("\ud800", "cannot write Order as JSON"),
        (object(), "object is not registered"),
        ({1, 2}, "set is not registered"),
        (len, "is not registered"),
        ({(1, 2): 3}, "key must be a string, got tuple"),
        ({1: "a", "1": "b"}, "two keys of a dictionary are the same in JSON"),
        ({"__type__": "bytes", "__data__": "eA=="}, "with the keys __type__ and __data__ would be read as another"),
        ([{"__type__": f"{__name__}.Order", "__data__": {}, "x": 1}], "would be read as another"),
        (Unregistered(1), r"Unregistered is not registered.*register_type"),
        (self_containing(), "nested deeper"),
        (deep(100_000), "nested deeper"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_cannot_travel_is_refused(serializer: JSONMessageSerializer, value: Any, reason: str) -> None:
    with pytest.raises(SerializationError, match=reason):
        serializer.serialize(Order(value, source="test"))


@pytest.mark.parametrize("payload", [Unregistered, int], ids=["dataclass", "int"])
def test_a_registered_class_that_is_no_value_is_refused(serializer: JSONMessageSerializer, payload: type) -> None:
    with pytest.raises(SerializationError):
        serializer.serialize(Order(payload, source="test"))


def test_depth_is_bounded_the_same_way_in_both_directions(serializer: JSONMessageSerializer) -> None:
    deepest = 0
    for levels in range(MAX_DEPTH + 2):
        try:
            data = serializer.serialize(Order(deep(levels), source="test"))
        except SerializationError:
            break
        assert isinstance(serializer.deserialize(data), Order)
        deepest = levels
    assert MAX_DEPTH - 5 < deepest < MAX_DEPTH


def test_depth_is_bounded_near_the_recursion_limit_too(serializer: JSONMessageSerializer) -> None:
    """Called from deep inside an application, running out of stack is still our own error."""

    def descend(frames: int) -> None:
        if frames:
            descend(frames - 1)
        else:
            with pytest.raises(SerializationError):
                serializer.serialize(Order(deep(MAX_DEPTH - 3), source="test"))

    message = Order(deep(MAX_DEPTH - 3), source="test")
    limit = sys.getrecursionlimit()
    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1
    assert serializer.serialize(message)
    descend(limit - used - 60)


ORDER = f"{__name__}.Order"


def typed(tag: Any, data: Any) -> str:
    return json.dumps({"__type__": tag, "__data__": data})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "not a message"),
        ("{", "not a message"),
        ("\xff", "not a message"),
        ("null", "expected a bus message, got NoneType"),
        ("[]", "expected a bus message, got list"),
        ('{"__type__": "x"}', "expected a bus message, got dict"),
        (typed("bytes", "eA=="), "expected a bus message, got bytes"),
        (typed(7, {}), "__type__ must be a string"),
        (typed(ORDER, [1]), "must be an object, got list"),
        (typed(ORDER, {"source": "x", "payload": {"__type__": "bytes", "__data__": "?"}}), "not a message"),
        (typed(ORDER, {"source": "x", "payload": {"__type__": f"{__name__}.Colour", "__data__": "PINK"}}), "KeyError"),
        (typed(ORDER, {"source": "x", "payload": {"__type__": f"{__name__}.Colour", "__data__": []}}), "not a message"),
        (typed(ORDER, {"source": "x", "payload": {"__type__": f"{__name__}.Item", "__data__": {}}}), "ValidationError"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ("[" * 100_000 + "]" * 100_000, "not a message"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"),
        (typed(ORDER, {"source": "x"})[:-1] + ',"__type__":"bytes"}', "not a message"),
    ],
    ids=lambda value: value[:40],
)
def test_what_makes_no_message_is_refused(serializer: JSONMessageSerializer, data: str, reason: str) -> None:
    with pytest.raises(SerializationError, match=reason):
        serializer.deserialize(data.encode("latin-1"))


def test_a_bomb_of_typed_values_is_refused(serializer: JSONMessageSerializer) -> None:
    data: Any = 1
    for _ in range(200):
        data = {"__type__": f"{__name__}.Address", "__data__": {"street": data}}
    with pytest.raises(SerializationError, match="nested deeper"):
        serializer.deserialize(json.dumps(data).encode())


@pytest.mark.parametrize(
    "tag",
    ["os.system", "subprocess.Popen", "builtins.eval", "pipecat.bus.messages.BusFrameMessage", "tarfile.TarFile", ""],
)
def test_nothing_unregistered_is_built_or_imported(serializer: JSONMessageSerializer, tag: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UnknownTypeError, match="is not registered in this process") as caught:
        serializer.deserialize(typed(tag, {"source": "x"}).encode())
    assert caught.value.tag == tag
    with pytest.raises(UnknownTypeError):
        serializer.deserialize(typed(ORDER, {"source": "x", "payload": {"__type__": tag, "__data__": {}}}).encode())
    assert set(sys.modules) == before


@dataclass(kw_only=True)
class Declared(BusDataMessage):
    number: int
    comment: str = "none"


@pydantic.dataclasses.dataclass(kw_only=True)
class Validated(BusDataMessage):
    number: int
    comment: str = "none"


@dataclass(kw_only=True)
class Looked(BusDataMessage):
    number: int
    comment: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.number, int):
            raise TypeError(f"number must be an int, not {self.number!r}")


@pytest.mark.parametrize(
    ("data", "number"),
    [({"source": "x"}, None), ({"source": "x", "number": "seven", "added": 1}, "seven")],
    ids=["missing", "another type"],
)
def test_what_a_class_declares_is_checked_by_pydantic_and_post_init_only(
    serializer: JSONMessageSerializer, data: dict[str, Any], number: Any
) -> None:
    message = serializer.deserialize(typed(f"{__name__}.Declared", data).encode())
    assert (message.number, message.comment, hasattr(message, "added")) == (number, "none", False)  # type: ignore[attr-defined]
    for cls, words in ((Validated, "valid integer"), (Looked, "must be an int")):
        with pytest.raises(SerializationError, match=words):
            serializer.deserialize(typed(f"{__name__}.{cls.__name__}", data).encode())
        with pytest.raises((TypeError, ValueError), match=words):
            cls(source="x", number=number)
        good = serializer.deserialize(serializer.serialize(cls(source="x", number=7)))
        assert (type(good), good.number, good.comment) == (cls, 7, "none")  # type: ignore[attr-defined]


def test_a_class_of_the_same_name_in_another_module_is_named() -> None:
    """As where one process runs the module that another one imports."""
    serializer = JSONMessageSerializer()
    for known in ("__main__.Oddment", "billing.Oddment", "a.NoOddment", "Oddment.b"):
        serializer.register_type(type("Oddment", (), {}), known)
    refusal = (
        "message type 'shop.Oddment' is not registered in this process; this process knows '__main__.Oddment' and"
        " 'billing.Oddment': import the class from one module on both sides [UnknownType]"
    )
    with pytest.raises(UnknownTypeError) as caught:
        serializer.deserialize(typed("shop.Oddment", {"source": "x"}).encode())
    assert str(caught.value) == refusal
    # Also those that are known to all of the process.
    with pytest.raises(UnknownTypeError, match=r"this process knows 'pipecat\.bus\.messages\.BusEndMessage': import"):
        serializer.deserialize(typed("__main__.BusEndMessage", {"source": "x"}).encode())


@pytest.mark.parametrize("name", ["BusAddWorkerMessage", "BusWorkerLocalErrorMessage"])
def test_local_messages_neither_leave_nor_arrive(serializer: JSONMessageSerializer, name: str) -> None:
    import bus_runtime

    with pytest.raises(UnknownTypeError):
        serializer.deserialize(typed(f"pipecat.bus.messages.{name}", {"source": "x"}).encode())
    with pytest.raises(SerializationError, match="is not registered"):
        serializer.serialize(getattr(bus_runtime, name)("w", source="x"))


def test_fields_of_another_version_are_tolerated_but_never_become_attributes(
    serializer: JSONMessageSerializer,
) -> None:
    data = {"source": "x", "reason": "r", "added_later": 1, "__class__": "evil", "__post_init__": 1}
    message = serializer.deserialize(typed("pipecat.bus.messages.BusEndMessage", data).encode())
    assert isinstance(message, BusEndMessage)
    assert message.reason == "r"
    assert not hasattr(message, "added_later")
    missing = serializer.deserialize(typed("pipecat.bus.messages.BusJobRequestMessage", {"source": "x"}).encode())
    assert isinstance(missing, BusJobRequestMessage)
    assert missing.job_id is None


@pytest.mark.parametrize(
    ("nested", "arrives"),
    [
        (r'{"\u005f_type__": "bytes", "__data__": "eA=="}', b"x"),
        (r'{"__type__": "bytes", "\u005f_data__": "eA=="}', b"x"),
        (r'["\\u", "\"__type__\"", {"__type__": "bytes", "__data__": "eA=="}]', ["\\u", '"__type__"', b"x"]),
        (r'["\"__type__\"", "__type__", "\n"]', ['"__type__"', "__type__", "\n"]),
        (r'{"__type__": "no data"}', {"__type__": "no data"}),
        (r'{"__data__": 1}', {"__data__": 1}),
        ("[" * 60 + "]" * 60 + "\n", deep_list(60)),
        ("[" + "[]," * 300 + "[]]", [[]] * 301),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_of_a_type_are_found_however_they_are_written(
    serializer: JSONMessageSerializer, nested: str, arrives: Any
) -> None:
    document = f'{{"__type__": "{ORDER}", "__data__": {{"source": "x", "payload": {nested}}}}}'
    message = serializer.deserialize(document.encode())
    assert isinstance(message, Order)
    assert message.payload == arrives


@pytest.mark.parametrize("levels", [101, 500])
def test_depth_is_bounded_within_a_plain_payload(serializer: JSONMessageSerializer, levels: int) -> None:
    document = typed(ORDER, {"source": "x", "payload": "@"}).replace('"@"', "[" * levels + "]" * levels)
    with pytest.raises(SerializationError, match="nested deeper"):
        serializer.deserialize(document.encode())


def test_an_adapter_registered_later_is_used(serializer: JSONMessageSerializer) -> None:
    assert round_trip(serializer, Address("Elm")) == Address("Elm")

    class Upper(TypeAdapter):
        def serialize(self, obj: Any, serialize_value: Any) -> dict[str, Any]:
            return {"street": obj.street.upper()}

        def deserialize(self, data: dict[str, Any], deserialize_value: Any, target_type: type | None = None) -> Any:
            return Address(data["street"] + "!")

    serializer.register_adapter(Address, Upper())
    assert round_trip(serializer, Address("Elm")) == Address("ELM!")


def test_a_tag_registered_later_is_used(serializer: JSONMessageSerializer) -> None:
    value = Unregistered(1)
    with pytest.raises(SerializationError, match="is not registered"):
        serializer.serialize(Order(value, source="test"))
    serializer.register_type(Unregistered, "other.Name")
    assert b'"other.Name"' in serializer.serialize(Order(value, source="test"))
    assert round_trip(serializer, value) == value


def test_a_constructor_that_fails_is_one_bad_message(serializer: JSONMessageSerializer) -> None:
    @dataclass
    class Fussy(BusDataMessage):
        amount: int = field(default=0)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.amount < 0:
                raise RuntimeError("negative")

    tag = f"{__name__}.Fussy"
    assert serializer.deserialize(typed(tag, {"source": "x", "amount": 1}).encode())
    with pytest.raises(SerializationError, match="RuntimeError: negative"):
        serializer.deserialize(typed(tag, {"source": "x", "amount": -1}).encode())


class Money:
    def __init__(self, cents: int, owner: Any = None) -> None:
        self.cents, self.owner = cents, owner


class Euro(Money):
    pass


class MoneyAdapter(TypeAdapter):
    def serialize(self, obj: Any, serialize_value: Any) -> dict[str, Any]:
        return {"cents": obj.cents, "owner": serialize_value(obj.owner)}

    def deserialize(self, data: dict[str, Any], deserialize_value: Any, target_type: type | None = None) -> Any:
        assert target_type is not None
        return target_type(data["cents"], deserialize_value(data["owner"]))


def test_adapters_write_a_type_and_its_subclasses(serializer: JSONMessageSerializer) -> None:
    serializer.register_adapter(Money, MoneyAdapter())
    money = round_trip(serializer, Money(5, Address("Elm")))
    assert type(money) is Money
    assert (money.cents, money.owner) == (5, Address("Elm"))
    # A subclass that is not registered itself arrives as the class the adapter is for.
    assert type(round_trip(serializer, Euro(5))) is Money
    serializer.register_type(Euro)
    assert type(round_trip(serializer, Euro(5))) is Euro


def test_an_adapter_that_recurses_without_end_is_stopped(serializer: JSONMessageSerializer) -> None:
    serializer.register_adapter(Money, MoneyAdapter())
    endless = Money(1)
    endless.owner = endless
    with pytest.raises(SerializationError, match="nested deeper"):
        serializer.serialize(Order(endless, source="test"))


def test_registrations_of_one_serializer_do_not_leak(serializer: JSONMessageSerializer) -> None:
    data = serializer.serialize(BusActivateWorkerMessage({"a": Address("Elm")}, source="x"))
    with pytest.raises(UnknownTypeError, match="Address"):
        JSONMessageSerializer().deserialize(data)
