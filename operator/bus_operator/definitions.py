"""The resource definitions that this version ships, and bringing those of a cluster up to date: Helm never does.

Both carry the version of pgmq-bus that they came with, so that an older release never takes fields away that a newer
one has filled.
"""

import asyncio
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import SpecError, TransientError
from bus_operator.kube_api import KubeApi, message_of, unless_missing

VERSION_ANNOTATION = "pgmqbus.dev/version"

BY_HAND = "helm show crds CHART | kubectl apply --server-side --force-conflicts -f -"
"""How an administrator brings the definitions up to date."""

FIELD_MANAGER = "pgmq-bus-definitions"

APPLY_PATCH = "application/apply-patch+yaml"

ESTABLISHED_WITHIN = 60.0
"""Seconds in which the API server serves a definition that it has accepted."""

COLLECTION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Outcome(Enum):
    """What became of a definition."""

    UNCHANGED = "is up to date"
    UPGRADED = "upgraded"


@cache
def shipped() -> tuple[dict[str, Any], ...]:
    """The definitions in crds/."""
    folder = sorted(files("bus_operator").joinpath("crds").iterdir(), key=lambda entry: entry.name)
    return tuple(yaml.safe_load(entry.read_text(encoding="utf-8")) for entry in folder if entry.name.endswith(".yaml"))


async def upgrade(api: KubeApi, definition: Mapping[str, Any]) -> Outcome:
    """Makes the cluster's definition this one, and waits until it is served. Writes nothing where it is already.

    Raises:
        SpecError: There is none, it is of a newer version, or objects are stored in a version that this one lacks.
        TransientError: The API server refused it, or did not serve it in time.
    """
    name = definition["metadata"]["name"]
    try:
        present = await unless_missing(api.get(f"{COLLECTION}/{name}"))
    except ApiException as exc:
        raise TransientError(f"definition {name} cannot be read: {message_of(exc)}", reason="ApiUnavailable") from exc
    if present is None:
        raise SpecError(f"definition {name} is not installed. Install it: {BY_HAND}", reason="DefinitionMissing")
    _require_upgrade(name, definition, present)
    path = f"{COLLECTION}/{name}?fieldManager={FIELD_MANAGER}&force=true"
    try:
        # What the API server would make of it, defaults included.
        if _same(present, await api.patch(f"{path}&dryRun=All", definition, content_type=APPLY_PATCH)):
            return Outcome.UNCHANGED
        await api.patch(path, definition, content_type=APPLY_PATCH)
    except ApiException as exc:
        raise TransientError(
            f"definition {name} cannot be upgraded: {message_of(exc)}", reason="ApiUnavailable"
        ) from exc
    await _wait_until_served(api, name)
    return Outcome.UPGRADED


def _require_upgrade(name: str, definition: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    ours, theirs = version_of(definition), version_of(present)
    if theirs > ours:
        raise SpecError(
            f"definition {name} is of version {version_text(theirs)}, newer than {version_text(ours)}: it stays, since"
            " fields that are in use would be lost. Upgrade the chart, or set crds.upgrade=false to go back all the"
            " same",
            reason="DefinitionTooNew",
        )
    served = {version["name"] for version in definition["spec"]["versions"]}
    stored = set(present.get("status", {}).get("storedVersions", ()))
    if not stored <= served:
        raise SpecError(
            f"definition {name}: objects are stored in version {', '.join(sorted(stored - served))}, which this release"
            " no longer has: migrate them with the release before",
            reason="StoredVersionGone",
        )


def version_of(definition: Mapping[str, Any]) -> tuple[int, ...]:
    """The version that a definition came with; without an annotation it is from before there was one, which is (0,)."""
    return parse_version((definition["metadata"].get("annotations") or {}).get(VERSION_ANNOTATION, "0"))


def parse_version(text: str) -> tuple[int, ...]:
    """A version as it can be compared."""
    return tuple(int(part) for part in text.partition("-")[0].split(".") if part.isdecimal())


def version_text(version: tuple[int, ...]) -> str:
    """The same as people write it."""
    return ".".join(map(str, version))


def is_served(definition: Mapping[str, Any]) -> bool:
    """Whether the API server serves it."""
    conditions = {item["type"]: item["status"] for item in definition.get("status", {}).get("conditions", ())}
    return bool(conditions.get("Established") == conditions.get("NamesAccepted") == "True")


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return bool(before["spec"] == after["spec"] and version_of(before) == version_of(after))


async def _wait_until_served(api: KubeApi, name: str) -> None:
    try:
        async with asyncio.timeout(ESTABLISHED_WITHIN):
            while True:
                if is_served(await api.get(f"{COLLECTION}/{name}")):
                    return
                await asyncio.sleep(0.2)
    except TimeoutError as exc:
        raise TransientError(
            f"definition {name} is not served: see its status.conditions", reason="DefinitionNotServed"
        ) from exc
