"""Where nemeses strike: a real PostgreSQL, what stands before it, and workers on a channel of each durability.

    workers - link (a TCP proxy) - [PgBouncer - service (another one)] - PostgreSQL [- standby]

Each channel has a peer without a name that publishes (`shop`), a durable one that publishes and acknowledges what was
handled (`billing`), and a durable one that only listens and acknowledges what was dispatched (`ledger`); the `Sync`
channel also an unmodified pipecat that publishes, if asked for. All but that ring each other's doorbells through relays
that can be told to lose everything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import asyncpg
import pgbouncer
import postgres
import standby
from chaos.fleet import Fleet, Worker, fleet
from chaos.layout import Layout
from chaos.machine import file_system
from chaos.promises import Durability, Promise
from chaos.proxy import Proxy, proxy
from chaos.recovery import Watch
from chaos.seeds import Seeds
from projected import project

from bus_operator.binding import binding_data
from bus_operator.roles import IssuedCredential
from hack.test_servers import LIBFAKETIME

DURABILITIES: tuple[Durability, ...] = get_args(Durability)

#: Messages a second of each publisher; a channel has two.
_RATE = 30.0

# Handlers take a moment, so that a process that is killed may be in the middle of one.
_WORKERS: dict[str, dict[str, Any]] = {
    "shop": {"publish_rate": _RATE, "relay": True},
    "billing": {"publish_rate": _RATE, "relay": True, "peer": "billing", "handle_seconds": 0.002},
    "ledger": {
        "relay": True, "peer": "ledger", "acknowledge": "on_dispatch", "max_in_flight": 20, "handle_seconds": 0.002
    },
    "pipecat": {"client": "pipecat", "publish_rate": _RATE / 3},
}  # fmt: skip

#: Those that connect through the side door of the link, and can be cut off alone.
ASIDE = ("billing", "ledger")

#: Seconds that a machine which has other things to do may take until everything runs.
_PATIENCE = 60.0


class Clock:
    """The server's clock, as libfaketime reads it from a file.

    Args:
        file: That file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """For the server's processes. What they wait for goes by another clock, as in reality."""
        return {
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Let it be fast by so many seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.chmod(0o644)
        new.rename(self._file)


@contextmanager
def _clock() -> Iterator[Clock]:
    with tempfile.TemporaryDirectory(prefix="pgmq-bus-clock-") as directory:
        # The server's user reads it.
        Path(directory).chmod(0o755)
        yield Clock(Path(directory, "clock"))


@dataclass(eq=False)
class World:
    """What nemeses strike at.

    Attributes:
        layout: What there is.
        rng: For what is left to chance.
        directory: For files: histories, logs, bindings.
        server: The PostgreSQL that clients reach; after a failover that is the former standby.
        database: The database of the channels.
        link: What clients connect to.
        service: What leads to the server: the link, or what is between the pooler and the server.
        pooler: PgBouncer.
        standby: What takes over.
        mounted: The server's own file system.
        clock: The server's own clock.
        channels: By durability.
        fleets: Their workers.
        stack: What is to be undone when it is over.
    """

    layout: Layout
    rng: random.Random
    directory: Path
    server: postgres.Server
    database: postgres.Database
    link: Proxy
    service: Proxy
    pooler: pgbouncer.PgBouncer | None = None
    standby: postgres.Server | None = None
    mounted: Path | None = None
    clock: Clock | None = None
    channels: dict[Durability, postgres.Channel] = field(default_factory=dict)
    fleets: dict[Durability, Fleet] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def workers(self) -> list[Worker]:
        """All that run."""
        return [worker for each in self.fleets.values() for worker in each.workers]

    def named(self, name: str) -> list[tuple[Durability, Worker]]:
        """The process that is so called on each channel."""
        return [
            (durability, worker)
            for durability, each in self.fleets.items()
            for worker in each.workers
            if worker.name == name
        ]

    def signal(self, name: str, which: signal.Signals) -> None:
        """Send a signal to the process that is so called on each channel."""
        for _, worker in self.named(name):
            worker.process.send_signal(which)

    async def admin(self) -> asyncpg.Connection:
        """A superuser's session, past everything that stands before the server."""
        return await self.server.connect(self.database.name)

    async def start(self, durability: Durability, name: str) -> None:
        """Start the process that is so called, or its successor."""
        bindings = self._bindings(durability, aside=name in ASIDE)
        await self.fleets[durability].start(name, bindings, **_WORKERS[name])

    def lead_to(self, durability: Durability, port: int, side_port: int | None = None) -> None:
        """Write the channel's bindings so that they lead to a port of loopback, as the kubelet does it.

        Args:
            durability: The channel's.
            port: The port.
            side_port: Another one for those `ASIDE`.
        """
        channel = self.channels[durability]
        issued = IssuedCredential(channel.username, channel.password, channel.generation)
        for aside in (False, True):
            endpoint = dataclasses.replace(channel.endpoint, port=side_port if aside and side_port else port)
            data = binding_data(endpoint, channel.name, channel.spec, issued)
            project(self._bindings(durability, aside=aside) / "orders", data)

    def _bindings(self, durability: Durability, *, aside: bool) -> Path:
        return self.directory / f"bindings-{durability}{'-aside' if aside else ''}"

    def histories(self, durability: Durability, *names: str) -> list[Path]:
        """Those of all processes on a channel that were ever so called."""
        directory = self.fleets[durability].directory
        return sorted(path for path in directory.glob("*.jsonl") if path.stem.partition(".")[0] in names)

    def watch(self, *names: str) -> Watch:
        """Look from now on at what becomes of those `bus_runtime` processes that are so called, or of all."""
        ours = [worker.options for worker in self.workers if worker.options.client == "bus_runtime"]
        wanted = {worker.options.history for worker in self.workers if not names or worker.name in names}
        return Watch(
            [options.history for options in ours if options.history in wanted],
            [options.history for options in ours if options.publish_rate],
        )

    async def delivered(self, *names: str, within: float = _PATIENCE) -> None:
        """Wait until each of those processes, or of all, was handed something of everybody that is new from now on.

        Raises:
            RuntimeError: It was not, for so many seconds.
        """
        delays = await self.watch(*names).delivered(time.monotonic_ns(), within)
        silent = [name for name, seconds in delays.items() if seconds is None]
        if silent:
            raise RuntimeError(f"not everything reaches {', '.join(silent)} within {within:.0f} s")


@asynccontextmanager
async def world(layout: Layout, seeds: Seeds, directory: Path, rng: random.Random) -> AsyncIterator[World]:
    """A world in which messages flow; gone afterwards, but for the files in `directory`.

    Raises:
        NeedsRootError: The layout needs rights that are not there.
        RuntimeError: Something did not start.
    """
    directory.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        mounted = None if layout.disk is None else stack.enter_context(file_system(layout.disk))
        clock = stack.enter_context(_clock()) if layout.clock else None
        server = await seeds.server(layout.version, mounted, {} if clock is None else clock.environment)
        stack.callback(server.remove)
        follower = None
        if layout.standby is not None:
            follower = standby.clone(server)
            stack.callback(follower.remove)
            if layout.standby == "synchronous":
                await _wait_for_standby(server)
        database = await postgres.create_database(server)
        service = link = await stack.enter_async_context(proxy(server.port))
        pooler = None
        if layout.pooler is not None:
            pooler = stack.enter_context(pgbouncer.pgbouncer(server, layout.pooler, pool_size=60, port=service.port))
            link = await stack.enter_async_context(proxy(pooler.port))
        made = World(
            layout, rng, directory, server, database, link, service, pooler, follower, mounted, clock, stack=stack
        )
        await _populate(made)
        yield made


async def _wait_for_standby(server: postgres.Server) -> None:
    """From now on, commits do."""
    session = await server.connect()
    async with asyncio.timeout(_PATIENCE):
        while not await session.fetchval("select count(*) from pg_stat_replication where state = 'streaming'"):
            await asyncio.sleep(0.05)
    await session.execute("alter system set synchronous_standby_names = '*'")
    await session.execute("select pg_reload_conf()")
    await session.close()


async def _populate(made: World) -> None:
    layout = made.layout
    for durability in DURABILITIES:
        made.channels[durability] = await made.database.create_channel(
            f"shop.{durability.lower()}", durability=durability, peerTimeout=layout.peer_timeout
        )
        made.lead_to(durability, made.link.port, made.link.side_port)
        promise = Promise(durability, standby=layout.standby or "synchronous", trims=layout.trims)
        made.fleets[durability] = await made.stack.enter_async_context(fleet(made.directory / durability, promise))
    async with asyncio.TaskGroup() as starting:
        for durability in DURABILITIES:
            for name in ("shop", "billing", "ledger"):
                starting.create_task(made.start(durability, name))
        if layout.pipecat:
            starting.create_task(made.start("Sync", "pipecat"))
    await made.delivered()
    if made.standby is not None:
        await _let_standby_catch_up(made.server, made.standby)


async def _let_standby_catch_up(primary: postgres.Server, follower: postgres.Server) -> None:
    """Have it know of what was made: a channel that a failover loses is no test of the channel."""
    session = await primary.connect()
    position = await session.fetchval("select pg_current_wal_insert_lsn()::text")
    await session.close()
    session = await follower.connect()
    async with asyncio.timeout(_PATIENCE):
        while not await session.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position):
            await asyncio.sleep(0.05)
    await session.close()
