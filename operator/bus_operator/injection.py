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
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bus_operator.pod_patch import (
    Additions,
    PatchOperation,
    annotate,
    annotations,
    append,
    container_patch,
    containers_of,
    last_variable,
    mappings,
    mount_path,
)
from bus_operator.pod_requests import mapping
from bus_operator.runtime_injection import INJECTED_RUNTIME_ANNOTATION, RuntimeImage, RuntimeInjection

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


def inject(
    pod: Mapping[str, Any],
    bindings: Sequence[PodBinding],
    *,
    with_runtime: bool = False,
    runtime: RuntimeImage | None = None,
) -> Injection:
    """The patch that gives `pod` its bindings. `bindings` are in the order asked for, one per channel.

    PGMQ_BUS_ADDRESS and SERVICE_BINDING_ROOT are set where a container lacks them. Where it has a root, the mounts go
    under its value; a value that cannot be known at admission (`valueFrom`, `$(OTHER)`) or is no absolute path
    excludes the container, since its program would look elsewhere than anything mounted here.

    Args:
        pod: As the API server sends it.
        bindings: The BusChannels that it is to have.
        with_runtime: Whether it is to have bus_runtime as well.
        runtime: The image to take that from.

    Raises MalformedPodError when `pod` does not have the shape of a pod.
    """
    if (bindings or with_runtime) and _MIRROR_ANNOTATION in annotations(pod):
        # The API server refuses a static pod's mirror that refers to Secrets, which would hide the pod.
        return Injection(warnings=("a static pod cannot use Secrets: no bus binding was injected",))

    spec = mapping(pod, "spec", "")
    volumes = _Volumes(mappings(spec, "volumes", "/spec"))
    patch: list[PatchOperation] = []
    warnings: list[str] = []
    reached: set[str] = set()
    containers = list(containers_of(spec))
    if len(containers) * (len(bindings) + with_runtime) > MAX_MOUNTS:
        # Webhooks come before the API server's own checks: whoever may create a pod chooses how large it is.
        return Injection(warnings=(f"{len(containers)} containers are too many: no bus binding was injected",))
    library = RuntimeInjection(spec, runtime) if with_runtime else None
    for pointer, container in containers:
        parts: list[Additions] = []
        if bindings and not (library and library.is_copier(container)):
            parts.append(binding := _binding_additions(pointer, container, bindings, volumes))
            reached.update(binding.channels)
        if library:
            parts.append(library.additions(pointer, container))
        patch += container_patch(pointer, container, parts)
        warnings += [warning for part in parts for warning in part.warnings]

    added = volumes.added
    if library:
        added = [*added, *library.volumes]
        warnings += library.warnings
        patch += library.copier()
    patch[:0] = append("/spec/volumes", volumes.present, added)
    patch += annotate(
        pod,
        {
            INJECTED_ANNOTATION: ",".join(b.channel_name for b in bindings if b.channel_name in reached),
            INJECTED_RUNTIME_ANNOTATION: library.version if library else "",
        },
    )
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
class _BindingAdditions(Additions):
    channels: list[str] = field(default_factory=list)
    """The channels whose binding the container's program will find."""


def _binding_additions(
    pointer: str, container: Mapping[str, Any], bindings: Sequence[PodBinding], volumes: _Volumes
) -> _BindingAdditions:
    name = container.get("name", pointer)
    environment = mappings(container, "env", pointer)
    mounts = mappings(container, "volumeMounts", pointer)
    result = _BindingAdditions()
    root = _root(environment)
    if root is None:
        result.warnings.append(
            f"container {name}: no bus binding mounted, {ROOT_VARIABLE} must be a literal absolute path"
            f" or absent (then it is {DEFAULT_ROOT})"
        )
        return result

    occupied = {mount_path(mount.get("mountPath")) for mount in mounts}
    read_only = {
        mount_path(mount.get("mountPath"))
        for mount in mounts
        if mount.get("readOnly") is True or str(mount.get("name")) in volumes.read_only
    }
    for binding in bindings:
        path = posixpath.join(root, binding.channel_name)
        if path not in occupied:
            if parent := _read_only_parent(path, read_only):
                result.warnings.append(
                    f"container {name}: binding {binding.channel_name} not mounted, its parent {parent}"
                    " is a read-only mount"
                )
                continue
            result.mounts.append({"name": volumes.name_for(binding), "mountPath": path, "readOnly": True})
        result.channels.append(binding.channel_name)

    if result.channels:
        variables: list[dict[str, Any]] = [
            {"name": ROOT_VARIABLE, "value": root},
            {"name": ADDRESS_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
        own = {variable.get("name") for variable in environment}
        result.variables += [variable for variable in variables if variable["name"] not in own]
    return result


def _root(environment: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the container's program looks for bindings; None when that cannot be known or mounted at."""
    found = last_variable(environment, ROOT_VARIABLE)
    if found is None:
        return DEFAULT_ROOT
    value = found[1].get("value")
    # `$(` refers to another variable, and the API server refuses a ':' in a mount's path.
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or "$(" in value
        or ":" in value
        or len(value) > MAX_ROOT
    ):
        return None
    return mount_path(value)


def _read_only_parent(path: str, read_only: Set[str]) -> str | None:
    """A read-only mount above `path`: the container runtime could not make the directory to mount on."""
    while path != "/":
        path = posixpath.dirname(path)
        if path in read_only:
            return path
    return None
