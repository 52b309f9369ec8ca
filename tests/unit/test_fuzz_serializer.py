"""The serializer against generated documents: what cannot be a message is refused, and reading runs nothing.

Documents are made as text, so that they hold what no JSON library would write: a key twice, NaN, half of a
surrogate pair, numbers without end.
"""

import dataclasses
import enum
import gc
import itertools
import json
import sys
import threading
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import fuzzing
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

from bus_runtime import BusDataMessage, BusMessage, JSONMessageSerializer, SerializationError, UnknownTypeError
from bus_runtime import messages as bus_messages
from bus_runtime.registry import default_registry


class Colour(enum.Enum):
    RED = "#f00"
    GREEN = "#0f0"


class Item(BaseModel):
    sku: str
    tags: list[str] = []
    note: str | None = None
    weight: float | None
    unit: str | None = "kg"
    more: Any = Field(None, alias="evenMore")


class Open(BaseModel, extra="allow"):
    note: str | None = None


class Numbers(RootModel[dict[str, int | None]]):
    pass


@dataclass
class Address:
    street: str
    flat: int | None = 1
    notes: list[Any] | None = field(default_factory=list)


@dataclass(slots=True)
class Slotted(BusDataMessage):
    payload: Any = None


@dataclass
class Order(BusDataMessage):
    payload: Any
    comment: str | None = "none"


@dataclass
class Checked(BusDataMessage):
    amount: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.amount > 10:
            raise RuntimeError("too much")


MESSAGES = [
    cls
    for cls in vars(bus_messages).values()
    if isinstance(cls, type) and issubclass(cls, BusMessage) and default_registry.tag_of(cls)
] + [Slotted, Order]
CARRIED: list[type[Any]] = [Colour, Item, Open, Numbers, Address]


def new_serializer() -> JSONMessageSerializer:
    serializer = JSONMessageSerializer()
    for cls in CARRIED:
        serializer.register_type(cls)
    return serializer


# --- What is written can be read -----------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
leaves = scalars | st.binary(max_size=20) | st.sampled_from(Colour)
values = st.recursive(
    leaves,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["__type__", "__data__", "source"]), children, max_size=4)
        | st.builds(Address, texts, st.none() | st.integers(0, 99), st.none() | st.lists(children, max_size=3))
        | st.builds(
            Item,
            sku=texts,
            tags=st.lists(texts, max_size=3),
            note=st.none() | texts,
            weight=st.none() | st.floats(0, 9),
            unit=st.none() | texts,
            evenMore=children,
        )
        | st.builds(Open, note=st.none() | texts, other=children, more=st.none())
        | st.builds(Numbers, st.dictionaries(texts, st.none() | st.integers(0, 9), max_size=3))
    ),
    max_leaves=12,
)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values as a field is declared to hold them; for JSON objects, whatever may be in one."""
    if hint is Any:
        return values
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*map(of_type, typing.get_args(hint)))
    if typing.get_origin(hint) is dict:
        return st.dictionaries(texts, values, max_size=4)
    if typing.get_origin(hint) is list:
        return st.lists(of_type(*typing.get_args(hint)), max_size=4)
    plain = {type(None): st.none(), str: texts, bool: st.booleans(), int: st.integers(-(2**63), 2**64 - 1)}
    if hint in plain:
        return plain[hint]
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return instances(hint)


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: of_type(hints[f.name]) for f in dataclasses.fields(cls) if f.init})


messages: st.SearchStrategy[BusMessage] = st.one_of(*map(instances, MESSAGES))


def holds_a_counterfeit(value: Any) -> bool:
    """Whether a dictionary in it has both keys of a typed value."""
    if isinstance(value, dict):
        return value.keys() >= {"__type__", "__data__"} or any(map(holds_a_counterfeit, value.values()))
    if isinstance(value, list):
        return any(map(holds_a_counterfeit, value))
    if isinstance(value, BaseModel):
        return any(map(holds_a_counterfeit, [*vars(value).values(), *(value.__pydantic_extra__ or {}).values()]))
    if dataclasses.is_dataclass(value):
        return any(holds_a_counterfeit(getattr(value, f.name)) for f in dataclasses.fields(value))
    return False


@fuzzing.examples(200)
@given(messages)
def test_every_registered_message_arrives_as_it_was_sent(message: BusMessage) -> None:
    serializer = new_serializer()
    if holds_a_counterfeit(message):
        with pytest.raises(SerializationError, match="__type__ and __data__"):
            serializer.serialize(message)
        return
    data = serializer.serialize(message)
    json.loads(data)
    arrived = serializer.deserialize(data)
    assert type(arrived) is type(message)
    assert arrived == message
    assert serializer.serialize(arrived) == data


# --- What cannot be written is refused -----------------------------------------------------------


class Opaque:
    pass


anything = st.recursive(
    leaves
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.complex_numbers()
    | st.dates()
    | st.builds(Opaque)
    | st.sampled_from([len, Opaque, json, ..., Checked]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children, children)
        | st.frozensets(st.integers(), max_size=2)
        | st.dictionaries(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), children)
        | st.builds(Address, children, children, children)
        | st.builds(Open, other=children)
    ),
    max_leaves=8,
)


@fuzzing.examples(200)
@given(anything)
def test_whatever_is_written_is_a_message_that_can_be_read(payload: Any) -> None:
    serializer = new_serializer()
    try:
        data = serializer.serialize(Order(payload, source="x"))
    except SerializationError:
        return
    arrived = serializer.deserialize(data)
    assert isinstance(arrived, Order)
    assert serializer.serialize(arrived) == data


# --- What is read --------------------------------------------------------------------------------

REGISTERED = [tag for cls in (*MESSAGES, *CARRIED, Checked) for tag in (new_serializer()._registry.tag_of(cls),) if tag]
HOSTILE = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "importlib.import_module",
    "pickle.loads",
    "antigravity.fly",
    "this.s",
    "bus_runtime.serializers.JSONMessageSerializer",
    "pipecat.bus.messages.BusFrameMessage",
    "pipecat.bus.messages.BusLocalMessage",
    "pipecat.bus.messages.BusAddWorkerMessage",
    "builtins.object",
    "builtins.type",
    ".",
    "..",
    "",
    "a" * 5000,
    "x." * 2000,
    "../../etc/passwd",
    "os\\u0000.system",
    "\uff2f\uff33.system",
]
FIELDS = [
    *{f.name for cls in (*MESSAGES, Address, Checked) for f in dataclasses.fields(cls)},
    *Item.model_fields,
    "__class__",
    "__dict__",
    "__init__",
    "__post_init__",
    "__reduce__",
    "_wire_tag",
    "root",
    "evenMore",
]

json_strings = (
    st.text(max_size=10).map(json.dumps)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    )
    | st.sampled_from(
        ['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\x00"', '"\\x41"', '"', '"eA=="', '"RED"', '"BLUE"']
    )
)
json_scalars = json_strings | st.sampled_from(
    [
        "null",
        "true",
        "1",
        "-0",
        "-1.5e-5",
        "11",
        "9" * 30,
        "9" * 400,
        "1e400",
        "-1e400",
        "1e-400",
        "01",
        "+1",
        ".5",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "undefined",
        "'x'",
        "",
        "/**/1",
        "{",
        "}",
        "[",
        "]",
        ",",
    ]
)


def object_of(members: list[tuple[str, str]]) -> str:
    """Whose keys may be there twice."""
    return "{" + ",".join(f"{key}:{value}" for key, value in members) + "}"


def nested(depth: int, shape: tuple[str, str], inner: str) -> str:
    begin, end = shape
    return begin * depth + inner + end * depth


json_tags = st.sampled_from([*map(json.dumps, REGISTERED), *map(json.dumps, HOSTILE), '"bytes"']) | json_strings
json_keys = st.sampled_from([json.dumps(name) for name in FIELDS]) | json_strings
type_keys = st.sampled_from(['"__type__"'] * 4 + ['"\\u005f_type__"', '"__Type__"', '"__type__ "'])
data_keys = st.sampled_from(['"__data__"'] * 4 + ['"__dat\\u0061__"', '"__data"'])


def typed_text(data: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.tuples(type_keys, json_tags), st.tuples(data_keys, data))
    more = st.lists(st.tuples(type_keys | data_keys, json_tags | data), max_size=1)
    return st.builds(lambda pair, extra: object_of([*pair, *extra]), pairs, more)


def members_text(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(json_keys, value), max_size=5).map(object_of)


json_values = st.recursive(
    json_scalars,
    lambda children: (
        st.lists(children, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | members_text(children)
        | typed_text(children | members_text(children))
        | st.builds(
            nested,
            st.sampled_from([1, 30, 97, 98, 99, 100, 101, 250, 1100]),
            st.sampled_from(
                [
                    ("[", "]"),
                    ('{"a":', "}"),
                    ('{"__type__":"bytes","__data__":', "}"),
                    (f'{{"__type__":{json.dumps(REGISTERED[-2])},"__data__":{{"notes":', "}}"),
                ]
            ),
            children,
        )
    ),
    max_leaves=8,
)
documents = (
    json_values
    | typed_text(members_text(json_values))
    | st.builds(
        lambda tag, members: object_of([('"__type__"', tag), ('"__data__"', members)]),
        st.sampled_from([json.dumps(tag) for tag in REGISTERED]),
        members_text(json_values),
    )
)


NESTED = """{"__type__": "pipecat.bus.messages.BusWorkerReadyMessage", "__data__": {
    "started_at": {"__type__": "pipecat.bus.messages.BusMessage", "__data__": {}}
}}"""

RUNNING = (
    *("import", "exec", "compile", "open", "code.", "function.", "os.", "subprocess.", "socket.", "ctypes.", "pickle."),
    *("marshal.", "shutil.", "urllib.", "webbrowser."),
)
"""What the events begin with that Python reports to an auditor when something is imported, run or opened."""


@pytest.fixture(scope="module")
def audited() -> Callable[[], Any]:
    """A context in which such events are collected."""
    events: list[str] = []
    watching = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching == threading.get_ident() and event.startswith(RUNNING):
            events.append(f"{event}{arguments!r}"[:200])

    @contextmanager
    def watched() -> Iterator[list[str]]:
        nonlocal watching
        events.clear()
        # What other tests have left behind may open files when it is collected.
        gc.disable()
        watching = threading.get_ident()
        try:
            yield events
        finally:
            watching = 0
            gc.enable()

    sys.addaudithook(hook)
    return watched


def read(data: bytes, watched: Callable[[], Any]) -> BusMessage | None:
    """The message, if it is one; with what must be true whatever `data` is."""
    serializer = new_serializer()
    modules = set(sys.modules)
    message, unknown = None, ""
    with watched() as events:
        try:
            message = serializer.deserialize(data)
        except UnknownTypeError as error:
            unknown = error.tag
        except SerializationError:
            pass
    assert events == []
    assert set(sys.modules) == modules
    assert unknown not in REGISTERED
    if message is not None:
        assert type(message) in (*MESSAGES, Checked)
        names = {f.name for f in dataclasses.fields(message)}
        assert set(getattr(message, "__dict__", ())) <= names
    return message


@pytest.fixture(scope="module", autouse=True)
def one_number() -> Iterator[None]:
    """Messages that come without a number are given the next one: here it is always the same, to compare them."""
    with (
        patch("bus_runtime.messages._ids", itertools.repeat(0)),
        patch("bus_runtime.messages._name_counts", defaultdict(lambda: itertools.repeat(0))),
    ):
        yield


def read_slowly(data: bytes) -> BusMessage | None:
    """Without looking at the bytes first, and through constructors."""
    with (
        patch("bus_runtime.serializers._is_flat", return_value=False),
        patch("bus_runtime.shapes._is_only_its_fields", return_value=False),
    ):
        try:
            return new_serializer().deserialize(data)
        except SerializationError:
            return None


@fuzzing.examples(400)
@given(document=documents)
@example(document=NESTED)
def test_a_document_is_a_message_or_refused(document: str, audited: Callable[[], Any]) -> None:
    data = document.encode("utf-8", "surrogatepass")
    message = read(data, audited)
    assert read_slowly(data) == message
    if message is None:
        return
    # What was read can be passed on as it is.
    again = new_serializer().deserialize(new_serializer().serialize(message))
    assert again == message


damages = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 8),
        st.binary(max_size=4) | json_scalars.map(lambda text: text.encode("utf-8", "replace")),
    ),
    min_size=1,
    max_size=3,
)
"""Where, how many bytes, and what to put there instead."""


@fuzzing.examples(300)
@given(message=messages, damages=damages)
def test_a_damaged_message_is_a_message_or_refused(
    message: BusMessage, damages: list[tuple[float, int, bytes]], audited: Callable[[], Any]
) -> None:
    try:
        data = new_serializer().serialize(message)
    except SerializationError:
        return
    for where, length, instead in damages:
        start = int(where * len(data))
        data = data[:start] + instead + data[start + length :]
    assert read(data, audited) == read_slowly(data)


@fuzzing.examples(300)
@given(data=st.binary(max_size=200))
def test_bytes_are_refused(data: bytes, audited: Callable[[], Any]) -> None:
    assert read(data, audited) is None
