"""The contract of the wire: the reference's serializer against ours, for every message type both have."""

import dataclasses
import json
from typing import Any

import pipecat.bus
import pipecat.bus.messages as reference_messages
import pytest
from pipecat.bus.serializers import JSONMessageSerializer as ReferenceSerializer
from pipecat.frames.frames import TextFrame
from pipecat.pipeline.job_context import JobStatus as ReferenceJobStatus
from pipecat.processors.frame_processor import FrameDirection
from pipecat.registry.types import WorkerRegistryEntry as ReferenceEntry
from pydantic import BaseModel

import bus_runtime
from bus_runtime import (
    BusDataMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    JobStatus,
    JSONMessageSerializer,
    UnknownTypeError,
    WorkerRegistryEntry,
)

#: What ours leaves out, because it holds objects of pipecat.
ABSENT = {"BusFrameMessage", "BusBridgeProcessor"}

SHARED = sorted(
    name
    for name in pipecat.bus.__all__
    if isinstance(cls := getattr(bus_runtime, name, None), type) and issubclass(cls, BusMessage)
)
TRAVELLING = [name for name in SHARED if not issubclass(getattr(bus_runtime, name), BusLocalMessage)]

VALUES: dict[str, list[Any]] = {
    "int": [42],
    "str": ["", "täxt \u2603"],
    "bool": [True, False],
    "str | None": [None, "because"],
    "float | None": [None, 1764000000.25],
    "dict | None": [None, {}, {"a": [1, 2.5, None, {"b": False}], "blob": b"\x00\xff", "s": '\\"\n'}],
}


def build(module: Any, name: str, variant: int) -> Any:
    """A message with the variant-th value of each field, from the reference's declarations or from ours."""
    cls = getattr(module, name)
    entry, status = (WorkerRegistryEntry, JobStatus) if module is bus_runtime else (ReferenceEntry, ReferenceJobStatus)
    values: dict[str, Any] = {"source": "sender", "target": [None, "someone"][variant % 2]}
    for field in dataclasses.fields(getattr(reference_messages, name)):
        kind = str(field.type)
        if field.name in ("id", "name", "source", "target"):
            continue
        if kind == "JobStatus":
            values[field.name] = list(status)[variant]
        elif kind == "list[WorkerRegistryEntry]":
            values[field.name] = [entry("w1"), entry("w2", "w1", True, True, 5.5)][:variant]
        else:
            values[field.name] = VALUES[kind][variant % len(VALUES[kind])]
    return cls(**values)


def as_data(message: Any) -> dict[str, Any]:
    return dataclasses.asdict(message)


def test_nothing_shared_is_missing() -> None:
    assert {name for name in pipecat.bus.__all__ if not hasattr(bus_runtime, name)} == ABSENT
    assert len(TRAVELLING) > 20


@pytest.mark.parametrize("name", SHARED)
def test_declarations_agree(name: str) -> None:
    """Same fields in the same order, same defaults, same priority, local or not."""
    mine, theirs = getattr(bus_runtime, name), getattr(reference_messages, name)
    described = [
        [(f.name, f.init, f.kw_only, f.default, f.default_factory) for f in dataclasses.fields(cls)]
        for cls in (mine, theirs)
    ]
    assert described[0] == described[1]
    for own, other in (
        (BusDataMessage, reference_messages.BusDataMessage),
        (BusSystemMessage, reference_messages.BusSystemMessage),
        (BusLocalMessage, reference_messages.BusLocalMessage),
    ):
        assert issubclass(mine, own) == issubclass(theirs, other)


@pytest.mark.parametrize("variant", range(3))
@pytest.mark.parametrize("name", TRAVELLING)
def test_each_message_crosses_in_both_directions(name: str, variant: int) -> None:
    ours, reference = JSONMessageSerializer(), ReferenceSerializer()
    mine, theirs = build(bus_runtime, name, variant), build(reference_messages, name, variant)

    arrived = reference.deserialize(ours.serialize(mine))
    assert type(arrived) is type(theirs)
    assert as_data(arrived) == as_data(mine)

    arrived = ours.deserialize(reference.serialize(theirs))
    assert type(arrived) is type(mine)
    assert as_data(arrived) == as_data(theirs)


@pytest.mark.parametrize("name", TRAVELLING)
def test_the_json_is_the_same(name: str) -> None:
    mine, theirs = build(bus_runtime, name, 1), build(reference_messages, name, 1)
    theirs.id, theirs.name = mine.id, mine.name
    assert json.loads(JSONMessageSerializer().serialize(mine)) == json.loads(ReferenceSerializer().serialize(theirs))


def test_job_status_is_the_enum_on_our_side() -> None:
    theirs = reference_messages.BusJobResponseMessage("1", ReferenceJobStatus.FAILED, source="s")
    arrived = JSONMessageSerializer().deserialize(ReferenceSerializer().serialize(theirs))
    assert isinstance(arrived, bus_runtime.BusJobResponseMessage)
    assert arrived.status is JobStatus.FAILED


class Address(BaseModel):
    street: str
    flat: int | None = None


def test_values_in_payloads_cross_in_both_directions() -> None:
    """A pydantic model and an enum that both sides know by the same dotted path."""
    ours = JSONMessageSerializer()
    ours.register_type(Address)
    ours.register_type(FrameDirection)
    payload = {"address": Address(street="Elm"), "direction": FrameDirection.UPSTREAM, "blobs": [b"", b"\x00"]}
    mine = bus_runtime.BusJobRequestMessage("1", payload=dict(payload), source="s")
    theirs = reference_messages.BusJobRequestMessage("1", payload=dict(payload), source="s")
    assert ReferenceSerializer().deserialize(ours.serialize(mine)).payload == payload
    arrived = ours.deserialize(ReferenceSerializer().serialize(theirs))
    assert isinstance(arrived, bus_runtime.BusJobRequestMessage)
    assert arrived.payload == payload


def test_frames_are_unknown_until_an_application_registers_them() -> None:
    theirs = reference_messages.BusFrameMessage(TextFrame("hello"), FrameDirection.DOWNSTREAM, source="s")
    data = ReferenceSerializer().serialize(theirs)
    ours = JSONMessageSerializer()
    with pytest.raises(UnknownTypeError, match=r"pipecat\.bus\.messages\.BusFrameMessage"):
        ours.deserialize(data)

    @dataclasses.dataclass
    class FrameMessage(BusDataMessage):
        frame: Any
        direction: Any
        bridge: str | None = None

    ours.register_type(FrameMessage, "pipecat.bus.messages.BusFrameMessage")
    ours.register_type(TextFrame)
    ours.register_type(FrameDirection)
    arrived = ours.deserialize(data)
    assert isinstance(arrived, FrameMessage)
    assert arrived.frame.text == "hello"
    assert arrived.direction is FrameDirection.DOWNSTREAM
    back = ReferenceSerializer().deserialize(ours.serialize(arrived))
    assert isinstance(back, reference_messages.BusFrameMessage)
    assert back.frame.text == "hello"
