"""Goes round a cluster: gathers the facts of its objects and databases, all at the same time, and has them judged."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bus_operator import channel_view, cluster_channels, cluster_databases
from bus_operator.channel_view import ChannelView
from bus_operator.cluster_channels import path
from bus_operator.cluster_client import ClusterClient
from bus_operator.database import AdminConnection
from bus_operator.doctor import database, pod, webhook
from bus_operator.doctor.channel import ChannelFacts
from bus_operator.doctor.database import DatabaseFacts, DatabaseLook
from bus_operator.doctor.findings import Examined
from bus_operator.doctor.pod import PodFacts
from bus_operator.doctor.rounds import examine_channel, or_error
from bus_operator.errors import BusError, SpecError
from bus_operator.peer_view import PeerView
from bus_operator.pod_requests import LABEL, labels_of
from bus_operator.pods import Pod, Selecting

if TYPE_CHECKING:
    from bus_operator.inventory import Inventory

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Place = tuple[str, str]
"""Namespace and name of a BusDatabase."""


@dataclass(frozen=True)
class Target:
    """What in a cluster is meant, if not all."""

    kind: str
    """`channel` or `pod`."""
    namespace: str
    name: str


async def of_cluster(
    client: ClusterClient, namespace: str | None, target: Target | None, release: str
) -> list[Examined]:
    """Looks at the operator's webhook, at databases, channels and pods.

    Args:
        client: As whom.
        namespace: None: all.
        target: The only channel or pod that is meant.
        release: This version.

    Raises:
        BusError: When not even the BusChannels can be read.
    """
    within = target.namespace if target is not None else namespace
    injection, (views, selection), bodies, asking = await asyncio.gather(
        asyncio.to_thread(webhook.gather, client, within or client.access.namespace),
        asyncio.to_thread(_channels, client, within),
        asyncio.to_thread(_databases, client, within),
        asyncio.to_thread(_asking_pods, client, within, target),
    )
    existing: dict[str, set[str]] = {}
    for view in views:
        existing.setdefault(str(view.namespace), set()).add(str(view.name))
    if selection is not None and (target is None or target.kind == "channel"):
        asking += await asyncio.to_thread(_other_pods, client, selection.selecting_namespaces)
    candidates = [_Candidate.of(body, selection.selecting if selection is not None else _nothing) for body in asking]
    views, pods = _meant(views, candidates, target)
    places = {(view.place.namespace or "", view.place.name): None for view in views if view.place is not None}
    if target is None:
        places |= {place: None for place in bodies if namespace in (None, place[0])}
    facts = dict(
        zip(places, await asyncio.gather(*(_facts(client, place, bodies, views) for place in places)), strict=True)
    )
    looks = {place: item.look for place, item in facts.items() if isinstance(item.look, DatabaseLook)}
    examined = [Examined("Injection", "webhook", webhook.CHECKS.examine(injection))]
    examined += [
        Examined("BusDatabase", "/".join(place), database.CHECKS.examine(item)) for place, item in facts.items()
    ]
    for view in views:
        look = looks.get((view.place.namespace or "", view.place.name)) if view.place is not None else None
        examined.append(
            examine_channel("BusChannel", f"{view.namespace}/{view.name}", ChannelFacts(view, look, release))
        )
    return [*examined, *_examine_pods(pods, existing, looks.values() if len(looks) == len(places) else None)]


@dataclass(frozen=True)
class _Candidate:
    """A pod that may be one that has to do with the bus."""

    pod: Pod
    phase: str | None
    is_labelled: bool

    @classmethod
    def of(cls, body: Mapping[str, Any], selecting: Selecting) -> "_Candidate":
        phase = (body.get("status") or {}).get("phase")
        return cls(Pod.from_body(body, selecting), phase, LABEL in labels_of(body))


def _nothing(*_: object) -> tuple[str, ...]:
    """What selects pods where no BusChannel does."""
    return ()


def _examine_pods(
    pods: Iterable[_Candidate], existing: Mapping[str, Collection[str]], looks: Iterable[DatabaseLook] | None
) -> list[Examined]:
    now = datetime.now(UTC)
    by_host: dict[str, list[PeerView]] = {}
    for look in looks or ():
        for peer in look.peers:
            by_host.setdefault(peer.host or "", []).append(peer)
    examined = []
    for item in pods:
        namespace, name = item.pod.key
        peers = by_host.get(name, []) if looks is not None else None
        facts = PodFacts(item.pod, item.phase, existing.get(namespace, ()), peers, now)
        examined.append(Examined("Pod", f"{namespace}/{name}", pod.CHECKS.examine(facts)))
    return examined


def _meant(
    views: Sequence[ChannelView], pods: Sequence[_Candidate], target: Target | None
) -> tuple[Sequence[ChannelView], Sequence[_Candidate]]:
    """The channels and pods that have to do with the target."""
    concerned = [item for item in pods if item.is_labelled or item.pod.channels]
    if target is None:
        return views, concerned
    if target.kind == "channel":
        found = [view for view in views if view.name == target.name]
        if not found:
            raise cluster_channels.missing(target.namespace, target.name)
        return found, [item for item in concerned if target.name in item.pod.channels]
    asked = {name for item in pods for name in item.pod.channels}
    return [view for view in views if view.name in asked], pods


def _channels(client: ClusterClient, namespace: str | None) -> "tuple[Sequence[ChannelView], Inventory | None]":
    """The BusChannels, and what tells which of them select a pod; None where none selects any."""
    bodies = cluster_channels.list_resources(client, namespace)
    selection = None
    for body in bodies:
        if "injection" in (body.get("spec") or {}):
            # Only here, and for few: importing the models takes as long as all else.
            from bus_operator.inventory import Inventory, Resource

            selection = selection or Inventory()
            selection.put(Resource.from_body(body | {"kind": "BusChannel"}))
    return list(map(channel_view.from_resource, bodies)), selection


def _asking_pods(client: ClusterClient, namespace: str | None, target: Target | None) -> list[dict[str, Any]]:
    """Those with the label, or the one that is meant; none where they may not be read."""
    if target is not None and target.kind == "pod":
        return [client.get(f"/api/v1/namespaces/{target.namespace}/pods/{target.name}")]
    return _pods(client, namespace, f"{LABEL}=true")


def _other_pods(client: ClusterClient, namespaces: Collection[str]) -> list[dict[str, Any]]:
    """Those without the label in these namespaces: by one list, however many namespaces there are."""
    within = next(iter(namespaces)) if len(namespaces) == 1 else None
    bodies = _pods(client, within, f"!{LABEL}")
    return [body for body in bodies if body["metadata"]["namespace"] in namespaces]


def _pods(client: ClusterClient, namespace: str | None, label_selector: str) -> list[dict[str, Any]]:
    where = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    try:
        return list(client.items(where, label_selector=label_selector, accept=_METADATA))
    except SpecError:
        return []


def _databases(client: ClusterClient, namespace: str | None) -> dict[Place, dict[str, Any]]:
    """The BusDatabases that may be read, by namespace and name."""
    for within in dict.fromkeys((None, namespace)):
        try:
            found = client.items(path("busdatabases", within))
            return {(body["metadata"]["namespace"], body["metadata"]["name"]): body for body in found}
        except SpecError:
            continue
    return {}


async def _facts(
    client: ClusterClient, place: Place, bodies: dict[Place, dict[str, Any]], views: Sequence[ChannelView]
) -> DatabaseFacts:
    """Looks into a BusDatabase, if that is possible from here."""
    title = f"BusDatabase {'/'.join(place)}"
    conditions = (bodies.get(place, {}).get("status") or {}).get("conditions") or ()
    names = [str(view.channel) for view in views if view.place is not None and view.place[:2] == place]
    try:
        admin = await asyncio.to_thread(cluster_databases.admin_of, client, *place)
    except BusError as exc:
        return DatabaseFacts(title, exc, None, conditions)
    found, pooled = await asyncio.gather(
        or_error(admin, names), _pooled_for_clients(admin, bodies.get(place, {}).get("spec") or {})
    )
    hint = ""
    if isinstance(found, BusError) and not client.access.is_pod:
        hint = await asyncio.to_thread(cluster_databases.in_operator, client)
    return DatabaseFacts(title, admin, found, conditions, hint, pooled)


async def _pooled_for_clients(admin: AdminConnection, spec: Mapping[str, Any]) -> bool | BusError | None:
    if not spec.get("clientEndpoint"):
        return None
    # Only here, and for few: importing the models takes as long as all else.
    from bus_operator.model import ClientEndpoint

    endpoint = admin.endpoint.for_clients(ClientEndpoint.model_validate(spec["clientEndpoint"]))
    return await database.is_pooled(replace(admin, endpoint=endpoint))
