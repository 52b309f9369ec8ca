"""Completes the names of channels in a shell, from where the command line would read them; silent where it cannot."""

import asyncio
from typing import Any

import click

from bus_operator.cli.source import DatabaseSource, Source, open_source

_PATIENCE = 2.0
"""Seconds: somebody has pressed a key."""

_NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def channels(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The channels whose names begin so: in a cluster of the namespace, after `NAMESPACE/` of that one."""
    options = context.params
    try:
        source = open_source(
            options.get("database"), options.get("kubeconfig"), options.get("context"), options.get("namespace")
        )
        return [name for name in _names(source, incomplete) if name.startswith(incomplete)]
    except Exception:  # whatever it is: a half-written command line must not fill with messages
        return []


def _names(source: Source, incomplete: str) -> list[str]:
    from bus_operator import cluster_channels
    from bus_operator.cluster_client import ClusterClient

    if isinstance(source, DatabaseSource):
        return asyncio.run(_in_database(source))
    given, slash, _ = incomplete.partition("/")
    client = ClusterClient(source.client.access, timeout=_PATIENCE)
    path = cluster_channels.path("buschannels", given if slash else source.namespace)
    return [
        f"{given}{slash}{item['metadata']['name']}" if slash else item["metadata"]["name"]
        for item in client.items(path, accept=_NAMES_ONLY)
    ]


async def _in_database(source: DatabaseSource) -> list[str]:
    from bus_operator import channel_reader, sql
    from bus_operator.channel_reader import Holding

    async def read(connection: Any, _: object) -> list[str]:
        return [row["name"] for row in await connection.fetch(sql.query("channel_names"))]

    async with asyncio.timeout(_PATIENCE):
        found = await channel_reader.in_shards(Holding(source.admin), read)
    return sorted(name for names in found for name in names)
