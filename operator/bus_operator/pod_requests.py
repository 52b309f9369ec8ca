"""What a pod asks for by its label and its annotation, and what it gets without asking. No I/O.

label inject   annotation channels   it gets
true           names some            those
true           none                  what selects it, else nothing and a warning
absent         names some            those, if anything selects it: it is not seen otherwise
absent         none                  what selects it
anything else                        nothing: it has opted out

A pod that is seen at all gets bus_runtime as well if another annotation, inject-runtime, says "true".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bus_operator.naming import LONGEST_NAME, is_channel

LABEL = "pgmqbus.dev/inject"
CHANNELS_ANNOTATION = "pgmqbus.dev/channels"
RUNTIME_ANNOTATION = "pgmqbus.dev/inject-runtime"
WEBHOOK = "inject.pgmqbus.dev"
"""The chart's webhook, which is shown the pods that carry the label."""
WEBHOOK_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
"""Where the configuration that it is in is kept."""
MAX_CHANNELS = 100
"""Channels that one pod may ask for: bounds the work that a single admission request can cause."""


class MalformedPodError(ValueError):
    """The object is not a pod: the message has the JSON pointer of the field whose type is wrong."""


@dataclass(frozen=True)
class Request:
    """The BusChannels that a pod is to get, in order, without duplicates; and what was wrong with asking."""

    channels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    asked: bool = True
    """False: the pod did nothing for it, and must never wait for a binding."""
    runtime: bool = False
    """Whether it is to get bus_runtime, too."""


def labels_of(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod's labels. Raises MalformedPodError when they are none."""
    return mapping(mapping(pod, "metadata", ""), "labels", "/metadata")


def may_be_selected(pod: Mapping[str, Any]) -> bool:
    """Whether it matters to `requested_channels` what selects the pod. Raises MalformedPodError as that does."""
    label = labels_of(pod).get(LABEL)
    return label is None or (label == "true" and not named_channels(pod))


def requested_channels(pod: Mapping[str, Any], selecting: Sequence[str] = ()) -> Request:
    """What the pod's annotation asks for, or else the BusChannels that select it; nothing when it has opted out.

    Raises MalformedPodError when labels or annotations are not what a pod's are.
    """
    label = labels_of(pod).get(LABEL)
    if label != "true" and (label is not None or not selecting):
        return Request()
    request = _channels(pod, selecting, asked=label is not None)
    value = mapping(mapping(pod, "metadata", ""), "annotations", "/metadata").get(RUNTIME_ANNOTATION, "false")
    if value in ("true", "false"):
        return replace(request, runtime=value == "true")
    warning = f'annotation {RUNTIME_ANNOTATION} is neither "true" nor "false": bus_runtime is not injected'
    return replace(request, warnings=(*request.warnings, warning))


def overlooked_channels(pod: Mapping[str, Any], selecting: Sequence[str] = ()) -> list[str]:
    """What the annotation names while nobody looks at it, for lack of the label; none where the pod has opted out.

    Raises MalformedPodError as `requested_channels` does.
    """
    label = labels_of(pod).get(LABEL)
    if label in ("true", "false") or (label is None and selecting):
        return []
    return named_channels(pod)


def _channels(pod: Mapping[str, Any], selecting: Sequence[str], *, asked: bool) -> Request:
    named = named_channels(pod)
    if not named and selecting:
        return _selected(selecting, asked=asked)
    if not named:
        example = f'{CHANNELS_ANNOTATION}: "orders,audit"'
        return Request(
            warnings=(f"label {LABEL} is set but no BusChannel is named: add an annotation such as {example}",)
        )
    good = [name for name in named if is_channel(name)]
    warnings = []
    if bad := [name for name in named if not is_channel(name)]:
        warnings.append(
            f"annotation {CHANNELS_ANNOTATION}: skipped {shown(bad)}: a BusChannel name has at most"
            f" {LONGEST_NAME} lower case letters, digits, '-' and '.'"
        )
    if len(good) > MAX_CHANNELS:
        warnings.append(f"annotation {CHANNELS_ANNOTATION}: only the first {MAX_CHANNELS} of {len(good)} are injected")
    return Request(tuple(good[:MAX_CHANNELS]), tuple(warnings))


def _selected(channels: Sequence[str], *, asked: bool) -> Request:
    warnings: tuple[str, ...] = ()
    if len(channels) > MAX_CHANNELS:
        warnings = (f"{len(channels)} BusChannels select the pod: only the first {MAX_CHANNELS} by name are injected",)
    return Request(tuple(channels[:MAX_CHANNELS]), warnings, asked=asked)


def named_channels(pod: Mapping[str, Any]) -> list[str]:
    """What the annotation lists, be they names or not. Raises MalformedPodError when it is no text."""
    value = mapping(mapping(pod, "metadata", ""), "annotations", "/metadata").get(CHANNELS_ANNOTATION) or ""
    if not isinstance(value, str):
        raise MalformedPodError(f"/metadata/annotations: {CHANNELS_ANNOTATION} is not a string")
    return list(dict.fromkeys(name for part in value.split(",") if (name := part.strip())))


def shown(names: Sequence[str], most: int = 3) -> str:
    """Names for a warning, quoted and shortened: the API server cuts long warnings."""
    text = ", ".join(repr(name if len(name) <= 32 else f"{name[:31]}…") for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def mapping(parent: Mapping[str, Any], key: str, pointer: str) -> Mapping[str, Any]:
    """The object at `key`, empty when there is none. Raises MalformedPodError when it is something else."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MalformedPodError(f"{pointer}/{key} is not an object")
    return value
