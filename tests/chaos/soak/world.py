"""The data plane of the soak: a server, what stands before it, and workers on the channels that the operator owns.

    workers - link (a TCP proxy) - PostgreSQL - operator

The channels are those of `chaos.world`, one of each durability, with the same workers; besides, `legacy`, on which an
unmodified pipecat exchanges messages with `bus_runtime`. It is apart because pipecat does not follow a rotation.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import postgres
from chaos.fleet import Worker
from chaos.layout import Layout
from chaos.promises import Durability, Promise
from chaos.proxy import proxy
from chaos.seeds import Seeds
from chaos.soak.fleet import LongFleet
from chaos.soak.worker import State
from chaos.world import World

#: The BusChannels, by durability; and pipecat's, which is `Sync`.
CHANNELS: Mapping[Durability, str] = MappingProxyType({"Sync": "orders", "Async": "audit", "Unlogged": "presence"})
LEGACY = "legacy"

#: What each of them promises.
PROMISES = MappingProxyType({name: Promise(each) for each, name in CHANNELS.items()} | {LEGACY: Promise("Sync")})

#: The workers of each channel and their share of what is published, and those of `legacy`.
_WORKERS: Mapping[str, tuple[float, Mapping[str, Any]]] = MappingProxyType(
    {
        "shop": (1.0, {"relay": True}),
        "billing": (1.0, {"relay": True, "peer": "billing"}),
        "ledger": (0.0, {"relay": True, "peer": "ledger"}),
    }
)
_LEGACY_WORKERS: Mapping[str, tuple[float, Mapping[str, Any]]] = MappingProxyType(
    {
        # Its pool has a connection for each publish that does not wait.
        "pipecat": (0.1, {"client": "pipecat", "outstanding": 4}),
        "till": (0.1, {"peer": "till"}),
    }
)
_ALL_WORKERS = {**_WORKERS, **_LEGACY_WORKERS}
_SHARES = {name: share for name, (share, _) in _ALL_WORKERS.items()}
_ALL_SHARES = len(CHANNELS) * sum(share for share, _ in _WORKERS.values()) + sum(
    share for share, _ in _LEGACY_WORKERS.values()
)

#: Publishes of a worker that do not wait for each other.
_OUTSTANDING = 256

#: A checkpoint a minute: so that recovering from a crash takes seconds, with whatever load.
_SETTINGS = ("checkpoint_timeout = '1min'", "max_wal_size = '1GB'")

#: Seconds until what was published is handled and acknowledged by all, at a quiet moment.
_DRAIN = 30.0
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Quiet:
    """A quiet moment.

    Attributes:
        seconds: How long it took to come.
        last: Who was waited for last.
        behind: Who has not handled and acknowledged everything after a long time, and where it is.
    """

    seconds: float
    last: Sequence[str]
    behind: Mapping[str, str]


@dataclass(eq=False)
class SoakWorld(World):
    """What nemeses strike at, for hours.

    Attributes:
        namespace: Of the BusChannels.
        bindings: Directory of bindings, kept as the Secrets are.
        rate: Messages a second that all publish together.
        channels_fleets: The fleets, those that nemeses strike at and that of `legacy`, by the channel.
    """

    namespace: str = ""
    bindings: Path = Path()
    rate: float = 0.0
    channels_fleets: dict[str, LongFleet] = field(default_factory=dict)

    @property
    def workers(self) -> list[Worker]:
        """All that run."""
        return [worker for each in self.channels_fleets.values() for worker in each.workers]

    async def start(self, durability: Durability, name: str) -> None:
        """Start the process that is so called, or its successor."""
        await self._start(CHANNELS[durability], name)

    async def restart_pipecat(self) -> None:
        """As whoever runs it does where it does not get over a fault by itself."""
        fleet = self.channels_fleets[LEGACY]
        for worker in tuple(fleet.workers):
            if worker.options.client == "pipecat":
                await fleet.kill(worker)
        await self._start(LEGACY, "pipecat")

    async def _start(self, channel: str, name: str) -> None:
        share, options = _ALL_WORKERS[name]
        await self.channels_fleets[channel].start(
            name,
            self.bindings,
            channel_binding=channel,
            publish_rate=self.rate * share / _ALL_SHARES,
            **{"outstanding": _OUTSTANDING, **options},
        )

    async def populate(self, directory: Path, logs: Path, temporary: Path) -> None:
        """Start all workers; they publish nothing yet.

        Args:
            directory: Where the first page of histories goes.
            logs: Where logs go.
            temporary: For their temporary files.
        """
        for channel, promise in PROMISES.items():
            fleet = LongFleet(directory / channel, promise, logs / channel, temporary)
            self.channels_fleets[channel] = fleet
            self.stack.push_async_callback(fleet.close)
        self.fleets |= {durability: self.channels_fleets[channel] for durability, channel in CHANNELS.items()}
        for channel in PROMISES:
            names = _LEGACY_WORKERS if channel == LEGACY else _WORKERS
            await asyncio.gather(*(self._start(channel, name) for name in names))

    async def publish(self, rate: float) -> None:
        """Have them publish so many messages a second in all from now on."""
        self.rate = rate
        rates = {name: rate * share / _ALL_SHARES for name, share in _SHARES.items()}
        await asyncio.gather(*(fleet.set_rates(rates) for fleet in self.channels_fleets.values()))

    async def quiet(self) -> Quiet:
        """Publish no more, and wait until everybody has handled and acknowledged everything."""
        self.rate = 0.0
        began = time.monotonic()
        await asyncio.gather(*(fleet.pause() for fleet in self.channels_fleets.values()))
        published = time.monotonic_ns()
        last: dict[str, str] = {}
        while (behind := await self._behind(published)) and time.monotonic() < began + _DRAIN:
            last = behind
            await asyncio.sleep(_LOOK)
        return Quiet(time.monotonic() - began, sorted(last), behind)

    async def _behind(self, since: int) -> dict[str, str]:
        """Who has not yet handled and acknowledged what was published until then, and where it is."""
        heads, pipecat = await self._heads()
        behind = {}
        for worker, state in self.states():
            channel = worker.options.channel_binding
            head = heads[f"{self.namespace}.{channel}"]
            acknowledged = pipecat if worker.options.client == "pipecat" else state and state.acknowledged
            if state is None or state.time < since or state.in_hand or (acknowledged or 0) < head:
                behind[f"{channel}/{worker.options.process}"] = f"{acknowledged} of {head}, {state}"
        return behind

    async def _heads(self) -> tuple[Mapping[str, int], int | None]:
        """The last id in the log of each channel; and up to where pipecat, which does not tell, has acknowledged."""
        names = [f"{self.namespace}.{name}" for name in PROMISES]
        async with asyncio.timeout(_DRAIN):
            session = await self.admin()
            try:
                queues = await session.fetch("select name, queue from pgmq_bus.channel where name = any ($1)", names)
                heads = {
                    name: await session.fetchval(f"select coalesce(max(msg_id), 0) from pgmq.q_{queue}")
                    for name, queue in queues
                }
                # Those that were killed are remembered for a day.
                pipecat = await session.fetchval(
                    "select acknowledged from pgmq_bus.peer where is_foreign order by id desc limit 1"
                )
            finally:
                session.terminate()
        return heads, pipecat

    def states(self) -> Sequence[tuple[Worker, State | None]]:
        """What each worker said of itself last."""
        return [(worker, fleet.state(worker)) for fleet in self.channels_fleets.values() for worker in fleet.workers]

    async def turn(self, page: Path) -> None:
        """Close the page of the histories, and go on with the next one.

        Args:
            page: Its directory.
        """
        for channel, fleet in self.channels_fleets.items():
            await fleet.turn(page / channel)


@asynccontextmanager
async def soak_world(seeds: Seeds, version: int, directory: Path, rng: random.Random) -> AsyncIterator[SoakWorld]:
    """A server and a link to it, with no channels yet; gone afterwards.

    Args:
        seeds: Where servers come from.
        version: PostgreSQL's.
        directory: For histories, logs, bindings.
        rng: Decides what is left to chance.
    """
    async with AsyncExitStack() as stack:
        # Where temporary files are: most servers of tests are in memory, and flush nothing.
        data = Path(tempfile.mkdtemp(prefix="pgmq-bus-soak-server-"))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        # The server's user gets through.
        data.chmod(0o755)
        server = await seeds.server(version, data, {})
        stack.callback(server.remove)
        session = await server.connect()
        for setting in _SETTINGS:
            await session.execute(f"alter system set {setting}")
        await session.execute("select pg_reload_conf()")
        await session.close()
        database = await postgres.create_database(server)
        link = await stack.enter_async_context(proxy(server.port))
        yield SoakWorld(
            Layout(version=version), rng, directory, server, database, link, link,
            stack=stack, bindings=directory / "bindings",
        )  # fmt: skip
