"""Pods that are to have bindings: what of their metadata tells whether they got them. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bus_operator.injection import INJECTED_ANNOTATION
from bus_operator.pod_requests import (
    CHANNELS_ANNOTATION,
    RUNTIME_ANNOTATION,
    labels_of,
    requested_channels,
    shown,
)
from bus_operator.runtime_injection import INJECTED_RUNTIME_ANNOTATION

if TYPE_CHECKING:  # importing the models takes longer than most commands of busctl
    from bus_operator.inventory import Key
    from bus_operator.model import Uid

GRACE = timedelta(minutes=1)
"""How long a pod may wait for a BusChannel that is created after it, as when both are in one manifest."""

Selecting = Callable[[str, Mapping[str, str]], Sequence[str]]
"""(namespace, labels of a pod) -> names of the BusChannels that select it."""


@dataclass(frozen=True)
class Pod:
    """The metadata of a pod that asks for bindings, or is selected for them."""

    namespace: str
    name: str
    uid: "Uid"
    created: datetime
    deleting: bool
    channels: tuple[str, ...]
    """The BusChannels whose bindings it is to have."""
    injected: tuple[str, ...]
    """Those that the webhook mounted."""
    warnings: tuple[str, ...]
    """What was wrong with asking."""
    lacks_runtime: bool = False
    """Whether it asks for bus_runtime and was created without."""

    kind = "Pod"
    api_version = "v1"

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about it says in fields."""
        return {"kind": "Pod", "namespace": self.namespace, "name": self.name}

    @property
    def key(self) -> "Key":
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def without(self) -> tuple[str, ...]:
        """The BusChannels whose bindings it was created without."""
        return tuple(name for name in self.channels if name not in self.injected)

    def __str__(self) -> str:
        return f"Pod {self.namespace}/{self.name}"

    @classmethod
    def from_body(cls, body: Mapping[str, Any], selecting: Selecting) -> "Pod":
        """Reads a pod, or its metadata alone."""
        metadata = body["metadata"]
        asked = requested_channels(body, selecting(metadata["namespace"], labels_of(body)))
        annotations = metadata.get("annotations") or {}
        injected = annotations.get(INJECTED_ANNOTATION, "")
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            deleting="deletionTimestamp" in metadata,
            channels=asked.channels,
            injected=tuple(name for name in injected.split(",") if name),
            warnings=asked.warnings,
            lacks_runtime=asked.runtime and INJECTED_RUNTIME_ANNOTATION not in annotations,
        )


@dataclass(frozen=True)
class MissingBinding:
    """A pod that runs or waits without what it asked for."""

    pod: Pod
    message: str
    """What is missing, and what to do."""
    channels: tuple[str, ...] = ()
    """The BusChannels that the pod was created without."""


def missing_binding(pod: Pod, exists: Callable[["Key"], bool], now: datetime) -> MissingBinding | None:
    """What a pod lacks; None when it has everything, or may still get it.

    Args:
        pod: A pod that carries the label.
        exists: Whether there is a BusChannel of that namespace and name.
        now: The current time.
    """
    if pod.deleting:
        return None
    unknown = [name for name in pod.channels if not exists((pod.namespace, name))]
    without = tuple(name for name in pod.without if name not in unknown)
    problems = list(pod.warnings)
    if without:
        problems.append(
            f"it was created without the binding of BusChannel {shown(without)}, as happens while the webhook cannot"
            " be reached: recreate the pod (kubectl delete pod, or kubectl rollout restart of what owns it)"
        )
    if pod.lacks_runtime:
        problems.append(without_runtime())
    if unknown and now - pod.created >= GRACE:
        problems.append(
            f"there is no BusChannel {shown(unknown)} in namespace {pod.namespace}: create it, or correct the"
            f" annotation {CHANNELS_ANNOTATION} and recreate the pod"
        )
    return MissingBinding(pod, "; ".join(problems), without) if problems else None


def without_runtime() -> str:
    """What to say of a pod that lacks it."""
    return (
        f"it was created without bus_runtime, which its annotation {RUNTIME_ANNOTATION} asks for: recreate the pod; if"
        " that has none either, the warning that kubectl shows when it is created says why"
    )
