"""What there is to know about a class to write and read its instances, worked out once per class."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, RootModel

from bus_runtime.messages import BusMessage


class Shape:
    """The fields of one dataclass.

    Args:
        cls: A dataclass.
    """

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._fields = dataclasses.fields(cls)
        self._names = tuple(field.name for field in self._fields)
        self._values_of = _tuple_getter(self._names)
        #: What a field is that the wire leaves out. A factory's value, and what `__post_init__` numbers, is only
        #: to be had from the constructor.
        self._defaults = {f.name: None if f.default is dataclasses.MISSING else f.default for f in self._fields}
        self._given = frozenset(
            f.name
            for f in self._fields
            if f.default_factory is not dataclasses.MISSING or (not f.init and f.default is dataclasses.MISSING)
        )
        self._all = frozenset(self._names)
        #: Fields that are None when the wire leaves them out.
        self.optional = frozenset(name for name in self._names if self._defaults[name] is None) - self._given
        self._is_only_its_fields = _is_only_its_fields(cls, self._names)

    def items(self, value: Any) -> zip[tuple[str, Any]]:
        """The fields of an instance, by name."""
        return zip(self._names, self._values_of(value), strict=False)

    def build(self, values: dict[str, Any]) -> Any:
        """An instance. Fields the wire leaves out are None, as the writer omits exactly those, or have their
        default; fields that this version of the class does not have are ignored."""
        names = values.keys()
        # Running the constructor, which numbers the message, only to overwrite the number costs as much as all the
        # rest of reading a message.
        if self._is_only_its_fields and self._given <= names <= self._all:
            built = object.__new__(self._cls)
            built.__dict__ = {**self._defaults, **values}
            return built
        return self._construct(values)

    def _construct(self, values: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {}
        assigned_later: dict[str, Any] = {}
        for field in self._fields:
            if field.name in values:
                (arguments if field.init else assigned_later)[field.name] = values[field.name]
            elif field.init and field.default is field.default_factory is dataclasses.MISSING:
                arguments[field.name] = None
        built = self._cls(**arguments)
        for name, value in assigned_later.items():
            setattr(built, name, value)
        return built


class ModelShape:
    """The fields of one pydantic model.

    Args:
        cls: A pydantic model.
    """

    def __init__(self, cls: type[BaseModel]) -> None:
        self._cls = cls
        self._is_root = issubclass(cls, RootModel)
        #: Fields that are None when the wire leaves them out.
        self.optional = frozenset(
            name for name, f in cls.model_fields.items() if f.default is None and f.default_factory is None
        )

    def items(self, value: BaseModel) -> Iterable[tuple[str, Any]]:
        """The fields of an instance by name, those that the model allows besides its own included."""
        extra = value.__pydantic_extra__
        return value.__dict__.items() if not extra else [*value.__dict__.items(), *extra.items()]

    def build(self, values: dict[str, Any]) -> BaseModel:
        """An instance, validated. Raises `ValidationError`."""
        # Names are on the wire, also of fields that have an alias elsewhere.
        return self._cls.model_validate(values["root"] if self._is_root else values, by_alias=True, by_name=True)


def _tuple_getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """`attrgetter`, which gives a tuple for two names or more only."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _is_only_its_fields(cls: type[Any], names: tuple[str, ...]) -> bool:
    """Whether assigning the fields to a bare instance is all that the constructor does, numbering apart."""
    parameters = vars(cls).get("__dataclass_params__")
    code = getattr(vars(cls).get("__init__"), "__code__", None)
    post_init = getattr(cls, "__post_init__", None)
    return (
        parameters is not None
        and parameters.init
        # What dataclasses generates comes from no file; a decorator may have put its own around it.
        and code is not None
        and code.co_filename == "<string>"
        and post_init in (None, BusMessage.__post_init__)
        and getattr(cls, "__new__") is object.__new__  # noqa: B009 - mypy thinks these could never be the same
        and getattr(cls, "__setattr__") is object.__setattr__  # noqa: B009 - as above
        and cls.__dictoffset__ != 0
        # Properties and slots live in the class and not in the instance's __dict__.
        and not any(inspect.isdatadescriptor(inspect.getattr_static(cls, name, None)) for name in names)
    )
