"""The messages that travel on a bus: hierarchy, fields and wire tags of the reference client.

Names, fields and tags are those of pipecat-ai 1.14 (`pipecat.bus.messages`), so that peers of both
kinds understand each other. `BusFrameMessage` is absent because it carries a pipecat frame; an
application that has pipecat installed can register it (`JSONMessageSerializer.register_type`).

Every subclass of `BusMessage` registers itself when it is defined and from then on may be built from
the wire: nothing is imported on behalf of a message, and a class the application did not define cannot be
named. Local messages are the exception: they never travel, so they are never registered.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from bus_runtime.registry import default_registry, default_tag

_REFERENCE_MODULE = "pipecat.bus.messages"

_ids = itertools.count()
_name_counts: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)

MessageClass = TypeVar("MessageClass", bound=type[Any])


class BusLocalMessage:
    """Mixin: the message stays in this process and is never published."""


@dataclass(kw_only=True)
class BusMessage:
    """Base class of everything a bus carries.

    Attributes:
        id: Number of this message in the process that made it; travels with the message.
        name: `ClassName#count`, for logs; travels with the message.
        source: Name of the worker or component that sent it.
        target: Name of the intended recipient, or None for everyone.
    """

    id: int = field(init=False)
    name: str = field(init=False)
    source: str
    target: str | None = None

    def __init_subclass__(cls, *, tag: str | None = None, **kwargs: Any) -> None:
        """Register the class for the wire, under `tag` if given, else under its dotted path."""
        super().__init_subclass__(**kwargs)
        if issubclass(cls, BusLocalMessage):
            return
        # A class rebuilt by @dataclass(slots=True) comes through here again without the keyword.
        tag = tag or cls.__dict__.get("_wire_tag")
        if tag is None:
            is_ours = cls.__module__ == __name__
            tag = f"{_REFERENCE_MODULE}.{cls.__name__}" if is_ours else default_tag(cls)
        cls._wire_tag = tag  # type: ignore[attr-defined]
        default_registry.register(cls, tag)

    def __post_init__(self) -> None:
        self.id = next(_ids)
        cls_name = type(self).__name__
        self.name = f"{cls_name}#{next(_name_counts[cls_name])}"

    def __str__(self) -> str:
        return f"{self.name} (source={self.source}, target={self.target})"


default_registry.register(BusMessage, f"{_REFERENCE_MODULE}.BusMessage")


def register_message(cls: MessageClass, tag: str | None = None) -> MessageClass:
    """Let a class travel on every bus of this process, under `tag` (default: its dotted path).

    Usable as a decorator. Dataclasses, enums and pydantic models that are fields of a message need it (or
    `JSONMessageSerializer.register_type`); `BusMessage` subclasses only for another tag than the one they
    were defined with. The class is written under the tag given last; the earlier ones are still read.

    Raises:
        ValueError: The tag belongs to another class, or the class is a `BusLocalMessage`.
    """
    if issubclass(cls, BusLocalMessage):
        raise ValueError(f"{cls.__name__} is a BusLocalMessage: it never travels, so it has no tag")
    default_registry.register(cls, tag)
    return cls


@dataclass(kw_only=True)
class BusDataMessage(BusMessage):
    """Normal priority: handled in order, one after the other, per subscriber."""


@dataclass(kw_only=True)
class BusSystemMessage(BusMessage):
    """High priority: overtakes data messages that wait, and does not wait for one that is being handled."""


# --- Types carried by messages -------------------------------------------------------------------


class JobStatus(StrEnum):
    """How a job ended. On the wire it is the plain string."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


@dataclass
class WorkerRegistryEntry:
    """One worker in a registry snapshot; `started_at` is a Unix timestamp in seconds."""

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None


default_registry.register(JobStatus, "pipecat.pipeline.job_context.JobStatus")
default_registry.register(WorkerRegistryEntry, "pipecat.registry.types.WorkerRegistryEntry")


def _job_status(value: str) -> JobStatus | str:
    """The status as the enum; a status this version does not know stays the string it is."""
    try:
        return JobStatus(value)
    except ValueError:
        return value


# --- Pipeline commands ---------------------------------------------------------------------------


@dataclass
class BusTTSSpeakMessage(BusDataMessage):
    """Asks a pipeline worker to speak `text`, and by default to add it to the conversation."""

    text: str
    append_to_context: bool = True


@dataclass
class BusFlushProgressMessage(BusDataMessage):
    """Says that the flush probe `flush_id` of another worker is still making progress."""

    flush_id: int


# --- Worker lifecycle ----------------------------------------------------------------------------


@dataclass
class BusActivateWorkerMessage(BusDataMessage):
    """Tells a worker to become active, with optional arguments."""

    args: dict[str, Any] | None = None


@dataclass
class BusDeactivateWorkerMessage(BusDataMessage):
    """Tells a worker to become inactive."""


@dataclass
class BusEndMessage(BusDataMessage):
    """Asks the runner to end the session gracefully."""

    reason: str | None = None


@dataclass
class BusEndWorkerMessage(BusDataMessage):
    """Tells a worker to end gracefully."""

    reason: str | None = None


@dataclass
class BusCancelMessage(BusSystemMessage):
    """Asks the runner to cancel the session at once."""

    reason: str | None = None


@dataclass
class BusCancelWorkerMessage(BusSystemMessage):
    """Tells a worker to cancel at once."""

    reason: str | None = None


# --- Worker registry and errors ------------------------------------------------------------------


@dataclass
class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Asks the local runner to add `worker`, an object of this process."""

    worker: Any


@dataclass
class BusWorkerRegistryMessage(BusSystemMessage):
    """Snapshot of the workers that `runner` owns, so that remote runners find them."""

    runner: str
    workers: list[WorkerRegistryEntry]


@dataclass
class BusWorkerReadyMessage(BusDataMessage):
    """Announces that the sending worker is ready; `started_at` is a Unix timestamp in seconds."""

    runner: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None


@dataclass
class BusWorkerErrorMessage(BusSystemMessage):
    """Reports an error of a root worker to every peer."""

    error: str


@dataclass
class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """Reports an error of a child worker to its parent in the same process."""

    error: str


# --- Jobs ----------------------------------------------------------------------------------------


@dataclass
class BusJobRequestMessage(BusDataMessage):
    """Asks a worker to do a job; `job_name` selects a named handler."""

    job_id: str
    job_name: str | None = None
    payload: dict[str, Any] | None = None


@dataclass
class BusJobResponseMessage(BusDataMessage):
    """A job ended with `status`."""

    job_id: str
    status: JobStatus | str
    response: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.status = _job_status(self.status)


@dataclass
class BusJobResponseUrgentMessage(BusSystemMessage):
    """A job ended with `status`; overtakes data messages."""

    job_id: str
    status: JobStatus | str
    response: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.status = _job_status(self.status)


@dataclass
class BusJobUpdateMessage(BusDataMessage):
    """Progress of a job."""

    job_id: str
    update: dict[str, Any] | None = None


@dataclass
class BusJobUpdateUrgentMessage(BusSystemMessage):
    """Progress of a job; overtakes data messages."""

    job_id: str
    update: dict[str, Any] | None = None


@dataclass
class BusJobUpdateRequestMessage(BusDataMessage):
    """Asks for the progress of a job."""

    job_id: str


@dataclass
class BusJobCancelMessage(BusSystemMessage):
    """Cancels a running job."""

    job_id: str
    reason: str | None = None


@dataclass
class BusJobStreamStartMessage(BusDataMessage):
    """A streamed response begins; `data` may describe it (say its content type)."""

    job_id: str
    data: dict[str, Any] | None = None


@dataclass
class BusJobStreamDataMessage(BusDataMessage):
    """One chunk of a streamed response."""

    job_id: str
    data: dict[str, Any] | None = None


@dataclass
class BusJobStreamEndMessage(BusDataMessage):
    """A streamed response ends."""

    job_id: str
    data: dict[str, Any] | None = None
