"""The cluster that is measured: many databases, one of them dead, thousands of channels, and Secrets of others."""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_plane
import postgres
from control_plane import KubeClient
from gateway import SILENT, Gateway, gateway
from operator_process import Operator, install_chart
from operator_world import API, Namespace, Ref, World

from benchmarks.operator_scale.scale import Scale

READY_SECONDS_PER_CHANNEL = 0.6
"""For the first provisioning, on a slow machine with everything on it."""

_PAGE = 1000
_HANDS = 8


def say(text: str) -> None:
    """A line for whoever waits: standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


class ScaleWorld:
    """What the rows are given.

    Attributes:
        kube: The API server, as its administrator sees it.
        operator: The operator's process.
        server: The PostgreSQL that holds all databases.
        scale: The sizes.
        dead: What stands in for the dead database: it accepts connections and says nothing.
        live: The namespaced names of the BusDatabases that work.
    """

    def __init__(
        self, kube: KubeClient, operator: Operator, server: postgres.Server, scale: Scale, dead: Gateway
    ) -> None:
        self.kube = kube
        self.operator = operator
        self.server = server
        self.scale = scale
        self.dead = dead
        self.world = World(kube, operator, server)
        self.live: list[str] = []
        self._namespaces: list[Namespace] = []
        self._home: Namespace | None = None
        self._channels = 0

    def populate(self) -> None:
        """Creates everything and waits until it is Ready, the first time that a row asks for it."""
        if self._home is not None:
            return
        scale = self.scale
        say(f"  creating {scale.databases} BusDatabases, {scale.channels} BusChannels, {scale.secrets} other Secrets")
        self._home = self.world.namespace()
        self._namespaces = [self.world.namespace() for _ in range(scale.namespaces)]
        self._create_databases(self._home)
        self._each(range(scale.secrets), self._create_secret)
        begun = time.monotonic()
        self._each(range(scale.channels), self._create_channel)
        self.wait_settled(scale.channels * READY_SECONDS_PER_CHANNEL + 60)
        say(f"  all provisioned in {time.monotonic() - begun:.0f} s")

    def channel_in(self, database: str, name: str | None = None, **spec: Any) -> Ref:
        """One more BusChannel of a BusDatabase."""
        self._channels += 1
        namespace = self._namespaces[self._channels % len(self._namespaces)]
        return namespace.channel(name or f"more-{self._channels}", database=database, **spec)

    def channel(self, number: int) -> Ref:
        """One of those that were created at first."""
        namespace = self._namespaces[number % len(self._namespaces)]
        return Ref(self.kube, "buschannels", namespace.name, f"channel-{number}")

    @property
    def dead_database(self) -> str:
        """The namespaced name of the BusDatabase that does not answer."""
        assert self._home is not None
        return f"{self._home.name}/dead"

    def channels(self) -> Iterator[Any]:
        """All BusChannels, page by page."""
        token = ""
        while True:
            page = self.kube.get(f"{API}/buschannels?limit={_PAGE}&continue={token}")
            yield from page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return

    def reasons(self) -> Counter[str]:
        """How many BusChannels say what as the reason of Ready, about their latest generation."""
        return Counter(_reason(item) for item in self.channels())

    def expected_reasons(self) -> Counter[str]:
        """What they say when all is as it should be: those of the dead database name it."""
        found: Counter[str] = Counter()
        for item in self.channels():
            dead = item["spec"]["databaseRef"]["name"] == "dead"
            found["DatabaseUnavailable" if dead else "Ready"] += 1
        return found

    def wait_settled(self, seconds: float) -> None:
        """Waits until every BusChannel says what it should."""
        expected = self.expected_reasons()
        deadline = time.monotonic() + seconds
        while (reasons := self.reasons()) != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {dict(reasons)}, expected {dict(expected)}")
            self.operator.require_running()
            say(f"    {dict(reasons)}")
            time.sleep(min(10.0, max(0.5, sum(expected.values()) / 500)))

    def _create_databases(self, home: Namespace) -> None:
        allowed = {"from": "All"}
        for number in range(self.scale.databases - 1):
            created = asyncio.run(self.world.postgres())
            home.database(created.dsn, f"db-{number}", allowedNamespaces=allowed)
            self.live.append(f"{home.name}/db-{number}")
        uri = f"postgresql://postgres:nobody@127.0.0.1:{self.dead.port}/dead?sslmode=disable"
        home.database(uri, "dead", allowedNamespaces=allowed)

    def _create_channel(self, number: int) -> None:
        databases = [*self.live, self.dead_database]
        namespace = self._namespaces[number % len(self._namespaces)]
        namespace.channel(f"channel-{number}", database=databases[number % len(databases)])

    def _create_secret(self, number: int) -> None:
        namespace = self._namespaces[number % len(self._namespaces)]
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"unrelated-{number}", "labels": {"app": "somebody-elses"}},
            "stringData": {"token": "x" * 1000},
        }
        self.kube.create(f"/api/v1/namespaces/{namespace.name}/secrets", body)

    def _each(self, numbers: range, do: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(_HANDS) as hands:
            for _ in hands.map(do, numbers):
                pass


def _reason(item: Any) -> str:
    for condition in item.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            current = condition["observedGeneration"] == item["metadata"]["generation"]
            return str(condition["reason"]) if current else "outdated"
    return "unseen"


@contextmanager
def running(scale: Scale) -> Iterator[ScaleWorld]:
    """A cluster of its own, with the operator in it; nothing is left of it afterwards."""
    # Thousands of databases' logs of statements would fill the disk and say nothing.
    quiet = ("-c", "log_statement=none", "-c", "log_min_duration_statement=-1")
    with tempfile.TemporaryDirectory(prefix="pgmq-bus-scale-") as directory, control_plane.running() as cluster:
        server = postgres.start_server(18, *quiet)
        kube = KubeClient(cluster.kubeconfig)
        try:
            postgres.create_template(server)
            kube.install_definitions()
            kubeconfig = install_chart(kube, Path(directory))
            operator = Operator(
                kubeconfig,
                Path(directory) / "log",
                BUS_RESYNC_SECONDS="60",
                BUS_LOG_LEVEL="INFO",
                BUS_LOG_FORMAT="text",
            )
            try:
                with gateway(None, SILENT) as dead:
                    operator.start()
                    yield ScaleWorld(kube, operator, server, scale, dead)
            finally:
                operator.kill()
        finally:
            kube.close()
            server.remove()
