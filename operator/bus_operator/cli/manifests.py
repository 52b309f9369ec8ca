"""Reads manifests from files, as `kubectl apply -f` takes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import yaml
from pydantic import ValidationError

from bus_operator import naming
from bus_operator.actions import DesiredChannel
from bus_operator.errors import SpecError
from bus_operator.model import GROUP, VERSION, ChannelSpec, DatabaseSpec, Uid, describe

_LONGEST_SHOWN = 100


@dataclass(frozen=True)
class Manifest:
    """A BusChannel manifest that was read and checked."""

    namespace: str
    name: str
    spec: ChannelSpec
    body: Mapping[str, Any] = field(repr=False, compare=False)
    """As it was written."""

    @property
    def wire_name(self) -> str:
        """The channel's name in the database."""
        return self.spec.wire_name(self.namespace, self.name)

    def desired(self, spec: ChannelSpec) -> DesiredChannel:
        """The channel as it is made without a cluster, with this spec."""
        uid = Uid(f"busctl:{self.namespace}/{self.name}")
        return DesiredChannel.from_spec(spec, namespace=self.namespace, name=self.name, uid=uid)

    def __str__(self) -> str:
        return f"BusChannel {self.namespace}/{self.name}"


@dataclass(frozen=True)
class DatabaseManifest:
    """A BusDatabase manifest that was read and checked."""

    namespace: str
    name: str
    spec: DatabaseSpec
    body: Mapping[str, Any] = field(repr=False, compare=False)
    """As it was written."""
    where: str
    """Which it is in which file."""

    def __str__(self) -> str:
        return f"BusDatabase {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Manifests:
    """What was in the files."""

    channels: list[Manifest]
    databases: list[DatabaseManifest]
    skipped: list[str]
    """What is neither."""

    @property
    def notes(self) -> list[str]:
        """A line about each document that is not applied to a database, or not as a whole."""
        return [
            *(f"of {database.where} only spec.shards is used: --database says where" for database in self.databases),
            *(f"skipped {what}: only BusChannels are applied, --database says where" for what in self.skipped),
        ]

    @property
    def shards(self) -> int:
        """How many databases the channels are spread over, as the BusDatabases in the files say."""
        return self.databases[0].spec.shards if self.databases else 1

    def require_one_place(self) -> None:
        """Raises SpecError where the BusDatabases cannot all stand for one database."""
        for other in self.databases[1:]:
            if other.spec.shards != self.shards:
                both = f"{self.databases[0].where} and {other.where}"
                raise SpecError(f"{both} have different spec.shards: apply them apart")


def read_manifests(files: Sequence[IO[str]], default_namespace: str) -> Manifests:
    """Reads BusChannels and BusDatabases.

    Raises:
        SpecError: For what is no YAML, no Kubernetes object, not valid, or there twice; names file and field.
    """
    channels: list[Manifest] = []
    databases: list[DatabaseManifest] = []
    skipped: list[str] = []
    for file in files:
        for document in _documents(file):
            kind, name = document.get("kind"), _metadata(document).get("name")
            what = f"{_shown(kind, 'document without kind')}/{_shown(name, '?')} in {file.name}"
            if kind == "BusChannel":
                channels.append(_channel(file.name, document, default_namespace))
            elif kind == "BusDatabase":
                spec = _spec(file.name, document, DatabaseSpec)
                namespace = _metadata(document).get("namespace") or default_namespace
                databases.append(DatabaseManifest(str(namespace), str(name), spec, document, what))
            else:
                skipped.append(what)
    _require_distinct(channels)
    return Manifests(channels, databases, skipped)


def _require_distinct(channels: Sequence[Manifest]) -> None:
    owners: dict[str, Manifest] = {}
    for channel in channels:
        other = owners.setdefault(channel.wire_name, channel)
        if other is channel:
            continue
        if (other.namespace, other.name) == (channel.namespace, channel.name):
            raise SpecError(f"{channel} is there twice: keep one")
        raise SpecError(f"{channel} has the channel {channel.wire_name!r} of {other}: choose another spec.channel")


def _documents(file: IO[str]) -> Iterator[dict[str, Any]]:
    try:
        for document in yaml.safe_load_all(file):
            yield from _objects(file.name, document)
    # ValueError: also what looks like a date and is none; what is nested too deeply is left to Python's own limit.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
        raise SpecError(f"{file.name}: not valid YAML: {exc}") from exc


def _objects(file: str, document: Any) -> Iterator[dict[str, Any]]:
    """The document, or what is in it if it is a List, as `kubectl get -o yaml` prints several."""
    if document is None:
        return
    if not isinstance(document, dict) or document.get("kind") != "List":
        yield _mapping(file, document)
        return
    items = document.get("items") or []
    if not isinstance(items, list):
        raise SpecError(f"{file}: items of a List must be a list")
    for item in items:
        # By aliases, lists of lists could be endless.
        if isinstance(item, dict) and item.get("kind") == "List":
            raise SpecError(f"{file}: a List must not be in a List")
        yield _mapping(file, item)


def _mapping(file: str, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SpecError(f"{file}: a manifest is a mapping with apiVersion, kind and metadata")
    return document


def _shown(value: object, otherwise: str) -> str:
    """A name in a message. By aliases, a few lines of YAML can be a value too large to print."""
    return value[:_LONGEST_SHOWN] if isinstance(value, str) and value else otherwise


def _metadata(document: dict[str, Any]) -> dict[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _channel(file: str, document: dict[str, Any], default_namespace: str) -> Manifest:
    spec = _spec(file, document, ChannelSpec)
    metadata = _metadata(document)
    name, namespace = metadata["name"], metadata.get("namespace") or default_namespace
    # Not for form's sake: the name becomes that of a directory.
    if not naming.is_channel(name):
        raise SpecError(
            f"{file}: metadata.name {_shown(name, '?')!r} must be lower-case letters, digits, '-' and '.', at most"
            f" {naming.LONGEST_NAME}, each part beginning and ending with a letter or digit"
        )
    if not naming.is_namespace(namespace):
        raise SpecError(
            f"{file}: metadata.namespace {_shown(namespace, '?')!r} must be lower-case letters, digits and '-', at most"
            f" {naming.LONGEST_NAME}, beginning and ending with a letter or digit"
        )
    return Manifest(namespace, name, spec, document)


_Spec = TypeVar("_Spec", ChannelSpec, DatabaseSpec)


def _spec(file: str, document: dict[str, Any], model: type[_Spec]) -> _Spec:
    kind, version, name = document["kind"], document.get("apiVersion"), _metadata(document).get("name")
    if version != f"{GROUP}/{VERSION}":
        raise SpecError(f"{file}: {kind} has apiVersion {_shown(version, 'none')!r}: write {GROUP}/{VERSION}")
    if not name:
        raise SpecError(f"{file}: a {kind} needs metadata.name")
    try:
        spec = document.get("spec")
        return model.model_validate({} if spec is None else spec)
    except ValidationError as exc:
        raise SpecError(f"{file}: {kind} {_shown(name, '?')}: {describe(exc)}") from exc
