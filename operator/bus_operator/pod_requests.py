"""What a pod asks for by its label and its annotation. No I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABEL = "pgmqbus.dev/inject"
CHANNELS_ANNOTATION = "pgmqbus.dev/channels"
MAX_CHANNELS = 100
"""Channels that one pod may ask for: bounds the work that a single admission request can cause."""

_MAX_NAME = 63
_BUS_CHANNEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class MalformedPodError(ValueError):
    """The object is not a pod: the message has the JSON pointer of the field whose type is wrong."""


@dataclass(frozen=True)
class Request:
    """The BusChannels that a pod asks for, in order, without duplicates; and what was wrong with asking."""

    channels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def requested_channels(pod: Mapping[str, Any]) -> Request:
    """What the pod's annotation asks for; nothing when the pod is not labelled.

    Raises MalformedPodError when labels or annotations are not what a pod's are.
    """
    metadata = mapping(pod, "metadata", "")
    if mapping(metadata, "labels", "/metadata").get(LABEL) != "true":
        return Request()
    value = mapping(metadata, "annotations", "/metadata").get(CHANNELS_ANNOTATION) or ""
    if not isinstance(value, str):
        raise MalformedPodError(f"/metadata/annotations: {CHANNELS_ANNOTATION} is not a string")

    asked = list(dict.fromkeys(name for part in value.split(",") if (name := part.strip())))
    if not asked:
        example = f'{CHANNELS_ANNOTATION}: "orders,audit"'
        return Request(
            warnings=(f"label {LABEL} is set but no BusChannel is named: add an annotation such as {example}",)
        )
    good = [name for name in asked if _is_bus_channel_name(name)]
    warnings = []
    if bad := [name for name in asked if not _is_bus_channel_name(name)]:
        warnings.append(
            f"annotation {CHANNELS_ANNOTATION}: skipped {shown(bad)}: a BusChannel name has at most"
            f" {_MAX_NAME} lower case letters, digits, '-' and '.'"
        )
    if len(good) > MAX_CHANNELS:
        warnings.append(f"annotation {CHANNELS_ANNOTATION}: only the first {MAX_CHANNELS} of {len(good)} are injected")
    return Request(tuple(good[:MAX_CHANNELS]), tuple(warnings))


def shown(names: Sequence[str], most: int = 3) -> str:
    """Names for a warning, quoted and shortened: the API server cuts long warnings."""
    text = ", ".join(repr(name if len(name) <= 32 else f"{name[:31]}…") for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _is_bus_channel_name(name: str) -> bool:
    return len(name) <= _MAX_NAME and _BUS_CHANNEL_NAME.fullmatch(name) is not None


def mapping(parent: Mapping[str, Any], key: str, pointer: str) -> Mapping[str, Any]:
    """The object at `key`, empty when there is none. Raises MalformedPodError when it is something else."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MalformedPodError(f"{pointer}/{key} is not an object")
    return value
