"""Goes round: gathers the facts of a database or a cluster, all at the same time, and has the checks judge them."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bus_operator import channel_reader, cluster_channels, cluster_databases
from bus_operator.channel_view import ChannelView
from bus_operator.cluster_channels import path
from bus_operator.cluster_client import ClusterClient
from bus_operator.database import AdminConnection
from bus_operator.doctor import channel, database, pod, webhook
from bus_operator.doctor.channel import ChannelFacts
from bus_operator.doctor.database import DatabaseFacts, DatabaseLook
from bus_operator.doctor.findings import Examined, Outcome
from bus_operator.doctor.pod import PodFacts
from bus_operator.errors import BusError, NotFoundError, SpecError
from bus_operator.peer_view import PeerView
from bus_operator.pod_requests import LABEL, named_channels

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Place = tuple[str, str]
"""Namespace and name of a BusDatabase."""


async def of_database(admin: AdminConnection, name: str | None, release: str) -> list[Examined]:
    """Looks at a database, and at its channels or at the one that is called so.

    Raises NotFoundError when it has none of that name.
    """
    views: list[ChannelView] = []
    if name is None:
        found, listed = await asyncio.gather(_or_error(admin, None), _views(admin))
        views = listed if isinstance(found, DatabaseLook) else []
    else:
        views = await _views(admin, name)
        found = await _or_error(admin, [str(view.channel) for view in views])
    title = str(admin.endpoint)
    examined = [Examined("Database", title, database.CHECKS.examine(DatabaseFacts(title, admin, found)))]
    if name is not None and not views:
        return [*examined, Examined("Channel", name, [Outcome("ready", unseen="because of its database")])]
    look = found if isinstance(found, DatabaseLook) else None
    return [*examined, *(_channel("Channel", str(view.channel), ChannelFacts(view, look, release)) for view in views)]


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
    injection, views, bodies, pods = await asyncio.gather(
        asyncio.to_thread(webhook.gather, client, within or client.access.namespace),
        asyncio.to_thread(cluster_channels.list_channels, client, within),
        asyncio.to_thread(_databases, client, within),
        asyncio.to_thread(_pods, client, within, target),
    )
    existing = {(view.namespace, view.name) for view in views}
    views, pods = _meant(views, pods, target)
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
        examined.append(_channel("BusChannel", f"{view.namespace}/{view.name}", ChannelFacts(view, look, release)))
    peers = [peer for look in looks.values() for peer in look.peers]
    complete = len(looks) == len(places)
    return [*examined, *_examine_pods(pods, existing, peers if complete else None)]


def _channel(kind: str, name: str, facts: ChannelFacts) -> Examined:
    return Examined(kind, name, channel.CHECKS.examine(facts))


def _examine_pods(
    pods: Iterable[dict[str, Any]], existing: set[tuple[str | None, str | None]], peers: Sequence[PeerView] | None
) -> list[Examined]:
    now = datetime.now(UTC)
    examined = []
    for body in pods:
        namespace = body["metadata"]["namespace"]
        known = frozenset(str(name) for within, name in existing if within == namespace)
        facts = PodFacts.from_body(body, known, (), peers, now)
        examined.append(Examined("Pod", f"{namespace}/{facts.pod.name}", pod.CHECKS.examine(facts)))
    return examined


def _meant(
    views: Sequence[ChannelView], pods: list[dict[str, Any]], target: Target | None
) -> tuple[Sequence[ChannelView], list[dict[str, Any]]]:
    """The channels and pods that have to do with the target."""
    if target is None:
        return views, pods
    if target.kind == "channel":
        found = [view for view in views if view.name == target.name]
        if not found:
            raise cluster_channels.missing(target.namespace, target.name)
        return found, [body for body in pods if target.name in named_channels(body)]
    asked = {name for body in pods for name in named_channels(body)}
    return [view for view in views if view.name in asked], pods


def _pods(client: ClusterClient, namespace: str | None, target: Target | None) -> list[dict[str, Any]]:
    """Those that ask; none where they may not be read."""
    if target is not None and target.kind == "pod":
        return [client.get(f"/api/v1/namespaces/{target.namespace}/pods/{target.name}")]
    where = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    try:
        return list(client.items(where, label_selector=f"{LABEL}=true", accept=_METADATA))
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
    found = await _or_error(admin, names)
    hint = ""
    if isinstance(found, BusError) and not client.access.is_pod:
        hint = await asyncio.to_thread(cluster_databases.in_operator, client)
    return DatabaseFacts(title, admin, found, conditions, hint)


async def _views(admin: AdminConnection, name: str | None = None) -> list[ChannelView]:
    """The channels; none where they cannot be read, for which the look at the database has the reason."""
    try:
        if name is None:
            return await channel_reader.read_channels(admin)
        return [await channel_reader.read_channel(admin, name)]
    except NotFoundError:
        raise
    except BusError:
        return []


async def _or_error(admin: AdminConnection, names: Sequence[str] | None) -> DatabaseLook | BusError:
    try:
        return await database.look(admin, names)
    except BusError as exc:
        return exc
