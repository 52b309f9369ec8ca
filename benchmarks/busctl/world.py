"""What busctl reads while it is measured: a database of many channels with peers, and a cluster that says so."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg
import control_plane
import postgres
import yaml
from control_plane import GROUP, VERSION, KubeClient, Manifest
from wire import Peer

from bus_operator import provision
from bus_operator.actions import DesiredChannel
from bus_operator.database import connect
from bus_operator.model import ChannelSpec, Uid

NAMESPACE = "shop"
CLUSTER = "cluster"
"""What stands for the cluster in the registry, behind the name of a BusChannel."""

_HANDS = 8
_TIME = "2026-01-02T03:04:05Z"
_API = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"

# Nothing is to be written down for a test to read.
_SILENT = ("-c", "log_statement=none", "-c", "log_min_duration_statement=-1")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Size:
    """How much there is.

    Attributes:
        channels: In one database.
        peers: Of each channel, each in a pod of its own.
        messages: That were published in each channel, and acknowledged.
    """

    channels: int = 500
    peers: int = 3
    messages: int = 20


@dataclass(frozen=True)
class World:
    """Where busctl is pointed at.

    Attributes:
        server: The PostgreSQL.
        database: The administrator's URI.
        kubeconfig: Of the cluster's administrator, with the namespace of the channels as its context's.
        cluster_processes: Of the API server and its etcd.
        channel: The name of one BusChannel among them.
    """

    server: postgres.Server
    database: str
    kubeconfig: Path
    cluster_processes: tuple[int, ...]
    channel: str


def say(text: str) -> None:
    """A line for whoever waits: standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def running(size: Size) -> Iterator[World]:
    """Starts the servers and fills them; nothing is left of them afterwards."""
    with filled_server(size) as (server, database, binding), control_plane.running() as cluster:
        say(f"  the same {size.channels} BusChannels and {size.channels * size.peers} pods in an API server")
        client = KubeClient(cluster.kubeconfig)
        try:
            _fill_cluster(client, size, database.dsn, binding)
        finally:
            client.close()
        with tempfile.TemporaryDirectory(prefix="pgmq-bus-busctl-") as directory:
            kubeconfig = Path(directory, "kubeconfig")
            configuration = yaml.safe_load(cluster.kubeconfig.read_text())
            configuration["contexts"][0]["context"]["namespace"] = NAMESPACE
            kubeconfig.write_text(yaml.safe_dump(configuration))
            yield World(server, database.dsn, kubeconfig, tuple(cluster.pids()), _name(0))


@contextmanager
def filled_server(size: Size) -> Iterator[tuple[postgres.Server, postgres.Database, Manifest]]:
    """A PostgreSQL with the channels and their peers, and the binding of the first channel."""
    server = postgres.start_server(18, *_SILENT)
    try:
        postgres.create_template(server)
        database = asyncio.run(postgres.create_database(server))
        say(f"  {size.channels} channels with {size.peers} peers each in PostgreSQL")
        yield server, database, asyncio.run(_fill_database(database, size))
    finally:
        server.remove()


def _name(number: int) -> str:
    return f"channel-{number}"


def _wire_name(number: int) -> str:
    return f"{NAMESPACE}.{_name(number)}"


def _pod(channel: int, peer: int) -> str:
    return f"worker-{channel}-{peer}"


async def _fill_database(database: postgres.Database, size: Size) -> Manifest:
    free = asyncio.Semaphore(_HANDS)

    async def fill(number: int) -> Manifest:
        async with free:
            return await _fill_channel(database, number, size)

    first, *_ = await asyncio.gather(*map(fill, range(size.channels)))
    async with database.session() as session:
        # As autovacuum leaves it within a minute.
        await session.execute("vacuum analyze")
    return first


async def _fill_channel(database: postgres.Database, number: int, size: Size) -> Manifest:
    name = _wire_name(number)
    # Nobody speaks for the peers while busctl is measured.
    spec = ChannelSpec.model_validate({"channel": name, "peerTimeout": "24h"})
    uid = Uid(f"uid-{number}")
    desired = DesiredChannel.from_spec(spec, namespace=NAMESPACE, name=f"{_name(number)}@{CLUSTER}", uid=uid)
    async with connect(database.admin) as session:
        provisioned = await provision.provision(session, desired, held=None)
    assert provisioned.issued is not None
    issued = provisioned.issued
    uri = database.admin.endpoint.uri(issued.username, issued.password)
    async with _login(uri) as session:
        peers = [
            await Peer.join(session, name, host=_pod(number, peer), runtime="bus_runtime/0.1.0")
            for peer in range(size.peers)
        ]
        if peers and size.messages:
            await peers[0].publish(*range(size.messages))
        for peer in peers:
            await peer.read(acknowledge=size.messages, limit=1)
    return {"type": "pgmqbus", "uri": uri, "channel": name, "generation": "1"}


@asynccontextmanager
async def _login(uri: str) -> AsyncIterator[asyncpg.Connection]:
    session = await asyncpg.connect(uri, ssl=False)
    try:
        yield session
    finally:
        await session.close()


def _fill_cluster(kube: KubeClient, size: Size, uri: str, binding: Manifest) -> None:
    kube.install_definitions()
    kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    kube.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
    kube.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "admin"}, "stringData": {"uri": uri}})
    secret = {"metadata": {"name": f"{_name(0)}-bus"}, "stringData": binding}
    kube.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)
    body = _resource("BusDatabase", "main", {"connectionSecretRef": {"name": "admin"}, "default": True})
    kube.create(f"{_API}/busdatabases", body)
    status: Manifest = {"conditions": [_condition("Reachable"), _condition("Ready")], "serverVersion": "18"}
    kube.patch(f"{_API}/busdatabases/main/status", {"status": status})

    def make_channel(number: int) -> None:
        kube.create(f"{_API}/buschannels", _resource("BusChannel", _name(number), {}))
        kube.patch(f"{_API}/buschannels/{_name(number)}/status", {"status": _status(number, size)})

    def make_pod(number: int) -> None:
        kube.create(_PODS, _worker(*divmod(number, size.peers)))

    _each(range(size.channels), make_channel)
    _each(range(size.channels * size.peers), make_pod)


def _each(numbers: Sequence[int], make: Callable[[int], _T]) -> None:
    with ThreadPoolExecutor(_HANDS) as pool:
        list(pool.map(make, numbers))


def _resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _condition(type_: str) -> Manifest:
    return {
        "type": type_, "status": "True", "reason": "Ready", "message": "everything is in place",
        "observedGeneration": 1, "lastTransitionTime": _TIME,
    }  # fmt: skip


def _status(number: int, size: Size) -> Manifest:
    """What the operator would say."""
    types = ("Provisioned", "CredentialsCurrent", "IsolationVerified", "Ready")
    return {
        "channel": _wire_name(number), "database": {"namespace": NAMESPACE, "name": "main"}, "shard": 0,
        "peers": size.peers, "backlog": 0, "credentialGeneration": 1, "observedGeneration": 1,
        "secretRef": {"name": f"{_name(number)}-bus"}, "lastVerifiedTime": _TIME,
        "conditions": [_condition(type_) for type_ in types],
    }  # fmt: skip


def _worker(channel: int, peer: int) -> Manifest:
    metadata = {
        "name": _pod(channel, peer),
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": _name(channel), "pgmqbus.dev/injected": _name(channel)},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "none"}]}}
