"""All that there is on a server and in a database of the bus, to see that nothing is left over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
from end_state import channel_tokens

#: The random part of a name that belongs to no channel of the registry.
_TOKEN = re.compile(r"(?<=_)[0-9a-f]{12}(?=_|$)")
_GENERATION = re.compile(r"_g\d+$")

#: What is there by name. Of a login, the generation is left out: rotations change it.
_NAMES = {
    "roles": "select rolname::text from pg_roles where rolname ~ '^(bus|pgmq_bus)_'",
    "settings of roles": """
        select r.rolname::text from pg_db_role_setting as s join pg_roles as r on r.oid = s.setrole
        where r.rolname ~ '^(bus|pgmq_bus)_'""",
    "queues": "select queue_name::text from pgmq.meta",
    "relations": """
        select relname::text from pg_class
        where relnamespace = any ('{pgmq_bus,pgmq,pgmq_bus_channel}'::regnamespace[])""",
    "functions": "select proname::text from pg_proc where pronamespace = 'pgmq_bus_channel'::regnamespace",
    "schemas": "select nspname::text from pg_namespace where nspname !~ '^pg_(temp|toast_temp)'",
    "logins": "select role::text from pgmq_bus.login",
    # Of one that was killed the row stays for a day, and does not count.
    "peers": """
        select c.queue || ' ' || coalesce(p.name, case when p.is_foreign then 'pipecat' else 'unnamed' end)
        from pgmq_bus.peer as p join pgmq_bus.channel as c on c.id = p.channel_id
        where p.last_seen > clock_timestamp() - c.peer_timeout""",
    "doorbells": """
        select c.queue || ' ' || coalesce(p.name, 'unnamed')
        from pgmq_bus.peer as p join pgmq_bus.channel as c on c.id = p.channel_id where p.address is not null""",
    "prepared transactions": "select gid from pg_prepared_xacts",
    "advisory locks": "select classid || ' ' || objid from pg_locks where locktype = 'advisory'",
}

_ROWS = ("installation", "channel", "channel_state", "channel_gate", "login")

_SESSIONS = (
    "select usename::text from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is, and how often."""

    parts: Mapping[str, Counter[str]]

    def beyond(self, expected: Inventory) -> list[str]:
        """What differs from another one."""
        found = []
        for part in {**expected.parts, **self.parts}:
            ours, theirs = self.parts.get(part, Counter()), expected.parts.get(part, Counter())
            found += [f"{part}: {count} too many of {name}" for name, count in sorted((ours - theirs).items())]
            found += [f"{part}: {count} too few of {name}" for name, count in sorted((theirs - ours).items())]
        return found

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {part: counter.total() for part, counter in self.parts.items()}


async def take(session: asyncpg.Connection) -> Inventory:
    """What there is.

    Args:
        session: A superuser's, in the database.
    """
    tokens = await channel_tokens(session)
    parts = {}
    for part, query in _NAMES.items():
        parts[part] = Counter(_told(row[0], tokens) for row in await session.fetch(query))
    rows = {table: await session.fetchval(f"select count(*) from pgmq_bus.{table}") for table in _ROWS}
    return Inventory({**parts, "rows of the registry": Counter(rows)})


async def sessions(session: asyncpg.Connection, tokens: Mapping[str, str] | None = None) -> Counter[str]:
    """Sessions of clients on the whole server, by role, without this one."""
    return Counter(_told(row[0] or "?", tokens or {}) for row in await session.fetch(_SESSIONS))


def _told(name: str, tokens: Mapping[str, str]) -> str:
    """A name without what is left to chance."""
    for token, channel in tokens.items():
        name = name.replace(token, channel)
    return _GENERATION.sub("", _TOKEN.sub("<of no channel>", name))
