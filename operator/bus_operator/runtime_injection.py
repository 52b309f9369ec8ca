"""bus_runtime for images that lack it: what a pod that asks for it gets, beside its bindings. Pure: no I/O.

A first init container of the operator's own image copies the bundle (hack/runtime_bundle/) into an emptyDir, which
every container gets read-only, with a directory of it at the end of its PYTHONPATH. That directory holds nothing but
the bootstrap of bus_runtime, so that it hides nothing that the image has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bus_operator.pod_patch import Additions, PatchOperation, last_variable, mappings, mount_path
from bus_operator.pod_requests import mapping

INJECTED_RUNTIME_ANNOTATION = "pgmqbus.dev/injected-runtime"
"""Written by the webhook: the version of bus_runtime that at least one container can import."""

NAME = "pgmq-bus-runtime"
"""Of the volume and of the init container. No binding's volume is called so: those begin with `pgmqbus-`."""
MOUNT = "/pgmq-bus-runtime"
"""At the top: a directory in between might be a read-only mount, in which no other can be made."""
PYTHON_PATH = f"{MOUNT}/path"
VARIABLE = "PYTHONPATH"
SOURCE = "/opt/pgmq-bus-runtime"
"""Where the operator's image has the bundle (Dockerfile)."""

SIZE_LIMIT = "128Mi"
"""About three times the bundle's size. A pod whose emptyDir grows beyond its limit is evicted."""

_RESOURCES = {"cpu": "100m", "memory": "64Mi"}
"""Both what is requested and the limit: another pair would take its quality of service from a Guaranteed pod, and a
ResourceQuota may ask for each. Copying takes 0.1 s of a processor."""
_USER = 65532

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True)
class RuntimeImage:
    """The image that has the bundle: the operator's."""

    reference: str
    version: str
    """Of bus_runtime in it."""
    pull_policy: PullPolicy = "IfNotPresent"


class RuntimeInjection:
    """What one pod gets of it.

    Args:
        spec: The pod's.
        image: None: the operator was not told of any.
    """

    def __init__(self, spec: Mapping[str, Any], image: RuntimeImage | None) -> None:
        self._spec = spec
        self._image = image
        self._volume = _named(mappings(spec, "volumes", "/spec"))
        self._copier = _named(mappings(spec, "initContainers", "/spec"))
        self._reached = False
        obstacle = self._obstacle()
        self.warnings = [f"bus_runtime was not injected: {obstacle}"] if obstacle else []

    def _obstacle(self) -> str | None:
        """What is in the way of it in the whole pod."""
        if self._image is None:
            return "this operator injects none (the chart's runtimeInjection.enabled)"
        if _is_windows(self._spec):
            return "it is for Linux"
        if self._volume is not None and self._volume.get("emptyDir") is None:
            return f"the pod has a volume {NAME} of its own"
        if self._copier is not None and not _mounts(self._copier):
            return f"the pod has an init container {NAME} of its own"
        if _named(mappings(self._spec, "containers", "/spec")) is not None:
            return f"the pod has a container {NAME} of its own"
        return None

    def is_copier(self, container: Mapping[str, Any]) -> bool:
        """Whether it is the init container that copies, as when the pod is patched again: it needs nothing."""
        return container is self._copier and not self.warnings

    def additions(self, pointer: str, container: Mapping[str, Any]) -> Additions:
        """For one container: the mount and the variable."""
        result = Additions()
        if self.warnings or self.is_copier(container):
            return result
        name = container.get("name", pointer)
        at = [m for m in mappings(container, "volumeMounts", pointer) if mount_path(m.get("mountPath")) == MOUNT]
        if any(mount.get("name") != NAME for mount in at):
            result.warnings.append(f"container {name}: no bus_runtime, something else is mounted at {MOUNT}")
            return result
        if not at:
            result.mounts.append({"name": NAME, "mountPath": MOUNT, "readOnly": True})
        self._reached = True
        self._extend(name, pointer, mappings(container, "env", pointer), result)
        return result

    @staticmethod
    def _extend(name: object, pointer: str, environment: Sequence[Mapping[str, Any]], result: Additions) -> None:
        found = last_variable(environment, VARIABLE)
        if found is None:
            result.variables.append({"name": VARIABLE, "value": PYTHON_PATH})
            return
        index, variable = found
        value = variable.get("value") or ""
        if variable.get("valueFrom") is not None or not isinstance(value, str):
            result.warnings.append(
                f"container {name}: {VARIABLE} is not given in the pod, so bus_runtime is mounted and not found:"
                f" add {PYTHON_PATH} to the value where it comes from"
            )
        elif PYTHON_PATH not in value.split(":"):
            extended = f"{value}:{PYTHON_PATH}" if value else PYTHON_PATH
            result.changes.append({"op": "add", "path": f"{pointer}/env/{index}/value", "value": extended})

    @property
    def version(self) -> str:
        """That of bus_runtime which at least one container has; empty if none has."""
        return self._image.version if self._image is not None and self._reached else ""

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """Those to add to the pod."""
        if not self._reached or self._volume is not None:
            return []
        return [{"name": NAME, "emptyDir": {"sizeLimit": SIZE_LIMIT}}]

    def copier(self) -> list[PatchOperation]:
        """Adds the init container before all others, which may import bus_runtime too. The last of all operations: it
        moves the others of its list.
        """
        if not self._reached or self._image is None or self._copier is not None:
            return []
        container = _copier(self._image, self._spec)
        if mappings(self._spec, "initContainers", "/spec"):
            return [{"op": "add", "path": "/spec/initContainers/0", "value": container}]
        return [{"op": "add", "path": "/spec/initContainers", "value": [container]}]


def _copier(image: RuntimeImage, spec: Mapping[str, Any]) -> dict[str, Any]:
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    # Otherwise the image's user or the pod's: where a platform chooses users, as OpenShift does, another is refused.
    if mapping(spec, "securityContext", "/spec").get("runAsUser") == 0:
        security |= {"runAsUser": _USER, "runAsGroup": _USER}
    return {
        "name": NAME,
        "image": image.reference,
        "imagePullPolicy": image.pull_policy,
        # -f: run again in the same pod, as after its sandbox was lost, it finds its own files.
        "command": ["cp", "-Rf", f"{SOURCE}/.", f"{MOUNT}/"],
        "resources": {"requests": dict(_RESOURCES), "limits": dict(_RESOURCES)},
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": NAME, "mountPath": MOUNT}],
    }


def _named(items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((item for item in items if item.get("name") == NAME), None)


def _mounts(container: Mapping[str, Any]) -> bool:
    return _named(mappings(container, "volumeMounts", f"/spec/initContainers/{NAME}")) is not None


def _is_windows(spec: Mapping[str, Any]) -> bool:
    selector = mapping(spec, "nodeSelector", "/spec")
    return "windows" in (mapping(spec, "os", "/spec").get("name"), selector.get("kubernetes.io/os"))
