"""The servers of a run, each started when it is first needed, and the channels on them."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from functools import cached_property
from importlib import resources
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pgmq.install import get_embedded_install_sql

from benchmarks.clients.base import Endpoint
from benchmarks.clients.nats import NatsEndpoint, create_stream
from benchmarks.clients.notify import NotifyEndpoint
from benchmarks.clients.ours import BusEndpoint
from benchmarks.clients.reference import BindingEndpoint, DirectEndpoint, IsolatedEndpoint, RedisEndpoint
from benchmarks.errors import BenchmarkError
from benchmarks.peers import Nats, Redis
from benchmarks.postgres import Postgres

_DURABILITY = {
    "ours-async": "Async",
    "ours-sync": "Sync",
    "ours-unlogged": "Unlogged",
    "pipecat-async": "Async",
    "pipecat-sync": "Sync",
}

#: The channels of a benchmark may be as large as its servers.
_LIMITS = {"maxPeers": 3000, "maxConnections": 5000}
#: Makes PostgreSQL wait 5 ms before each flush, as the one that flushes and holding the lock that a flush holds: what a
#: slow disk does (xlog.c, XLogFlush). commit_siblings=0: always.
_SLOW_FLUSH = {"commit_delay": "5000", "commit_siblings": "0"}
_BUSCTL = "from bus_operator.cli import main; main()"
_BUSCTL_SECONDS = 180.0


Server = TypeVar("Server", Postgres, Redis, Nats)


class World:
    """Starts servers and provisions channels; ends all of it with the `with` block.

    Args:
        directory: On the disk to be measured; the caller removes it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._servers = ExitStack()
        self._numbers = count(1)
        self._channels: dict[tuple[str, str, str], BusEndpoint] = {}
        self._databases: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._servers.close()

    @cached_property
    def postgres(self) -> Postgres:
        """The server of all comparisons."""
        return self._start(Postgres(self.directory, "main", max_connections=1500, settings={}))

    @cached_property
    def slow_postgres(self) -> Postgres:
        """A server whose flushes take 5 ms."""
        return self._start(Postgres(self.directory, "slow", max_connections=500, settings=_SLOW_FLUSH))

    @cached_property
    def large_postgres(self) -> Postgres:
        """A server that takes the connections of 1,000 peers."""
        return self._start(Postgres(self.directory, "large", max_connections=3500, settings={}))

    @cached_property
    def _redis(self) -> Redis:
        return self._start(Redis(self.directory))

    @cached_property
    def _nats(self) -> Nats:
        server = self._start(Nats(self.directory))
        asyncio.run(create_stream(server.port))
        return server

    @cached_property
    def _wrappers_uri(self) -> str:
        """A database with the wrappers of a queue per peer, and PGMQ for those that use it directly."""
        self.postgres.create_database("pipecat")
        sql = resources.files("benchmarks").joinpath("sql", "queue_per_peer.sql").read_text()
        self.postgres.script(get_embedded_install_sql() + sql, database="pipecat")
        return self.postgres.uri("pipecat")

    @cached_property
    def _floor_uri(self) -> str:
        self.postgres.create_database("floor")
        return self.postgres.uri("floor")

    def endpoint(self, system: str) -> Endpoint:
        """A channel of a system. Of the others a new one each time; one of ours stays, as it does in use."""
        fresh = f"bench{next(self._numbers)}"
        match system:
            case "redis":
                return RedisEndpoint(self._redis.port, fresh)
            case "nats":
                return NatsEndpoint(self._nats.port, f"bench.{fresh}")
            case "notify":
                return NotifyEndpoint(self._floor_uri, fresh)
            case "isolated":
                return IsolatedEndpoint(self._wrappers_uri, fresh)
            case "direct":
                return DirectEndpoint(self._wrappers_uri, fresh)
            case _:
                ours = self.channel(self.postgres, "bus", system, durability=_DURABILITY[system])
                return BindingEndpoint(ours.root, ours.binding) if system.startswith("pipecat-") else ours

    def server_pid(self, system: str) -> int:
        """Of Redis or of the PostgreSQL that carries a system's messages; see `cpu.server_seconds`."""
        return self._redis.pid if system == "redis" else self.postgres.pid

    def channel(self, server: Postgres, database: str, name: str, **spec: Any) -> BusEndpoint:
        """One channel of ours; see `channels`."""
        return self.channels(server, database, [name], **spec)[0]

    def channels(self, server: Postgres, database: str, names: list[str], **spec: Any) -> list[BusEndpoint]:
        """Channels of ours in a database of a server, made by `busctl apply` unless they are there.

        Args:
            server: Where.
            database: Made when it is not there.
            names: Of the channels and of their bindings.
            **spec: As in a BusChannel's manifest.

        Raises:
            BenchmarkError: They could not be made.
        """
        missing = [name for name in names if (server.name, database, name) not in self._channels]
        root = self.directory / "bindings" / server.name / database
        if missing:
            self._provision(server, database, missing, root, spec)
        for name in missing:
            self._channels[server.name, database, name] = BusEndpoint(root, name)
        return [self._channels[server.name, database, name] for name in names]

    def _provision(self, server: Postgres, database: str, names: list[str], root: Path, spec: dict[str, Any]) -> None:
        if (server.name, database) not in self._databases:
            server.create_database(database)
            self._databases.add((server.name, database))
        manifests = [
            {
                "apiVersion": "pgmqbus.dev/v1alpha1",
                "kind": "BusChannel",
                "metadata": {"name": name, "namespace": "bench"},
                "spec": {"limits": _LIMITS, **spec},
            }
            for name in names
        ]
        done = subprocess.run(
            [sys.executable, "-c", _BUSCTL, "apply", "-f", "-", "--bindings", root],
            input="\n---\n".join(map(json.dumps, manifests)),
            env=os.environ | {"BUSCTL_DATABASE": server.uri(database)},
            capture_output=True, text=True, check=False, timeout=_BUSCTL_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise BenchmarkError(f"busctl apply failed: {done.stderr.strip()}")

    def _start(self, server: Server) -> Server:
        return self._servers.enter_context(server)
