"""Reads BusChannels for busctl: one list, however many there are."""

from typing import Any

from bus_operator import channel_view, naming
from bus_operator.channel_view import ChannelView
from bus_operator.cluster_client import ClusterClient
from bus_operator.errors import NotFoundError, SpecError

API = f"/apis/{naming.GROUP}/{naming.VERSION}"


def path(plural: str, namespace: str | None, name: str | None = None) -> str:
    """Where resources of ours are; no namespace stands for all of them."""
    within = f"{API}/namespaces/{namespace}/{plural}" if namespace else f"{API}/{plural}"
    return f"{within}/{name}" if name else within


def list_channels(client: ClusterClient, namespace: str | None, label_selector: str | None = None) -> list[ChannelView]:
    """The BusChannels of a namespace, or of all, by name."""
    return list(map(channel_view.from_resource, list_resources(client, namespace, label_selector)))


def list_resources(
    client: ClusterClient, namespace: str | None, label_selector: str | None = None
) -> list[dict[str, Any]]:
    """The same as the API server sends them."""
    with_installation = "the cluster knows no BusChannels: install the operator's chart, or choose another context"
    try:
        bodies = list(client.items(path("buschannels", namespace), label_selector=label_selector))
    except NotFoundError as exc:
        raise SpecError(with_installation, reason="NotInstalled") from exc
    return sorted(bodies, key=lambda body: (body["metadata"]["namespace"], body["metadata"]["name"]))


def get_channel(client: ClusterClient, namespace: str, name: str) -> ChannelView:
    """A BusChannel. Raises NotFoundError."""
    return channel_view.from_resource(get_resource(client, namespace, name))


def get_resource(client: ClusterClient, namespace: str, name: str) -> dict[str, Any]:
    """A BusChannel as the API server sends it. Raises NotFoundError."""
    try:
        return client.get(path("buschannels", namespace, name))
    except NotFoundError as exc:
        raise missing(namespace, name) from exc


def missing(namespace: str, name: str) -> NotFoundError:
    """That there is no such BusChannel."""
    return NotFoundError(f"there is no BusChannel {namespace}/{name}: busctl status -A shows all")
