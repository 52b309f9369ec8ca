"""How much goes through channels: two samples make a rate."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from bus_operator import channel_reader, sql
from bus_operator.channel_reader import Holding, Shard
from bus_operator.channel_view import Place
from bus_operator.database import AdminConnection
from bus_operator.errors import BusError

Key = tuple[str, int]
"""The database, and the channel's number in its registry."""


class Sample(NamedTuple):
    """What was counted in a channel at one moment."""

    key: Key
    channel: str
    owner: str | None
    """Its BusChannel, `namespace/name`."""
    at: float
    """Seconds, by the server's clock."""
    published: int
    """Messages ever."""
    acknowledged: Mapping[int, int]
    """By live peer: up to which message."""
    backlog: int
    oldest: float | None
    """Seconds: the age of the oldest message in the backlog."""

    @classmethod
    def from_row(cls, database: str, row: Mapping[str, Any]) -> "Sample":
        """Reads a row of `queries/throughput.sql`."""
        reference = row["owner_reference"]
        return cls(
            key=(database, row["id"]),
            channel=row["name"],
            owner=reference.partition("@")[0] if reference else None,
            at=row["at"],
            published=row["published"],
            acknowledged=dict(zip(row["peers"], row["acknowledged"], strict=True)),
            backlog=row["backlog"],
            oldest=row["oldest"],
        )


@dataclass(frozen=True)
class Rate:
    """What went through a channel between two samples; without a first one, what there is now."""

    now: Sample
    published: float | None
    """Messages a second."""
    delivered: float | None
    """Messages a second that peers have acknowledged, all peers together."""

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        namespace, _, name = (self.now.owner or "").partition("/")
        return {
            "channel": self.now.channel,
            "namespace": namespace or None,
            "name": name or None,
            "publishedPerSecond": _rounded(self.published),
            "deliveredPerSecond": _rounded(self.delivered),
            "peers": len(self.now.acknowledged),
            "backlog": self.now.backlog,
            "oldestMessageSeconds": _rounded(self.now.oldest),
        }


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None else None


def rate(before: Sample | None, now: Sample) -> Rate:
    """The rates between two samples of a channel."""
    if before is None or now.at <= before.at:
        return Rate(now, None, None)
    # Only of peers that were there before: one that joins begins at the head of the log.
    done = sum(
        max(now.acknowledged[peer] - then, 0) for peer, then in before.acknowledged.items() if peer in now.acknowledged
    )
    seconds = now.at - before.at
    return Rate(now, max(now.published - before.published, 0) / seconds, done / seconds)


class Meter:
    """Samples databases again and again, each over sessions that stay open; one that fails is tried anew."""

    def __init__(self, holdings: Iterable[Holding]) -> None:
        self._probes = [_Probe(holding) for holding in holdings]
        self._before: dict[Key, Sample] = {}

    async def follow(self, holdings: Iterable[Holding]) -> None:
        """Measures these from now on; sessions in databases that stay are kept."""
        former = {probe.place: probe for probe in self._probes}
        self._probes = []
        for holding in holdings:
            probe = former.pop((holding.admin, holding.shard), None) or _Probe(holding)
            probe.holding = holding
            self._probes.append(probe)
        for probe in former.values():
            await probe.close()

    async def __aenter__(self) -> "Meter":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends its sessions."""
        for probe in self._probes:
            await probe.close()

    async def measure(self) -> tuple[list[Rate], list[BusError]]:
        """The rates since the time before, and why a database did not answer."""
        samples: list[Sample] = []
        failures: list[BusError] = []
        for answer in await asyncio.gather(*(probe.sample() for probe in self._probes)):
            if isinstance(answer, BusError):
                failures.append(answer)
            else:
                samples += answer
        rates = [rate(self._before.get(sample.key), sample) for sample in samples]
        self._before = {sample.key: sample for sample in samples}
        return rates, failures


class _Probe:
    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self._stack: AsyncExitStack | None = None
        self._shards: Sequence[Shard] = ()

    @property
    def place(self) -> tuple[AdminConnection, int | None]:
        """Where its sessions are."""
        return self.holding.admin, self.holding.shard

    async def sample(self) -> list[Sample] | BusError:
        try:
            if self._stack is None:
                stack = AsyncExitStack()
                self._shards = await stack.enter_async_context(channel_reader.open_shards(self.holding))
                self._stack = stack
            found = await asyncio.gather(*(shard.read(self._read) for shard in self._shards))
        except BusError as exc:
            await self.close()
            return exc
        return [sample for samples in found for sample in samples]

    async def _read(self, connection: asyncpg.Connection, place: Place) -> list[Sample]:
        rows = await connection.fetch(sql.query("throughput"), self.holding.names)
        return [Sample.from_row(f"{self.holding.admin.endpoint} {place}", row) for row in rows]

    async def close(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
