"""The wire protocol as SQL calls, without a client's conveniences."""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg


class Row(NamedTuple):
    """What a read returns: a message; with `lost`, a gap; with neither, a position."""

    msg_id: int
    message: Any
    lost: int | None = None


def _row(record: asyncpg.Record) -> Row:
    message = None if record["message"] is None else json.loads(record["message"])
    return Row(record["msg_id"], message, record.get("lost"))


@dataclass
class Peer:
    """One peer of a channel and the session that speaks for it. It keeps its cursor, as a client does."""

    session: asyncpg.Connection
    channel: str
    queue: str
    joined: dict[str, Any] = field(default_factory=dict)
    after: int = 0
    roster: int | None = None

    @classmethod
    async def join(cls, session: asyncpg.Connection, channel: str, **options: Any) -> "Peer":
        joined = json.loads(
            await session.fetchval("select pgmq_bus_v1.join_channel($1, $2::text::jsonb)", channel, json.dumps(options))
        )
        return cls(session, channel, joined["queue"], joined, after=joined["position"])

    @classmethod
    async def bus_join(cls, session: asyncpg.Connection, channel: str) -> "Peer":
        return cls(session, channel, await session.fetchval("select public.bus_join($1)", channel))

    async def publish(self, *messages: Any) -> list[int]:
        texts = [json.dumps(message) for message in messages]
        return (await self.publish_texts(texts))[0]

    async def publish_texts(self, texts: list[Any] | None) -> tuple[list[int], int]:
        """The ids of the messages with this JSON, and the version of the roster."""
        published = await self.session.fetchrow(
            f"select ids, roster from pgmq_bus_channel.publish_{self.joined['token']}($1, $2)", self.queue, texts
        )
        return published["ids"], published["roster"]

    async def read(
        self, after: int | None = None, acknowledge: int | None = None, limit: int | None = 100
    ) -> list[Row]:
        """Rows about messages; without `after`, those that come after what was read before."""
        records = await self.session.fetch(
            f"select * from pgmq_bus_channel.read_{self.joined['token']}($1, $2, $3, $4, $5)",
            self.queue, self.after if after is None else after, acknowledge, limit, self.roster,
        )  # fmt: skip
        self.roster = next((record["roster"] for record in records if record["msg_id"] is None), self.roster)
        rows = [_row(record) for record in records if record["msg_id"] is not None]
        self.after = max((self.after, *(row.msg_id for row in rows)))
        return rows

    async def fetch_roster(self) -> dict[str, Any]:
        text = await self.session.fetchval("select pgmq_bus_v1.roster($1, $2)", self.channel, self.queue)
        roster: dict[str, Any] = json.loads(text)
        return roster

    async def wake_by(self, address: str | None, *, listens: bool | None = False) -> int:
        query = "select pgmq_bus_v1.wake_by($1, $2, $3, $4)"
        return int(await self.session.fetchval(query, self.channel, self.queue, address, listens))

    async def notify(self) -> None:
        await self.session.execute("select pgmq_bus_v1.notify($1, $2)", self.channel, self.queue)

    async def leave(self) -> bool:
        return bool(await self.session.fetchval("select pgmq_bus_v1.leave($1, $2)", self.channel, self.queue))

    async def bus_publish(self, message: Any) -> list[int]:
        ids: list[int] = await self.session.fetchval(
            "select public.bus_publish($1, $2, $3::text::jsonb)", self.channel, self.queue, json.dumps(message)
        )
        return ids

    async def bus_subscribe(
        self, visibility: int | None = 30, quantity: int | None = 100, seconds: int | None = 0
    ) -> list[Row]:
        records = await self.session.fetch(
            "select msg_id, message from public.bus_subscribe($1, $2, $3, $4, $5)",
            self.queue, self.channel, visibility, quantity, seconds,
        )  # fmt: skip
        return [_row(record) for record in records]

    async def bus_archive(self, msg_id: int | None) -> bool:
        return bool(
            await self.session.fetchval("select public.bus_archive($1, $2, $3)", self.queue, self.channel, msg_id)
        )

    async def bus_leave(self) -> None:
        await self.session.execute("select public.bus_leave($1, $2)", self.queue, self.channel)


def payloads(rows: list[Row]) -> list[Any]:
    """The messages of a read, without the rows that carry none."""
    return [row.message for row in rows if row.message is not None]
