"""How busctl gets from a cluster into its databases: by a BusDatabase's Secret, if the user may read that."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bus_operator import tls
from bus_operator.channel_reader import Holding
from bus_operator.channel_view import ChannelView
from bus_operator.cluster_channels import path
from bus_operator.cluster_client import ClusterClient
from bus_operator.database import AdminConnection
from bus_operator.errors import BusError, SecretError, SpecError
from bus_operator.secret_entries import entries

_OPERATORS = "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fname%3Dpgmq-bus&limit=1"


def holdings(client: ClusterClient, views: Iterable[ChannelView]) -> tuple[list[Holding], list[BusError]]:
    """The databases that hold these channels, and why some of them cannot be looked into.

    A channel that is in no database yet is left out.
    """
    by_database: dict[tuple[str, str], list[ChannelView]] = {}
    for view in views:
        if view.place is not None and view.place.namespace is not None and view.channel is not None:
            by_database.setdefault((view.place.namespace, view.place.name), []).append(view)

    def hold(key: tuple[str, str]) -> Holding | BusError:
        held = by_database[key]
        shards = {view.place.shard for view in held if view.place is not None}
        try:
            admin = admin_of(client, *key)
        except BusError as exc:
            return exc
        names = tuple(view.channel for view in held if view.channel is not None)
        return Holding(admin, names, shards.pop() if len(shards) == 1 else None)

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(hold, by_database))
    return [item for item in found if isinstance(item, Holding)], [item for item in found if isinstance(item, BusError)]


def admin_of(client: ClusterClient, namespace: str, name: str) -> AdminConnection:
    """The administrator's way into a BusDatabase.

    Raises:
        SpecError: When it or its Secret is not there, or may not be read; the message says what helps.
    """
    with _explained(client, namespace, name):
        spec = client.get(path("busdatabases", namespace, name))["spec"]
    return admin_by_spec(client, namespace, name, spec)


def admin_by_spec(client: ClusterClient, namespace: str, name: str, spec: Mapping[str, Any]) -> AdminConnection:
    """The administrator's way into a BusDatabase with this spec. Raises as `admin_of` does."""

    def secret(reference: Mapping[str, Any], only: str | None = None) -> dict[str, str]:
        with _explained(client, namespace, name):
            return entries(client.get(f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}"), only)

    reference, ca = spec["connectionSecretRef"], spec.get("caSecretRef")
    authority = None
    if ca:
        key = ca.get("key") or "ca.crt"
        with _named(namespace, ca):
            authority = tls.authority(secret(ca, key), key)
    with _named(namespace, reference):
        return AdminConnection.from_secret(secret(reference), reference.get("key") or "uri", authority)


@contextmanager
def _named(namespace: str, reference: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except SecretError as exc:
        raise SecretError(f"Secret {namespace}/{reference['name']}: {exc}") from exc


@contextmanager
def _explained(client: ClusterClient, namespace: str, name: str) -> Iterator[None]:
    try:
        yield
    except SpecError as exc:
        if exc.reason != "Forbidden":
            raise
        raise SpecError(
            f"{exc}. Only with that can BusDatabase {namespace}/{name} be looked into from here; the operator can:"
            f" {in_operator(client)}",
            reason="Forbidden",
        ) from exc


def in_operator(client: ClusterClient) -> str:
    """How to run what was typed where every database can be reached and read: in the operator's pod."""
    typed = client.typed
    try:
        metadata = client.get(_OPERATORS)["items"][0]["metadata"]
    except (BusError, LookupError):
        # A hint, for users who may not list Deployments as well.
        return f"{typed.kubectl} -n NAMESPACE deploy/pgmq-bus -- {typed.busctl} (NAMESPACE: the operator's)"
    return f"{typed.kubectl} -n {metadata['namespace']} deploy/{metadata['name']} -- {typed.busctl}"
