"""One membership of a channel: what it says to the server, whom it wakes, and what wakes it.

The hot statements call functions that the operator made for this one channel (schema `pgmq_bus_channel`), the others
those of `pgmq_bus_v1`. JSON crosses this module as text in both directions: it is neither decoded nor encoded
here, whatever type codecs the caller's pool has set.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence

import orjson

from bus_runtime.address import advertised_ip
from bus_runtime.announcer import Announcer, Roster
from bus_runtime.backend import JoinOptions, LogRecord, Membership, Waker
from bus_runtime.connection import Database
from bus_runtime.doorbell import Doorbell, open_doorbell
from bus_runtime.driver import limit_called
from bus_runtime.errors import MESSAGE_TOO_LARGE, TOO_MANY_PEERS, BackendError
from bus_runtime.waking import Waking

_JOIN = "select pgmq_bus_v1.join_channel($1::text, $2::text::jsonb)::text as joined"
_ROSTER = "select pgmq_bus_v1.roster($1::text, $2::text)::text as roster"
#: With the channel's token, which is checked to be one.
#: Without an array in the answer: for its type the driver asks the server in each new session, which takes some 20 ms.
_PUBLISH = """
select
    ids[1] as first_id,
    case when ids[cardinality(ids)] - ids[1] >= cardinality(ids) then to_json(ids)::text end as scattered,
    roster
from pgmq_bus_channel.publish_{}($1::text, $2::text[])
"""
_READ = """
select msg_id, message, lost, roster
from pgmq_bus_channel.read_{}($1::text, $2::bigint, $3::bigint, $4::integer, $5::bigint)
"""
_NOTIFY = "select pgmq_bus_v1.notify($1::text, $2::text)"
_WAKE_BY = "select pgmq_bus_v1.wake_by($1::text, $2::text, $3::text, $4::boolean)"

#: What the server calls a channel in the names of its functions. They go into statements as they are.
_TOKEN = re.compile(r"[0-9a-f]{1,40}")


class LogPeer:
    """A peer from joining to leaving.

    Args:
        database: The connections to use.
        channel: Wire name of the channel.
    """

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._queue = ""
        self._publish = ""
        self._read = ""
        self._self_delivery = True
        self._doorbell: Doorbell | None = None
        self._announcer: Announcer | None = None
        self._waking: Waking | None = None
        self._roster_version = 0
        self._announced_to = 0
        self._foresees = False

    async def join(self, options: JoinOptions) -> Membership:
        """Become a peer.

        Raises:
            BackendError: The server refused or is out of reach.
        """
        ip = advertised_ip(await self._database.local_ip())
        self._doorbell = open_doorbell(ip, self._rang, self._refresh)
        about = {
            "peer": options.peer,
            "application": options.application,
            "host": options.host,
            "runtime": options.runtime,
            "address": None if self._doorbell is None else self._doorbell.address,
            "since": options.since,
        }
        with limit_called(TOO_MANY_PEERS):
            rows = await self._database.fetch(_JOIN, self._channel, orjson.dumps(about).decode())
        joined = orjson.loads(rows[0]["joined"])
        token = joined["token"]
        if not _TOKEN.fullmatch(token):
            raise BackendError(f"the server calls channel {self._channel!r} {token!r}, which is no name of a function")
        self._queue = joined["queue"]
        self._publish = _PUBLISH.format(token)
        self._read = _READ.format(token)
        self._self_delivery = joined["self_delivery"]
        self._announced_to = joined["position"]
        self._waking = Waking(
            self._doorbell,
            self._database,
            joined["wake"],
            notify=self._notify,
            wake_by=self._wake_by,
            subject=f"channel {self._channel!r}",
        )
        self._announcer = Announcer(self._fetch_roster, self._notify, self._doorbell, self._apply)
        foreign = joined.get("foreign", True)  # an older server does not say
        self._announcer.begin(base64.b64decode(joined["key"]), joined["peers"], foreign=foreign)
        self._waking.update(wake=joined["wake"], foreign=foreign, watches=False, peers=joined["peers"])
        return Membership(
            queue=self._queue,
            position=joined["position"],
            delivered=joined["delivered"],
            wake=joined["wake"],
            max_message_bytes=joined["max_message_bytes"],
            peer_timeout_seconds=float(joined["peer_timeout_seconds"]),
            resumed=joined["resumed"],
            announced=not joined["resumed"] and not foreign,
            # An older server says neither.
            head=joined.get("head"),
            since=joined.get("since"),
        )

    async def publish(self, payloads: Sequence[bytes]) -> list[int]:
        """Append to the log in one transaction, and announce it; the ids."""
        expected = self._announced_to + 1
        if self._foresees and len(payloads) == 1 and self._doorbell is not None:
            # While the server is at it, there is time to seal what will be announced.
            asyncio.get_running_loop().call_soon(self._doorbell.prepare, expected, payloads[0])
        with limit_called(MESSAGE_TOO_LARGE):
            rows = await self._database.fetch(self._publish, self._queue, [payload.decode() for payload in payloads])
        first_id, scattered, roster = rows[0]
        self._foresees = first_id == expected
        if scattered is not None:
            # Somebody who uses the queue behind our back was given ids in between: readers find them all in the log.
            ids: list[int] = orjson.loads(scattered)
            return ids
        count = len(payloads)
        if self._announcer is not None and self._waking is not None:
            self._announced_to = max(self._announced_to, first_id + count - 1)
            self._announcer.announce(first_id, payloads, roster)
            self._waking.published(first_id, payloads if self._self_delivery else [None] * count)
        return list(range(first_id, first_id + count))

    async def read(self, after: int, acknowledge: int | None, limit: int) -> list[LogRecord]:
        """Up to `limit` records after `after`; acknowledges in the same round trip."""
        rows = await self._database.fetch(self._read, self._queue, after, acknowledge, limit, self._roster_version)
        records = []
        for msg_id, message, lost, roster in rows:
            if msg_id is None:
                if self._announcer is not None:
                    self._announcer.learn(roster)
            else:
                records.append(LogRecord(msg_id, None if message is None else message.encode(), lost or 0))
        self._relay(records)
        return records

    def _relay(self, records: Sequence[LogRecord]) -> None:
        """Ring the others for what was found in the log and nobody rang for, if that falls to this peer."""
        if self._waking is None or self._doorbell is None or not self._waking.relays:
            return
        unannounced = [record for record in records if record.msg_id > self._announced_to]
        if unannounced:
            first, last = unannounced[0].msg_id, unannounced[-1].msg_id
            payloads = [record.payload for record in unannounced if record.payload is not None]
            whole = len(payloads) == last - first + 1
            self._doorbell.ring(first, last - first + 1, payloads if whole else None)
            self._announced_to = last

    def waker(self) -> Waker:
        """What wakes the reader of this membership."""
        if self._waking is None:
            raise RuntimeError("join() comes first")
        return self._waking

    async def close(self) -> None:
        """Wake nobody and be woken no more. The server is told by whoever calls this."""
        try:
            if self._announcer is not None:
                await self._announcer.close()
        finally:
            try:
                if self._waking is not None:
                    await self._waking.close()
            finally:
                if self._doorbell is not None:
                    self._doorbell.close()

    def _rang(self, first_id: int, count: int, payloads: Sequence[bytes] | None) -> None:
        self._announced_to = max(self._announced_to, first_id + count - 1)
        if self._waking is not None:
            self._waking.rang(first_id, count, payloads)

    def _refresh(self) -> None:
        if self._announcer is not None:
            self._announcer.refresh()
        if self._waking is not None:
            # What was rung under a newer key cannot be heard any more.
            self._waking.knocked()

    def _apply(self, roster: Roster) -> None:
        self._roster_version = roster.version
        if self._waking is not None:
            self._waking.update(wake=roster.wake, foreign=roster.foreign, watches=roster.watches, peers=roster.peers)

    async def _fetch_roster(self) -> Roster:
        rows = await self._database.fetch(_ROSTER, self._channel, self._queue)
        told = orjson.loads(rows[0]["roster"])
        return Roster(
            version=told["version"],
            key=base64.b64decode(told["key"]),
            wake=told["wake"],
            peers=told["peers"],
            foreign=told["foreign"],
            watches=told["watches"],
            listeners=told["listeners"],
            addresses=tuple(told["addresses"]),
        )

    async def _notify(self) -> None:
        await self._database.fetch(_NOTIFY, self._channel, self._queue)

    async def _wake_by(self, address: str | None, listens: bool) -> None:
        await self._database.fetch(_WAKE_BY, self._channel, self._queue, address, listens)
