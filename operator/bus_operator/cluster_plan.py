"""What applying manifests would change in a cluster, by dry runs of the API server and by the operator's own plan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bus_operator import cluster_databases, dry_run
from bus_operator.actions import DesiredChannel
from bus_operator.binding import held_credential
from bus_operator.cluster_channels import path
from bus_operator.cluster_client import JSON_PATCH, ClusterClient
from bus_operator.database import AdminConnection
from bus_operator.dry_run import DryRun
from bus_operator.errors import NotFoundError, SpecError
from bus_operator.inventory import ROTATE_ANNOTATION, Inventory, Resource
from bus_operator.model import Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules, request_of
from bus_operator.secret_entries import entries
from bus_operator.selection import Labels, Selection
from bus_operator.shard_plans import ShardPlans

PLURALS = {"BusDatabase": "busdatabases", "BusChannel": "buschannels"}

_GIVEN_LATER = Uid("(the UID that the API server gives)")


@dataclass(frozen=True)
class Change:
    """A BusChannel or BusDatabase as it would be, and what of that is new."""

    resource: Resource
    objects: tuple[str, ...]
    is_new: bool


def change_of(client: ClusterClient, kind: str, namespace: str, name: str, body: Mapping[str, Any]) -> Change:
    """Has the API server say what a manifest makes of the resource; it is validated as when it is applied.

    Raises:
        SpecError: When the API server would refuse it.
    """
    where = path(PLURALS[kind], namespace, name)
    try:
        before = client.get(where)
    except NotFoundError:
        document = dict(body) | {"metadata": dict(body.get("metadata") or {}) | {"namespace": namespace}}
        made = client.create(f"{path(PLURALS[kind], namespace)}?dryRun=All", document)
        resource = replace(Resource.from_body(made), uid=_GIVEN_LATER)
        return Change(resource, (f"create {kind} {namespace}/{name}",), is_new=True)
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    steps: list[dict[str, Any]] = [{"op": "add", "path": "/spec", "value": body.get("spec") or {}}]
    after = client.patch(f"{where}?dryRun=All", steps, content_type=JSON_PATCH)
    objects = [f"change {text}" for text in differences(before.get("spec"), after.get("spec"), "spec")]
    resource = Resource.from_body(after)
    rotate = annotations.get(ROTATE_ANNOTATION)
    if rotate is not None and rotate != resource.rotate:
        objects.append(f"change the annotation {ROTATE_ANNOTATION} to {rotate!r}")
        resource = replace(resource, rotate=rotate)
    return Change(resource, tuple(objects), is_new=False)


def differences(before: Any, after: Any, where: str) -> Iterator[str]:
    """Field by field, what is another value, in words."""
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        for key in sorted({*(before or ()), *(after or ())}):
            yield from differences((before or {}).get(key), (after or {}).get(key), f"{where}.{key}")
    elif before != after:
        yield f"{where} from {_shown(before)} to {_shown(after)}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)


class Surroundings:
    """The cluster as the operator sees it, with the manifests applied; where the user may not see all, what he may.

    Args:
        client: The API server.
        namespace: Whose resources are read where those of the whole cluster may not be.
    """

    def __init__(self, client: ClusterClient, namespace: str) -> None:
        self._client = client
        self.inventory = Inventory()
        self._selection = Selection(self, self.inventory)
        for kind, plural in PLURALS.items():
            for body in self._list(plural, namespace):
                self.inventory.put(Resource.from_body(body | {"kind": kind}))

    def _list(self, plural: str, namespace: str) -> list[dict[str, Any]]:
        try:
            return list(self._client.items(path(plural, None)))
        except SpecError as exc:
            if exc.reason != "Forbidden":
                raise
            return list(self._client.items(path(plural, namespace)))

    async def labels_of(self, name: str) -> Labels:
        """The labels of a namespace."""
        labels: Labels = self._client.get(f"/api/v1/namespaces/{name}")["metadata"].get("labels") or {}
        return labels

    async def database_of(self, channel: Resource) -> Resource:
        """The BusDatabase that a BusChannel would be in. Raises SpecError where there is none for it."""
        return await self._selection.database_of(channel, channel.channel_spec())

    def admin_of(self, database: Resource) -> AdminConnection:
        """The way into a BusDatabase. Raises SpecError where the user may not read its Secret."""
        return cluster_databases.admin_by_spec(self._client, database.namespace, database.name, database.spec)

    async def plan_channel(
        self, plans: ShardPlans, change: Change, database: Resource
    ) -> tuple[DryRun, str, list[str]]:
        """What the operator would do for a BusChannel, in which database, and which Secret it would write."""
        resource, spec = change.resource, change.resource.channel_spec()
        wire_name, secret = spec.wire_name(*resource.key), spec.secret_name(resource.name)
        yielding = self._selection.younger_rivals(resource, wire_name, database) if not change.is_new else frozenset()
        desired = DesiredChannel.from_spec(spec, namespace=resource.namespace, name=resource.name, uid=resource.uid)
        desired = replace(desired, owner_reference=f"{desired.owner_reference}@{self._cluster_id()}")
        held, exists, note = self._binding(resource.namespace, secret)
        shard, connection = await plans.place(wire_name)
        rules = replace(RotationRules.from_spec(spec.credentials), request=request_of(resource.rotate))
        run = await dry_run.channel_of(connection, desired, held, yielding, rotation=rules, binding_wanted=note is None)
        if note is not None:
            run = replace(run, notes=(*run.notes, note))
        writes = [f"{'update' if exists else 'create'} Secret {resource.namespace}/{secret}"] if run.issues else []
        return run, str(shard.admin.endpoint), writes

    def _binding(self, namespace: str, name: str) -> tuple[HeldCredential | None, bool, str | None]:
        """What the binding's Secret holds, whether it is there, and why that cannot be told."""
        try:
            found = self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except NotFoundError:
            return None, False, None
        except SpecError as exc:
            if exc.reason != "Forbidden":
                raise
            return None, False, f"credentials are left out: {exc}"
        return held_credential(entries(found)), True, None

    def _cluster_id(self) -> str:
        """As `Kube.cluster_id` has it."""
        return str(self._client.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])[:8]
