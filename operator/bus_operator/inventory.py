"""What the watches have seen: BusDatabases and BusChannels, by key. Reconciling reads it, not the API server."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from bus_operator.errors import SpecError
from bus_operator.model import ChannelSpec, DatabaseSpec, Uid

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Resource:
    """A custom resource as the watch delivered it, without what nobody needs (managedFields)."""

    kind: str
    namespace: str
    name: str
    uid: Uid
    generation: int
    resource_version: str
    created: str
    deleting: bool
    finalizers: tuple[str, ...]
    spec: Mapping[str, Any] = field(repr=False)
    status: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Resource":
        """Reads an object as the API server sends it."""
        metadata = body["metadata"]
        return cls(
            kind=body["kind"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=Uid(metadata["uid"]),
            generation=metadata.get("generation", 0),
            resource_version=metadata.get("resourceVersion", ""),
            created=metadata.get("creationTimestamp", ""),
            deleting="deletionTimestamp" in metadata,
            finalizers=tuple(metadata.get("finalizers", ())),
            spec=dict(body.get("spec") or {}),
            status=dict(body.get("status") or {}),
        )

    def database_spec(self) -> DatabaseSpec:
        """The spec of a BusDatabase. Raises SpecError."""
        return _parsed(DatabaseSpec, self)

    def channel_spec(self) -> ChannelSpec:
        """The spec of a BusChannel. Raises SpecError."""
        return _parsed(ChannelSpec, self)


_Spec = TypeVar("_Spec", DatabaseSpec, ChannelSpec)


def _parsed(model: type[_Spec], resource: Resource) -> _Spec:
    try:
        return model.model_validate(resource.spec)
    except ValidationError as exc:
        raise SpecError(describe(exc)) from exc


def describe(error: ValidationError) -> str:
    """A validation error as one line: path and what is wrong, without the values."""
    return "; ".join(f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())


class Inventory:
    """The resources seen so far. Only the watches' handlers write to it."""

    def __init__(self) -> None:
        self.databases: dict[Key, Resource] = {}
        self.channels: dict[Key, Resource] = {}

    def _of(self, kind: str) -> dict[Key, Resource]:
        return self.databases if kind == "BusDatabase" else self.channels

    def put(self, resource: Resource) -> None:
        """Stores a resource that exists."""
        self._of(resource.kind)[resource.key] = resource

    def remove(self, kind: str, key: Key) -> None:
        """Forgets a resource that is gone."""
        self._of(kind).pop(key, None)

    def defaults(self) -> Iterable[Resource]:
        """The BusDatabases that want to be a default."""
        return (item for item in self.databases.values() if item.spec.get("default") and not item.deleting)
