"""Building messages without their constructor, only where nobody could tell the difference."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bus_runtime import BusDataMessage, BusEndMessage, BusJobResponseMessage, BusMessage, JobStatus
from bus_runtime.shapes import Shape


@dataclass
class Parcel(BusDataMessage):
    weight: float
    label: str | None = "none"
    stops: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    a: int
    b: int = 2


@dataclass(slots=True)
class Slotted:
    a: int
    b: int = 2


@dataclass
class Plain:
    a: int
    b: int | None = 2
    c: int = field(init=False, default=3)
    d: list[int] = field(init=False, default_factory=list)


@dataclass
class Single:
    only: int


@dataclass
class Nothing:
    pass


def constructed(cls: type[Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts how often the constructor of a class runs."""
    calls = 0
    original = cls.__init__

    @functools.wraps(original)
    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        original(self, *args, **kwargs)

    monkeypatch.setattr(cls, "__init__", counting)
    return lambda: calls


def message_fields(**values: Any) -> dict[str, Any]:
    return {"id": 7, "name": "Parcel#7", "source": "s"} | values


def test_a_message_is_what_its_constructor_would_make() -> None:
    expected = Parcel(1.5, source="s", stops=["a"])
    expected.id, expected.name = 7, "Parcel#7"
    built = Shape(Parcel).build(message_fields(weight=1.5, stops=["a"]))
    assert built == expected
    assert list(vars(built)) == ["id", "name", "source", "target", "weight", "label", "stops"]


def test_messages_of_plain_classes_are_not_constructed(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {cls: Shape(cls) for cls in (Parcel, BusEndMessage)}
    parcels, ends = constructed(Parcel, monkeypatch), constructed(BusEndMessage, monkeypatch)
    shapes[Parcel].build(message_fields(weight=1.5, stops=[]))
    shapes[BusEndMessage].build(message_fields())
    assert (parcels(), ends()) == (0, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"id": 7, "source": "s", "weight": 1, "stops": []},  # the constructor numbers it
        message_fields(weight=1),  # the constructor makes the list
        message_fields(weight=1, stops=[], of_a_later_version=1, __class__="x"),
    ],
    ids=["no name", "no stops", "unknown fields"],
)
def test_what_only_the_constructor_knows_it_does(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(Parcel)
    calls = constructed(Parcel, monkeypatch)
    built = shape.build(values)
    assert calls() == 1
    assert built.name.startswith("Parcel#")
    assert (built.id, built.stops, built.label, built.target) == (7, [], "none", None)
    assert type(built) is Parcel
    assert not hasattr(built, "of_a_later_version")


def test_a_classes_own_post_init_runs() -> None:
    built = Shape(BusJobResponseMessage).build(message_fields(job_id="1", status="failed"))
    assert built.status is JobStatus.FAILED
    assert (built.id, built.name) == (7, "Parcel#7")


@pytest.mark.parametrize(
    ("cls", "values", "expected"),
    [
        (Frozen, {"a": 1}, Frozen(1)),
        (Slotted, {"a": 1}, Slotted(1)),
        (Slotted, {}, Slotted(None)),  # type: ignore[arg-type]
        (Plain, {"a": 1, "b": None, "d": []}, Plain(1, None)),
        (Plain, {"a": 1}, Plain(1)),
        (Single, {"only": 1}, Single(1)),
        (Single, {}, Single(None)),  # type: ignore[arg-type]
        (Nothing, {"a": 1}, Nothing()),
    ],
    ids=str,
)
def test_other_dataclasses(cls: type[Any], values: dict[str, Any], expected: Any) -> None:
    assert Shape(cls).build(values) == expected
    assert dict(Shape(cls).items(expected)) == {name: getattr(expected, name) for name in cls.__dataclass_fields__}


def test_a_factorys_value_is_not_shared() -> None:
    shape = Shape(Plain)
    assert shape.build({"a": 1}).d is not shape.build({"a": 1}).d


def upper(cls: type[Any]) -> type[Any]:
    original = cls.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.text = self.text.upper()

    cls.__init__ = init
    return cls


@upper
@dataclass
class Decorated(BusDataMessage):
    text: str


@dataclass(init=False)
class Handmade(BusDataMessage):
    text: str

    def __init__(self, *, source: str, target: str | None, text: str) -> None:
        self.source, self.target, self.text = source, target, text.upper()


@dataclass
class Base(BusDataMessage):
    text: str


class Undecorated(Base):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.text = self.text.upper()


@dataclass
class WithProperty(BusDataMessage):
    text: str

    def _get(self) -> str:
        return self._text.upper()

    def _set(self, text: str) -> None:
        self._text = text


WithProperty.text = property(WithProperty._get, WithProperty._set)  # type: ignore[assignment]


@dataclass
class Watchful(BusDataMessage):
    text: str

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.upper() if name == "text" else value)


@dataclass
class New(BusDataMessage):
    text: str

    def __new__(cls, **values: Any) -> Any:
        values["text"] = values["text"].upper()
        made = super().__new__(cls)
        made.__dict__["made"] = True
        return made

    def __post_init__(self) -> None:
        super().__post_init__()
        self.text = self.text.upper()


@pytest.mark.parametrize("cls", [Decorated, Handmade, Undecorated, WithProperty, Watchful, New])
def test_a_class_that_does_more_than_assign_is_constructed(cls: type[BusMessage]) -> None:
    built = Shape(cls).build(message_fields(text="quiet", target=None))
    assert type(built) is cls
    assert built.text == "QUIET"
    assert (built.id, built.name) == (7, "Parcel#7")
