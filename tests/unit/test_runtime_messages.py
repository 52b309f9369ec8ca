"""The message hierarchy and which classes may travel."""

import enum
from dataclasses import dataclass

import pytest

import bus_runtime
from bus_runtime import (
    BusCancelMessage,
    BusDataMessage,
    BusEndMessage,
    BusJobResponseMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    BusWorkerLocalErrorMessage,
    JobStatus,
    register_message,
)
from bus_runtime.registry import TypeRegistry, default_registry


def test_ids_grow_and_names_count_per_class() -> None:
    first, second = BusEndMessage(source="a"), BusEndMessage("because", source="b", target="c")
    assert second.id > first.id
    kind, _, count = first.name.partition("#")
    assert kind == "BusEndMessage"
    assert second.name == f"BusEndMessage#{int(count) + 1}"
    assert str(second) == f"{second.name} (source=b, target=c)"
    assert second.reason == "because"


def test_every_public_message_has_one_priority() -> None:
    for name in bus_runtime.__all__:
        cls = getattr(bus_runtime, name)
        if isinstance(cls, type) and issubclass(cls, BusMessage) and cls is not BusMessage:
            assert issubclass(cls, BusDataMessage) != issubclass(cls, BusSystemMessage), name


def test_messages_of_the_reference_have_its_tags() -> None:
    assert default_registry.tag_of(BusCancelMessage) == "pipecat.bus.messages.BusCancelMessage"
    assert default_registry.resolve("pipecat.bus.messages.BusCancelMessage") is BusCancelMessage


def test_own_messages_register_themselves_under_their_dotted_path() -> None:
    @dataclass
    class Arrived(BusDataMessage):
        pass

    assert default_registry.tag_of(Arrived) == f"{__name__}.Arrived"
    assert default_registry.resolve(f"{__name__}.Arrived") is Arrived


def test_a_message_class_can_choose_its_tag_also_when_rebuilt_with_slots() -> None:
    @dataclass(slots=True)
    class Shipped(BusDataMessage, tag="shop.Shipped"):
        parcel: str

    assert default_registry.tag_of(Shipped) == "shop.Shipped"
    assert default_registry.resolve("shop.Shipped") is Shipped
    assert default_registry.resolve(f"{__name__}.Shipped") is None


def test_local_messages_have_no_tag() -> None:
    assert default_registry.tag_of(BusWorkerLocalErrorMessage) is None
    assert default_registry.resolve("pipecat.bus.messages.BusWorkerLocalErrorMessage") is None
    with pytest.raises(ValueError, match="never travels"):
        register_message(BusWorkerLocalErrorMessage)

    @dataclass
    class Secret(BusDataMessage, BusLocalMessage):
        pass

    assert default_registry.tag_of(Secret) is None


def test_a_tag_belongs_to_one_class() -> None:
    with pytest.raises(ValueError, match=r"is taken by bus_runtime\.messages\.BusEndMessage"):
        register_message(TypeRegistry, "pipecat.bus.messages.BusEndMessage")


def test_registering_again_under_another_tag_keeps_reading_the_first() -> None:
    class Colour(enum.Enum):
        RED = 1

    registry = TypeRegistry(parent=default_registry)
    registry.register(Colour, "old.Colour")
    registry.register(Colour, "new.Colour")
    assert registry.tag_of(Colour) == "new.Colour"
    assert registry.resolve("old.Colour") is registry.resolve("new.Colour") is Colour
    assert default_registry.resolve("old.Colour") is None


def test_job_status_becomes_the_enum_and_an_unknown_one_stays() -> None:
    assert BusJobResponseMessage("1", "completed", source="x").status is JobStatus.COMPLETED
    assert BusJobResponseMessage("1", "postponed", source="x").status == "postponed"
