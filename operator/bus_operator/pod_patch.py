"""JSON patch operations (RFC 6902) on a pod, and reading what they are made on. No I/O."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bus_operator.pod_requests import MalformedPodError, mapping

PatchOperation = dict[str, Any]


@dataclass
class Additions:
    """What one container is to get."""

    changes: list[PatchOperation] = field(default_factory=list)
    """Of variables that it has. They are made first: what is added moves the others."""
    variables: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def container_patch(pointer: str, container: Mapping[str, Any], additions: Sequence[Additions]) -> list[PatchOperation]:
    """All that one container is to get, in one go: two patches would both make a list that is not there yet."""
    variables = [variable for each in additions for variable in each.variables]
    mounts = [mount for each in additions for mount in each.mounts]
    return [
        *(change for each in additions for change in each.changes),
        *prepend(f"{pointer}/env", mappings(container, "env", pointer), variables),
        *append(f"{pointer}/volumeMounts", mappings(container, "volumeMounts", pointer), mounts),
    ]


def append(pointer: str, present: Sequence[Any], items: Sequence[Any]) -> list[PatchOperation]:
    """Appends to a list that may be absent, null or empty: `add` on a member creates or replaces it."""
    if not items:
        return []
    if not present:
        return [{"op": "add", "path": pointer, "value": list(items)}]
    return [{"op": "add", "path": f"{pointer}/-", "value": item} for item in items]


def prepend(pointer: str, present: Sequence[Any], items: Sequence[Any]) -> list[PatchOperation]:
    """Puts items first: variables that follow may then refer to them, as in `$(SERVICE_BINDING_ROOT)`."""
    if not present:
        return append(pointer, present, items)
    return [{"op": "add", "path": f"{pointer}/{index}", "value": item} for index, item in enumerate(items)]


def annotate(pod: Mapping[str, Any], wanted: Mapping[str, str]) -> list[PatchOperation]:
    """Sets annotations; an empty value takes one away."""
    present = annotations(pod)
    changed = {name: value for name, value in wanted.items() if present.get(name, "") != value}
    if not changed:
        return []
    if present:
        return [_annotation(name, value) for name, value in changed.items()]
    if mapping(pod, "metadata", ""):
        return [{"op": "add", "path": "/metadata/annotations", "value": changed}]
    return [{"op": "add", "path": "/metadata", "value": {"annotations": changed}}]


def _annotation(name: str, value: str) -> PatchOperation:
    pointer = "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")
    return {"op": "add", "path": pointer, "value": value} if value else {"op": "remove", "path": pointer}


def annotations(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod's annotations. Raises MalformedPodError when they are none."""
    return mapping(mapping(pod, "metadata", ""), "annotations", "/metadata")


def containers_of(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Init containers (sidecars are some that restart) and containers, with their JSON pointers."""
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(mappings(spec, kind, "/spec")):
            yield f"/spec/{kind}/{index}", container


def last_variable(environment: Sequence[Mapping[str, Any]], name: str) -> tuple[int, Mapping[str, Any]] | None:
    """A variable and its place: of several entries with one name the last one is what the program sees."""
    return next(((i, v) for i, v in reversed(list(enumerate(environment))) if v.get("name") == name), None)


def mount_path(path: object) -> str:
    """A mount path as the kubelet understands it: absolute, without doubled, trailing and dot segments."""
    return posixpath.normpath("/" + path.lstrip("/")) if isinstance(path, str) and path else ""


def mappings(parent: Mapping[str, Any], key: str, pointer: str) -> Sequence[Mapping[str, Any]]:
    """The list of objects at `key`, empty when there is none. Raises MalformedPodError when it is something else."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise MalformedPodError(f"{pointer}/{key} is not a list of objects")
    return value
