"""What the watches have seen: BusDatabases and BusChannels, by key. Reconciling reads it, not the API server."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from bus_operator.errors import SpecError
from bus_operator.model import GROUP, VERSION, ChannelSpec, DatabaseSpec, Injection, PodSelector, Uid, describe
from bus_operator.status import find

ROTATE_ANNOTATION = f"{GROUP}/rotate"

Key = tuple[str, str]
"""Namespace and name."""


def comes_before(version: str, other: str) -> bool:
    """Compares resource versions, which are numbers that grow (KEP-5504); False when one is none."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


@dataclass(frozen=True, slots=True)
class Resource:
    """A custom resource as the watch delivered it, without what nobody needs (managedFields).

    There may be thousands: texts that many of them have in common are kept once.
    """

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
    rotate: str | None = None
    """The annotation that asks for other credentials whenever it changes."""

    api_version = f"{GROUP}/{VERSION}"

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about it says in fields."""
        fields = {"kind": self.kind, "namespace": self.namespace, "name": self.name}
        if database := self.status.get("database"):
            fields["database"] = f"{database.get('namespace')}/{database.get('name')}"
        return fields

    @property
    def is_ready(self) -> bool:
        """Whether its status says so of what it is now."""
        condition = find(self.status.get("conditions", ()), "Ready") or {}
        return condition.get("status") == "True" and condition.get("observedGeneration") == self.generation

    def is_older_than(self, other: "Resource") -> bool:
        """Whether the API server stored it before the other."""
        return comes_before(self.resource_version, other.resource_version)

    def asks_for_work(self, before: "Resource | None") -> bool:
        """Whether it is more than the echo of a status that was written."""
        return before is None or before._wish != self._wish

    @property
    def _wish(self) -> tuple[object, ...]:
        return self.uid, self.generation, self.deleting, self.finalizers, self.rotate

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Resource":
        """Reads an object as the API server sends it."""
        metadata = body["metadata"]
        return cls(
            kind=sys.intern(body["kind"]),
            namespace=sys.intern(metadata["namespace"]),
            name=metadata["name"],
            uid=Uid(metadata["uid"]),
            generation=metadata.get("generation", 0),
            resource_version=metadata.get("resourceVersion", ""),
            created=metadata.get("creationTimestamp", ""),
            deleting="deletionTimestamp" in metadata,
            finalizers=tuple(map(sys.intern, metadata.get("finalizers", ()))),
            spec=_compact(body.get("spec") or {}),
            status=_compact(body.get("status") or {}),
            rotate=(metadata.get("annotations") or {}).get(ROTATE_ANNOTATION),
        )

    def database_spec(self) -> DatabaseSpec:
        """The spec of a BusDatabase. Raises SpecError."""
        return _parsed(DatabaseSpec, self)

    def channel_spec(self) -> ChannelSpec:
        """The spec of a BusChannel. Raises SpecError."""
        return _parsed(ChannelSpec, self)

    def pod_selector(self) -> PodSelector | None:
        """To which pods that do not ask a BusChannel gives its binding.

        None: to none, or it is a wrong one, which the BusChannel's own conditions tell.
        """
        try:
            return Injection.model_validate(self.spec.get("injection")).pod_selector
        except ValidationError:
            return None


def _compact(value: Any) -> Any:
    """A copy without second copies of texts: keys, types, reasons, times."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, Mapping):
        return {sys.intern(key): _compact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return value


_Spec = TypeVar("_Spec", DatabaseSpec, ChannelSpec)


def _parsed(model: type[_Spec], resource: Resource) -> _Spec:
    try:
        return model.model_validate(resource.spec)
    except ValidationError as exc:
        raise SpecError(describe(exc)) from exc


class Inventory:
    """The resources seen so far, each in the latest version: watches and the answers to writes overtake each other."""

    def __init__(self) -> None:
        self.databases: dict[Key, Resource] = {}
        self.channels: dict[Key, Resource] = {}
        self.unread: frozenset[str] = frozenset()
        """The namespaces that may not be read: what is missing here may be there, and what is here may be gone."""
        self._claims: dict[str, dict[Key, None]] = {}
        """The keys of the BusChannels whose status names a wire name, by that name."""
        self._selecting: dict[str, dict[Key, PodSelector | None]] = {}
        """By namespace the BusChannels that select pods, with what they select by; None: nothing that can be used."""
        self.selection_changed = asyncio.Event()
        """Set whenever another namespace has BusChannels that select pods, or one has none any more."""
        self._removals: list[set[Uid]] = []

    def of(self, kind: str) -> dict[Key, Resource]:
        """The resources of a kind."""
        return self.databases if kind == "BusDatabase" else self.channels

    def put(self, resource: Resource) -> bool:
        """Stores a resource that exists. Returns whether there is something new in it that asks for work."""
        known = self.of(resource.kind).get(resource.key)
        if known is not None and resource.is_older_than(known):
            return False
        self._unclaim(known)
        self.of(resource.kind)[resource.key] = resource
        if resource.kind == "BusChannel" and "channel" in resource.status:
            self._claims.setdefault(resource.status["channel"], {})[resource.key] = None
        if resource.kind == "BusChannel":
            self._note_selection(resource, selects="injection" in resource.spec and not resource.deleting)
        return resource.asks_for_work(known)

    def remove(self, resource: Resource) -> None:
        """Forgets a resource that is gone, but not another that has taken its name."""
        for gone in self._removals:
            gone.add(resource.uid)
        known = self.of(resource.kind).get(resource.key)
        if known is not None and known.uid == resource.uid:
            self._unclaim(known)
            if known.kind == "BusChannel":
                self._note_selection(known, selects=False)
            del self.of(resource.kind)[resource.key]

    @contextmanager
    def removals(self) -> Iterator[Set[Uid]]:
        """Those that are removed while the block lasts: a list that is on its way may have them still."""
        gone: set[Uid] = set()
        self._removals.append(gone)
        try:
            yield gone
        finally:
            self._removals = [other for other in self._removals if other is not gone]

    def claimants(self, wire_name: str) -> list[Resource]:
        """The BusChannels whose status names this wire name, in whatever database."""
        return [self.channels[key] for key in self._claims.get(wire_name, ())]

    @property
    def selecting_namespaces(self) -> frozenset[str]:
        """The namespaces that have BusChannels which select pods."""
        return frozenset(self._selecting)

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The names of the BusChannels that select a pod of this namespace with these labels, sorted."""
        selectors = self._selecting.get(namespace, {})
        return tuple(
            sorted(key[1] for key, selector in selectors.items() if selector is not None and selector.matches(labels))
        )

    def _note_selection(self, channel: Resource, *, selects: bool) -> None:
        selectors = self._selecting.get(channel.namespace)
        if selects:
            if selectors is None:
                selectors = self._selecting[channel.namespace] = {}
                self.selection_changed.set()
            # Parsed here, and not for each pod: somebody's hundreds of BusChannels must not hold up those of others.
            selectors[channel.key] = channel.pod_selector()
        elif selectors is not None:
            selectors.pop(channel.key, None)
            if not selectors:
                del self._selecting[channel.namespace]
                self.selection_changed.set()

    def _unclaim(self, channel: Resource | None) -> None:
        name = channel.status.get("channel") if channel is not None else None
        if channel is not None and name in self._claims:
            self._claims[name].pop(channel.key, None)
            if not self._claims[name]:
                del self._claims[name]

    def defaults(self) -> Iterable[Resource]:
        """The BusDatabases that want to be a default."""
        return (item for item in self.databases.values() if item.spec.get("default") and not item.deleting)
