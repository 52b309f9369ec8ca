"""The pod patch of the admission webhook: a pod and its bindings in, a JSON patch (RFC 6902) out. No I/O.

Every container and init container gets each binding's Secret mounted read-only at `<root>/<BusChannel name>`,
where root is the container's own SERVICE_BINDING_ROOT or `/bindings`
(https://servicebinding.io/spec/core/1.1.0/#workload-projection). The whole Secret is mounted, without
`subPath`, so that a rotated credential reaches running pods.

A patch must never make a pod invalid or keep it from starting: what a container already has at the path
stays, and a container that cannot get a mount that its program would find is left alone, with an admission
warning. Patching a patched pod yields an empty patch, since the API server may call a webhook again after
others have changed the pod.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bus_operator.pod_requests import MalformedPodError, mapping

INJECTED_ANNOTATION = "pgmqbus.dev/injected"
"""Written by the webhook: the channels that at least one container can read, in the order asked for."""

ADDRESS_VARIABLE = "PGMQ_BUS_ADDRESS"
"""The pod's IP address, where the runtime tells other pods that its doorbell is."""
ROOT_VARIABLE = "SERVICE_BINDING_ROOT"
DEFAULT_ROOT = "/bindings"

MAX_MOUNTS = 10_000
MAX_WARNINGS = 20
MAX_ROOT = 1024
"""Mounts and warnings for one pod, and characters of a SERVICE_BINDING_ROOT: they bound what one request can cost."""

_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_MAX_LABEL = 63
_READ_ONLY_VOLUMES = ("secret", "configMap", "projected", "downwardAPI")

PatchOperation = dict[str, Any]


@dataclass(frozen=True)
class PodBinding:
    """A BusChannel of the pod's namespace and the Secret that holds its binding."""

    channel_name: str
    secret_name: str
    optional: bool = False
    """The pod starts without the Secret if there is none yet; the files come later."""


@dataclass(frozen=True)
class Injection:
    """The patch to apply (empty when nothing is to do) and warnings for whoever creates the pod."""

    patch: tuple[PatchOperation, ...] = ()
    warnings: tuple[str, ...] = ()


def inject(pod: Mapping[str, Any], bindings: Sequence[PodBinding]) -> Injection:
    """The patch that gives `pod` its bindings. `bindings` are in the order asked for, one per channel.

    PGMQ_BUS_ADDRESS and SERVICE_BINDING_ROOT are set where a container lacks them. Where it has a root, the mounts go
    under its value; a value that cannot be known at admission (`valueFrom`, `$(OTHER)`) or is no absolute path
    excludes the container, since its program would look elsewhere than anything mounted here.

    Raises MalformedPodError when `pod` does not have the shape of a pod.
    """
    if bindings and _MIRROR_ANNOTATION in _annotations(pod):
        # The API server refuses a static pod's mirror that refers to Secrets, which would hide the pod.
        return Injection(warnings=("a static pod cannot use Secrets: no bus binding was injected",))

    spec = mapping(pod, "spec", "")
    volumes = _Volumes(_mappings(spec, "volumes", "/spec"))
    patch: list[PatchOperation] = []
    warnings: list[str] = []
    reached: set[str] = set()
    containers = list(_containers(spec))
    if len(containers) * len(bindings) > MAX_MOUNTS:
        # Webhooks come before the API server's own checks: whoever may create a pod chooses how large it is.
        return Injection(warnings=(f"{len(containers)} containers are too many: no bus binding was injected",))
    for pointer, container in containers:
        result = _inject_container(pointer, container, bindings, volumes)
        patch += result.patch
        warnings += result.warnings
        reached.update(result.channels)

    patch[:0] = _append("/spec/volumes", volumes.present, volumes.added)
    patch += _injected_annotation(pod, [b.channel_name for b in bindings if b.channel_name in reached])
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"and {len(warnings) - MAX_WARNINGS} more about bus bindings"]
    return Injection(tuple(patch), tuple(warnings))


def volume_name(channel_name: str) -> str:
    """The pod volume of a BusChannel's binding: a DNS label, `pgmqbus-<name>` where that is one.

    A name that is too long or has dots (legal in a BusChannel's name, not in a volume's) is shortened, dots
    become dashes, and a hash keeps it apart from its neighbours.
    """
    name = f"pgmqbus-{channel_name}"
    return name if "." not in name and len(name) <= _MAX_LABEL else _hashed(name, channel_name)


def _hashed(name: str, *identity: str) -> str:
    suffix = hashlib.sha256("/".join(identity).encode()).hexdigest()[:10]
    return f"{name.replace('.', '-')[: _MAX_LABEL - 11].rstrip('-')}-{suffix}"


@dataclass
class _Volumes:
    """The pod's volumes and those to add to it."""

    present: Sequence[Mapping[str, Any]]
    added: list[dict[str, Any]] = field(default_factory=list)
    _names: dict[PodBinding, str] = field(default_factory=dict)

    def name_for(self, binding: PodBinding) -> str:
        """The volume to mount for `binding`: one that the pod has, one already added, or a new one."""
        name = self._names.get(binding)
        if name is None:
            name = self._names[binding] = self._find_or_add(binding)
        return name

    def _find_or_add(self, binding: PodBinding) -> str:
        for volume in self._of_secrets.get(binding.secret_name, ()):
            secret = volume["secret"]
            # Not one with only some of the keys, nor one that lets the program start before there is a binding.
            if not secret.get("items") and (binding.optional or not secret.get("optional")):
                return str(volume.get("name"))
        name = volume_name(binding.channel_name)
        attempt = 0
        while name in self._taken:
            attempt += 1
            name = _hashed(f"pgmqbus-{binding.channel_name}", binding.secret_name, str(attempt))
        optional = {"optional": True} if binding.optional else {}
        volume = {"name": name, "secret": {"secretName": binding.secret_name} | optional}
        self._taken.add(name)
        self._of_secrets.setdefault(binding.secret_name, []).append(volume)
        self.added.append(volume)
        return name

    @cached_property
    def _of_secrets(self) -> dict[str, list[Mapping[str, Any]]]:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for volume in self.present:
            secret = volume.get("secret")
            if isinstance(secret, Mapping) and isinstance(name := secret.get("secretName"), str):
                found.setdefault(name, []).append(volume)
        return found

    @cached_property
    def _taken(self) -> set[str]:
        return {name for volume in self.present if isinstance(name := volume.get("name"), str)}

    @cached_property
    def read_only(self) -> frozenset[str]:
        """The names of those that nothing can be made in."""
        return frozenset(
            name
            for volume in self.present
            if any(volume.get(kind) is not None for kind in _READ_ONLY_VOLUMES)
            and isinstance(name := volume.get("name"), str)
        )


@dataclass
class _ContainerInjection:
    patch: list[PatchOperation] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    """The channels whose binding the container's program will find."""


def _inject_container(
    pointer: str, container: Mapping[str, Any], bindings: Sequence[PodBinding], volumes: _Volumes
) -> _ContainerInjection:
    name = container.get("name", pointer)
    environment = _mappings(container, "env", pointer)
    mounts = _mappings(container, "volumeMounts", pointer)
    result = _ContainerInjection()
    if not bindings:
        return result
    root = _root(environment)
    if root is None:
        result.warnings.append(
            f"container {name}: no bus binding mounted, {ROOT_VARIABLE} must be a literal absolute path"
            f" or absent (then it is {DEFAULT_ROOT})"
        )
        return result

    occupied = {_normal(mount.get("mountPath")) for mount in mounts}
    read_only = {
        _normal(mount.get("mountPath"))
        for mount in mounts
        if mount.get("readOnly") is True or str(mount.get("name")) in volumes.read_only
    }
    new_mounts = []
    for binding in bindings:
        path = posixpath.join(root, binding.channel_name)
        if path not in occupied:
            if parent := _read_only_parent(path, read_only):
                result.warnings.append(
                    f"container {name}: binding {binding.channel_name} not mounted, its parent {parent}"
                    " is a read-only mount"
                )
                continue
            new_mounts.append({"name": volumes.name_for(binding), "mountPath": path, "readOnly": True})
        result.channels.append(binding.channel_name)

    if result.channels:
        variables: list[dict[str, Any]] = [
            {"name": ROOT_VARIABLE, "value": root},
            {"name": ADDRESS_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
        own = {variable.get("name") for variable in environment}
        missing = [variable for variable in variables if variable["name"] not in own]
        result.patch += _prepend(f"{pointer}/env", environment, missing)
    result.patch += _append(f"{pointer}/volumeMounts", mounts, new_mounts)
    return result


def _root(environment: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the container's program looks for bindings; None when that cannot be known or mounted at."""
    # Of several entries with one name the last one is what the program sees.
    variable = next((v for v in reversed(environment) if v.get("name") == ROOT_VARIABLE), None)
    if variable is None:
        return DEFAULT_ROOT
    value = variable.get("value")
    # `$(` refers to another variable, and the API server refuses a ':' in a mount's path.
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or "$(" in value
        or ":" in value
        or len(value) > MAX_ROOT
    ):
        return None
    return _normal(value)


def _read_only_parent(path: str, read_only: Set[str]) -> str | None:
    """A read-only mount above `path`: the container runtime could not make the directory to mount on."""
    while path != "/":
        path = posixpath.dirname(path)
        if path in read_only:
            return path
    return None


def _normal(path: object) -> str:
    """A mount path as the kubelet understands it: absolute, without doubled, trailing and dot segments."""
    return posixpath.normpath("/" + path.lstrip("/")) if isinstance(path, str) and path else ""


def _containers(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Init containers (sidecars are some that restart) and containers, with their JSON pointers."""
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_mappings(spec, kind, "/spec")):
            yield f"/spec/{kind}/{index}", container


def _injected_annotation(pod: Mapping[str, Any], channels: Sequence[str]) -> list[PatchOperation]:
    metadata = mapping(pod, "metadata", "")
    annotations = _annotations(pod)
    value = ",".join(channels)
    if annotations.get(INJECTED_ANNOTATION, "") == value:
        return []
    pointer = f"/metadata/annotations/{_escaped(INJECTED_ANNOTATION)}"
    if not value:
        return [{"op": "remove", "path": pointer}]
    if annotations:
        return [{"op": "add", "path": pointer, "value": value}]
    if metadata:
        return [{"op": "add", "path": "/metadata/annotations", "value": {INJECTED_ANNOTATION: value}}]
    return [{"op": "add", "path": "/metadata", "value": {"annotations": {INJECTED_ANNOTATION: value}}}]


def _append(pointer: str, present: Sequence[Any], items: Sequence[Any]) -> list[PatchOperation]:
    """Appends to a list that may be absent, null or empty: `add` on a member creates or replaces it."""
    if not items:
        return []
    if not present:
        return [{"op": "add", "path": pointer, "value": list(items)}]
    return [{"op": "add", "path": f"{pointer}/-", "value": item} for item in items]


def _prepend(pointer: str, present: Sequence[Any], items: Sequence[Any]) -> list[PatchOperation]:
    """Puts items first: variables that follow may then refer to them, as in `$(SERVICE_BINDING_ROOT)`."""
    if not present:
        return _append(pointer, present, items)
    return [{"op": "add", "path": f"{pointer}/{index}", "value": item} for index, item in enumerate(items)]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _annotations(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(pod, "metadata", ""), "annotations", "/metadata")


def _mappings(parent: Mapping[str, Any], key: str, pointer: str) -> Sequence[Mapping[str, Any]]:
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise MalformedPodError(f"{pointer}/{key} is not a list of objects")
    return value
