"""Goes round a cluster: gathers the facts of its objects and databases, all at the same time, and has them judged."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

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
from bus_operator.errors import BusError, NotFoundError, SpecError
from bus_operator.peer_view import PeerView
from bus_operator.pod_requests import LABEL, labels_of, overlooked_channels
from bus_operator.pods import Pod, Selecting

Place = tuple[str, str]
"""Namespace and name of a BusDatabase."""
_Row = tuple[dict[str, Any], dict[str, Any]]
"""What kubectl prints of a pod, by column, and its metadata."""


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
    # Which databases are concerned comes first, and alone: looking into them takes longest.
    (views, selection), bodies, meant = await asyncio.gather(
        asyncio.to_thread(_channels, client, within),
        asyncio.to_thread(_databases, client, within),
        asyncio.to_thread(_meant_pod, client, target),
    )
    existing: dict[str, dict[str, ChannelView]] = {}
    for view in views:
        existing.setdefault(str(view.namespace), {})[str(view.name)] = view
    pods = [_Candidate.of(row, selection) for row in meant]
    views = _meant_channels(views, pods, target)
    places = {(view.place.namespace or "", view.place.name): None for view in views if view.place is not None}
    if target is None:
        places |= {place: None for place in bodies if namespace in (None, place[0])}
    injection, others, found = await asyncio.gather(
        asyncio.to_thread(webhook.gather, client, within or client.access.namespace),
        asyncio.to_thread(_other_pods, client, within, selection, target),
        asyncio.gather(*(_facts(client, place, bodies, views) for place in places)),
    )
    facts = dict(zip(places, found, strict=True))
    looks = {place: item.look for place, item in facts.items() if isinstance(item.look, DatabaseLook)}
    examined = [Examined("Injection", "webhook", webhook.examine(injection))]
    databases = {
        place: Examined("BusDatabase", "/".join(place), database.CHECKS.examine(item)) for place, item in facts.items()
    }
    examined += databases.values()
    gone = await asyncio.to_thread(_gone, client, looks.values(), [view.namespace for view in views])
    lost = {place for place in places if place not in looks and databases[place].out_of_reach}
    for view in views:
        place = (view.place.namespace or "", view.place.name) if view.place is not None else ("", "")
        channel_facts = ChannelFacts(view, looks.get(place), release, place in lost, gone.get(view.namespace or "", ()))
        examined.append(examine_channel("BusChannel", f"{view.namespace}/{view.name}", channel_facts))
    complete = len(looks) == len(places)
    pod_facts = _pod_facts([*pods, *others], existing, looks.values() if complete else None)
    return [
        *examined,
        *(
            Examined("Pod", "/".join(item.pod.key), pod.CHECKS.examine(replace(item, out_of_reach=bool(lost))))
            for item in pod_facts
        ),
    ]


@dataclass(frozen=True)
class _Selection:
    """Which BusChannels select pods that did not ask."""

    selecting: Selecting = lambda *_: ()
    namespaces: Collection[str] = ()
    """Where."""


@dataclass(frozen=True)
class _Candidate:
    """A pod that may have to do with the bus."""

    pod: Pod
    state: str
    is_labelled: bool
    overlooked: Sequence[str]
    """The BusChannels that it asks for, without the label."""

    @classmethod
    def of(cls, row: _Row, selection: _Selection) -> "_Candidate":
        cells, body = row
        pod, labels = Pod.from_body(body, selection.selecting), labels_of(body)
        overlooked = overlooked_channels(body, selection.selecting(pod.namespace, labels))
        return cls(pod, str(cells.get("Status", "Unknown")), labels.get(LABEL) == "true", overlooked)

    @property
    def channels(self) -> list[str]:
        """The BusChannels that it has to do with."""
        return [*self.pod.channels, *self.overlooked]


def _pod_facts(
    pods: Iterable[_Candidate], existing: Mapping[str, Mapping[str, ChannelView]], looks: Iterable[DatabaseLook] | None
) -> Iterator[PodFacts]:
    now = datetime.now(UTC)
    by_host: dict[str, list[PeerView]] = {}
    for look in looks or ():
        for peer in look.peers:
            by_host.setdefault(peer.host or "", []).append(peer)
    for item in pods:
        namespace, name = item.pod.key
        peers = by_host.get(name, []) if looks is not None else None
        channels = existing.get(namespace, {})
        unbound = {
            view.name or "": str(view.secret) for view in channels.values() if not (view.is_bound or view.is_healthy)
        }
        yield PodFacts(item.pod, item.state, channels, peers, now, item.overlooked, unbound)


def _meant_channels(
    views: Sequence[ChannelView], pods: Sequence[_Candidate], target: Target | None
) -> Sequence[ChannelView]:
    """Those that have to do with the target."""
    if target is None:
        return views
    if target.kind == "pod":
        asked = {name for item in pods for name in item.channels}
        return [view for view in views if view.name in asked]
    found = [view for view in views if view.name == target.name]
    if not found:
        raise cluster_channels.missing(target.namespace, target.name)
    return found


def _channels(client: ClusterClient, namespace: str | None) -> tuple[Sequence[ChannelView], _Selection]:
    """The BusChannels, and which of them select pods."""
    bodies = cluster_channels.list_resources(client, namespace)
    views = list(map(channel_view.from_resource, bodies))
    selecting = [body for body in bodies if "injection" in (body.get("spec") or {})]
    if not selecting:
        return views, _Selection()
    # Only here, and for few: importing the models takes as long as all else.
    from bus_operator.inventory import Inventory, Resource

    inventory = Inventory()
    for body in selecting:
        inventory.put(Resource.from_body(body | {"kind": "BusChannel"}))
    return views, _Selection(inventory.selecting, inventory.selecting_namespaces)


def _meant_pod(client: ClusterClient, target: Target | None) -> list[_Row]:
    if target is None or target.kind != "pod":
        return []
    pods = f"/api/v1/namespaces/{target.namespace}/pods"
    try:
        # The operator, in whose pod this is run as well, may list pods and get none.
        found = list(client.rows(pods, field_selector=f"metadata.name={target.name}"))
    except SpecError as exc:
        if exc.reason != "Forbidden":
            raise
        # Others may get pods and list none.
        return list(client.rows(f"{pods}/{target.name}"))
    if not found:
        raise NotFoundError(
            f"there is no pod {target.namespace}/{target.name}: kubectl get pods -n {target.namespace} shows all"
        )
    return found


def _other_pods(
    client: ClusterClient, namespace: str | None, selection: _Selection, target: Target | None
) -> list[_Candidate]:
    """Those that ask or are selected, for the target if that is a channel; none beside a pod that is the target.

    Of all namespaces those that ask without the label are left out: it would take a list of all pods.
    """
    if target is not None and target.kind == "pod":
        return []
    if namespace is not None:
        rows = _list_pods(client, namespace, f"{LABEL}!=false")
    else:
        rows = _list_pods(client, None, f"{LABEL},{LABEL}!=false")
        if selection.namespaces:
            # By one list, however many namespaces there are.
            within = next(iter(selection.namespaces)) if len(selection.namespaces) == 1 else None
            shown = _list_pods(client, within, f"!{LABEL}")
            rows += [row for row in shown if row[1]["metadata"]["namespace"] in selection.namespaces]
    pods = [_Candidate.of(row, selection) for row in rows]
    if target is not None:
        return [item for item in pods if target.name in item.channels]
    return [item for item in pods if item.is_labelled or item.channels]


def _list_pods(client: ClusterClient, namespace: str | None, label_selector: str) -> list[_Row]:
    """None where they may not be read."""
    where = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    try:
        return list(client.rows(where, label_selector=label_selector))
    except SpecError:
        return []


def _gone(
    client: ClusterClient, looks: Iterable[DatabaseLook], namespaces: Collection[str | None]
) -> dict[str, set[str]]:
    """The pods whose peers may have ended and that are not there, by namespace; none where they may not be listed."""
    silent: dict[str, set[str]] = {}
    for look in looks:
        for peer in look.peers:
            namespace = (peer.owner or "").partition("/")[0]
            if peer.host and peer.may_have_ended and peer.state != "Ok" and namespace in namespaces:
                silent.setdefault(namespace, set()).add(peer.host)
    for namespace, hosts in silent.items():
        try:
            hosts -= {body["metadata"]["name"] for _, body in client.rows(f"/api/v1/namespaces/{namespace}/pods")}
        except BusError:
            hosts.clear()
    return silent


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
