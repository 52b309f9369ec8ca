"""What a test of the operator sets up: namespaces, databases, BusDatabases, BusChannels; and how it looks at them."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import postgres
from control_plane import GROUP, PATIENCE, VERSION, KubeClient, Manifest, wait_until
from operator_process import RELEASE, RELEASE_NAMESPACE, SECRETS_ROLE, Operator

API = f"/apis/{GROUP}/{VERSION}"


class Ref:
    """A BusDatabase or BusChannel in the API server."""

    def __init__(self, kube: KubeClient, plural: str, namespace: str, name: str) -> None:
        self._kube = kube
        self.namespace = namespace
        self.name = name
        self.path = f"{API}/namespaces/{namespace}/{plural}/{name}"

    def get(self) -> Any:
        return self._kube.get(self.path)

    @property
    def status(self) -> Any:
        return (self.get() or {}).get("status", {})

    def condition(self, type_: str = "Ready") -> dict[str, Any]:
        conditions = self.status.get("conditions", [])
        return next((item for item in conditions if item["type"] == type_), {})

    def wait_for(self, reason: str, type_: str = "Ready", seconds: float = PATIENCE) -> dict[str, Any]:
        """Waits until the condition has this reason; for Ready, about the latest generation."""

        def holds() -> dict[str, Any] | None:
            resource = self.get() or {}
            conditions = resource.get("status", {}).get("conditions", [])
            found = next((item for item in conditions if item["type"] == type_), {})
            current = found.get("observedGeneration") == resource.get("metadata", {}).get("generation")
            return found if current and found.get("reason") == reason else None

        try:
            return wait_until(holds, f"{self.path} {type_}={reason}", seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\nstatus: {self.status}") from None

    def wait_ready(self, seconds: float = PATIENCE) -> Any:
        """Waits for Ready; returns the status."""
        assert self.wait_for("Ready", seconds=seconds)["status"] == "True"
        return self.status

    def wait_gone(self, seconds: float = PATIENCE) -> None:
        wait_until(lambda: self.get() is None, f"{self.path} is gone", seconds)

    def patch(self, spec: Manifest) -> None:
        self._kube.patch(self.path, {"spec": spec})

    def annotate(self, annotations: dict[str, str]) -> None:
        self._kube.patch(self.path, {"metadata": {"annotations": annotations}})

    def delete(self) -> None:
        self._kube.delete(self.path)

    def events(self) -> list[tuple[str, str, str]]:
        """Type, reason and message of the Events about it, in order."""
        uid = (self.get() or {}).get("metadata", {}).get("uid")
        found = self._kube.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        about = [item for item in found if item["involvedObject"]["name"] == self.name]
        about = [item for item in about if uid is None or item["involvedObject"]["uid"] == uid]
        about.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [(item["type"], item["reason"], item["message"]) for item in about]

    def wait_event(self, kind: str, reason: str) -> str:
        """Waits for such an Event: it is posted after the status is written. Returns its message."""

        def posted() -> list[str]:
            return [message for *found, message in self.events() if found == [kind, reason]]

        return str(wait_until(posted, f"an Event {reason} about {self.path}")[-1])


@dataclass(frozen=True)
class Joined:
    """A peer of a session's channel."""

    queue: str
    token: str


@dataclass(frozen=True)
class Login:
    """A session that a binding gave access to."""

    session: asyncpg.Connection
    channel: str

    async def join(self, peer: str = "worker", **options: Any) -> Joined:
        """Joins as the durable peer of that name."""
        joined = json.loads(
            await self.session.fetchval(
                "select pgmq_bus_v1.join_channel($1, $2::text::jsonb)",
                self.channel,
                json.dumps({"peer": peer} | options),
            )
        )
        return Joined(joined["queue"], joined["token"])

    async def publish(self, peer: Joined, *messages: Any) -> None:
        texts = [json.dumps(message) for message in messages]
        await self.session.fetch(f"select * from pgmq_bus_channel.publish_{peer.token}($1, $2)", peer.queue, texts)

    async def read(self, peer: Joined, *, acknowledge: bool = False) -> list[Any]:
        """All messages that are still in the log."""
        read = f"select msg_id, message from pgmq_bus_channel.read_{peer.token}($1, $2, $3, 1000, null)"
        rows = [row for row in await self.session.fetch(read, peer.queue, 0, None) if row["message"] is not None]
        if acknowledge and rows:
            await self.session.fetch(read, peer.queue, rows[-1]["msg_id"], rows[-1]["msg_id"])
        return [json.loads(row["message"]) for row in rows]


@dataclass(frozen=True)
class Namespace:
    """A namespace with its Secrets, BusDatabases and BusChannels."""

    world: "World"
    name: str

    @property
    def _kube(self) -> KubeClient:
        return self.world.kube

    def secret(self, name: str) -> dict[str, str] | None:
        found = self._kube.get(f"/api/v1/namespaces/{self.name}/secrets/{name}")
        if found is None:
            return None
        return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}

    def raw_secret(self, name: str) -> Any:
        return self._kube.get(f"/api/v1/namespaces/{self.name}/secrets/{name}")

    def put_secret(self, name: str, data: Mapping[str, str]) -> None:
        """Creates the Secret, or makes these its entries."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
        }
        self._kube.apply(f"/api/v1/namespaces/{self.name}/secrets/{name}", body)

    @asynccontextmanager
    async def login(self, secret: str = "orders-bus") -> AsyncIterator["Login"]:
        """A session with the credential of a binding."""
        binding = self.secret(secret)
        assert binding is not None
        connection = await asyncpg.connect(binding["uri"])
        try:
            yield Login(connection, binding["channel"])
        finally:
            await connection.close()

    def delete_secret(self, name: str) -> None:
        self._kube.delete(f"/api/v1/namespaces/{self.name}/secrets/{name}")

    def database(self, uri: str | None, name: str = "main", **spec: Any) -> Ref:
        """A BusDatabase, and its Secret unless `uri` is None."""
        if uri is not None:
            self.put_secret(f"{name}-admin", {"uri": uri})
        return self._create("BusDatabase", name, {"connectionSecretRef": {"name": f"{name}-admin"}} | spec)

    def channel(self, name: str = "orders", *, database: str | None = "main", **spec: Any) -> Ref:
        """A BusChannel; `database` is the name in this namespace or namespace/name."""
        if database is not None:
            namespace, _, simple = database.rpartition("/")
            spec["databaseRef"] = {"name": simple} | ({"namespace": namespace} if namespace else {})
        return self._create("BusChannel", name, spec)

    async def channel_with_messages(self, policy: str) -> Ref:
        """The channel `orders`, in which the messages 1, 2 and 3 wait for the peer `worker`."""
        channel = self.channel(deletionPolicy=policy)
        channel.wait_ready()
        async with self.login() as login:
            await login.publish(await login.join(), 1, 2, 3)
        return channel

    async def messages(self) -> list[Any]:
        """What waits in the channel `orders` for the peer `worker`."""
        async with self.login() as login:
            return await login.read(await login.join())

    def ready_channels(self) -> int:
        """How many of its BusChannels are ready now."""
        items = self._kube.get(f"{API}/namespaces/{self.name}/buschannels")["items"]
        conditions = [condition for item in items for condition in item.get("status", {}).get("conditions", [])]
        return sum((each["type"], each["status"]) == ("Ready", "True") for each in conditions)

    def _create(self, kind: str, name: str, spec: Manifest) -> Ref:
        plural = f"{kind.lower()}s"
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self._kube.create(f"{API}/namespaces/{self.name}/{plural}", body)
        return Ref(self._kube, plural, self.name, name)

    def bind_secrets_role(self) -> None:
        """What `kubectl create rolebinding` does, as the chart's notes say."""
        group = "rbac.authorization.k8s.io"
        body = {
            "metadata": {"name": SECRETS_ROLE},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": SECRETS_ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": RELEASE, "namespace": RELEASE_NAMESPACE}],
        }
        self._kube.create(f"/apis/{group}/v1/namespaces/{self.name}/rolebindings", body)

    def terminate(self, *order: str) -> None:
        """Deletes the namespace, and the collections in it in that order, as the namespace controller does."""
        self._kube.delete(f"/api/v1/namespaces/{self.name}")
        collections = {"secrets": f"/api/v1/namespaces/{self.name}/secrets"}
        for plural in order:
            self._kube.delete(collections.get(plural, f"{API}/namespaces/{self.name}/{plural}"))

    def wait_empty(self, seconds: float) -> None:
        """Until no BusChannel is left to keep the namespace."""
        path = f"{API}/namespaces/{self.name}/buschannels"
        wait_until(lambda: not self._kube.get(path)["items"], f"{path} are gone", seconds)

    def set_labels(self, **labels: str) -> None:
        self._kube.patch(f"/api/v1/namespaces/{self.name}", {"metadata": {"labels": labels}})


class World:
    """Everything of one test, and its end."""

    def __init__(self, kube: KubeClient, operator: Operator, server: postgres.Server) -> None:
        self.kube = kube
        self.operator = operator
        self.server = server
        self._namespaces: list[Namespace] = []
        self._databases: list[postgres.Database] = []

    def namespace(self, name: str | None = None, *, bound: bool = True) -> Namespace:
        """A new namespace; `bound` lets the operator use its Secrets."""
        namespace = Namespace(self, name or f"test-{secrets.token_hex(4)}")
        self.kube.create("/api/v1/namespaces", {"metadata": {"name": namespace.name}})
        self._namespaces.append(namespace)
        if bound:
            namespace.bind_secrets_role()
        return namespace

    async def postgres(self, *, installed: bool = True, server: postgres.Server | None = None) -> postgres.Database:
        """A database of its own, with the schema (quick) or empty."""
        template = "bus_template" if installed else "template1"
        database = await postgres.create_database(server or self.server, template)
        self._databases.append(database)
        return database

    def wait_for_the_next_second(self, namespace: Namespace, resource: Ref) -> None:
        """What is created afterwards is younger than the resource by the API server's clock, which counts seconds."""
        created = resource.get()["metadata"]["creationTimestamp"]
        path = f"/api/v1/namespaces/{namespace.name}/configmaps?dryRun=All"

        def now() -> str:
            return str(self.kube.create(path, {"metadata": {"name": "clock"}})["metadata"]["creationTimestamp"])

        wait_until(lambda: now() > created, "the next second")

    def database_reason(self, namespace: Namespace, name: str) -> str:
        """Why a BusDatabase is ready or not."""
        return str(Ref(self.kube, "busdatabases", namespace.name, name).condition().get("reason"))

    def remove(self) -> None:
        """Deletes what the test made. Channels come first; without a database they need none to go."""
        for plural in ("buschannels", "busdatabases"):
            for namespace in self._namespaces:
                for item in self.kube.get(f"{API}/namespaces/{namespace.name}/{plural}")["items"]:
                    self.kube.delete(f"{API}/namespaces/{namespace.name}/{plural}/{item['metadata']['name']}")
        for namespace in self._namespaces:
            path = f"{API}/namespaces/{namespace.name}/buschannels"
            wait_until(lambda path=path: not self.kube.get(path)["items"], f"{path} are gone")
        asyncio.run(self._drop_databases())

    async def _drop_databases(self) -> None:
        for database in self._databases:
            if database.server.process is not None:
                await postgres.drop_database(database)
