"""Reads manifests from files, as `kubectl apply -f` takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import yaml
from pydantic import ValidationError

from bus_operator.errors import SpecError
from bus_operator.inventory import describe
from bus_operator.kube import GROUP, VERSION
from bus_operator.model import ChannelSpec


@dataclass(frozen=True)
class Manifest:
    """A BusChannel manifest that was read and checked."""

    namespace: str
    name: str
    spec: ChannelSpec

    def __str__(self) -> str:
        return f"BusChannel {self.namespace}/{self.name}"


def read_channels(files: Sequence[IO[str]], default_namespace: str) -> tuple[list[Manifest], list[str]]:
    """The BusChannels in `files`, and a line about each document that is something else.

    Raises:
        SpecError: For what is no YAML, no Kubernetes object, or not a valid BusChannel; names file and field.
    """
    channels: list[Manifest] = []
    skipped: list[str] = []
    for file in files:
        for document in _documents(file):
            kind = document.get("kind")
            name = (document.get("metadata") or {}).get("name")
            if kind == "BusChannel":
                channels.append(_channel(file.name, document, default_namespace))
            else:
                skipped.append(f"{kind or 'document without kind'}/{name or '?'} in {file.name}")
    seen: set[tuple[str, str]] = set()
    for channel in channels:
        if (channel.namespace, channel.name) in seen:
            raise SpecError(f"{channel} is there twice: keep one")
        seen.add((channel.namespace, channel.name))
    return channels, skipped


def _documents(file: IO[str]) -> Iterator[dict[str, Any]]:
    try:
        for document in yaml.safe_load_all(file):
            if document is None:
                continue
            if not isinstance(document, dict):
                raise SpecError(f"{file.name}: a manifest is a mapping with apiVersion, kind and metadata")
            yield document
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SpecError(f"{file.name}: not valid YAML: {exc}") from exc


def _channel(file: str, document: dict[str, Any], default_namespace: str) -> Manifest:
    version = document.get("apiVersion")
    if version != f"{GROUP}/{VERSION}":
        raise SpecError(f"{file}: BusChannel has apiVersion {version!r}: write {GROUP}/{VERSION}")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise SpecError(f"{file}: a BusChannel needs metadata.name")
    try:
        spec = ChannelSpec.model_validate(document.get("spec") or {})
    except ValidationError as exc:
        raise SpecError(f"{file}: BusChannel {name}: {describe(exc)}") from exc
    namespace = document["metadata"].get("namespace") or default_namespace
    return Manifest(str(namespace), name, spec)
