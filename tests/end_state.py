"""All that there is of the channels in a database and on its server, to compare how two runs ended.

What differs between any two runs is left out (times, secrets) or replaced (the random part of names).
"""

from collections.abc import Collection, Mapping

import asyncpg

from bus_operator import drift_look

State = dict[str, list[str]]

_ROLES = "select rolname from pg_roles where rolname ~ '^(bus|pgmq_bus)_'"

_QUERIES = {
    "channels": """
        select (to_jsonb(c) - '{id,wake,doorbell_key,created_at,functions_fingerprint}'::text[])::text
        from pgmq_bus.channel as c order by name""",
    "logins": """
        select c.name || ' ' || (l.published_at is not null) || ' '
            || (to_jsonb(l) - '{channel_id,verifier,created_at,published_at,unused_since,warned_at}'::text[])
        from pgmq_bus.login as l join pgmq_bus.channel as c on c.id = l.channel_id order by c.name, l.generation""",
    "peers": """
        select c.name || ' '
            || jsonb_build_array(p.name, p.acknowledged, p.delivered, p.position, p.lost, p.redelivered)
        from pgmq_bus.peer as p join pgmq_bus.channel as c on c.id = p.channel_id order by c.name, p.name""",
    "queues": "select (to_jsonb(m) - 'created_at')::text from pgmq.meta as m order by 1",
    "relations": """
        select jsonb_build_array(oid::regclass, relkind, relpersistence, relowner::regrole, relacl)::text
        from pg_class
        where relnamespace = any ('{pgmq_bus,pgmq}'::regnamespace[]) and relkind in ('r', 'v', 'S') order by 1""",
    "functions of channels": """
        select jsonb_build_array(oid::regprocedure, proowner::regrole, proacl)::text
        from pg_proc where pronamespace = 'pgmq_bus_channel'::regnamespace order by 1""",
    "open transactions": """
        select query from pg_stat_activity
        where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()
            and backend_type = 'client backend'""",
}  # fmt: skip

_ROLE_STATE = """
select jsonb_build_array(r.rolname, r.rolcanlogin, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb,
    r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolconfig, array(
        select m.roleid::regrole::text from pg_auth_members as m where m.member = r.oid order by 1
    ))::text
from pg_roles as r where r.rolname = any ($1::name[]) order by 1
"""


async def bus_roles(session: asyncpg.Connection) -> set[str]:
    """All roles of the server that are ours."""
    return {row[0] for row in await session.fetch(_ROLES)}


async def channel_tokens(session: asyncpg.Connection) -> dict[str, str]:
    """The random part of the names of each channel's objects, and what to replace it by."""
    rows = await session.fetch("select name, queue from pgmq_bus.channel")
    return {row["queue"].removeprefix("bus_"): f"<{row['name']}>" for row in rows}


async def end_state(
    session: asyncpg.Connection, *, names: Mapping[str, str] | None = None, others: Collection[str] = ()
) -> State:
    """What there is.

    Args:
        session: A superuser's, in the database.
        names: What to replace in texts, and by what.
        others: Roles that are those of other databases.
    """
    # As the operator's: texts of names depend on it, and so do fingerprints.
    await session.execute("set search_path = pg_catalog, pg_temp")
    rows = await session.fetch("select name, queue from pgmq_bus.channel")
    replaced = await channel_tokens(session) | dict(names or {})

    def told(text: str) -> str:
        for name, replacement in replaced.items():
            text = text.replace(name, replacement)
        return text

    state = {part: sorted(told(row[0]) for row in await session.fetch(query)) for part, query in _QUERIES.items()}
    roles = await bus_roles(session) - set(others)
    state["roles"] = sorted(told(row[0]) for row in await session.fetch(_ROLE_STATE, sorted(roles)))
    for row in rows:
        log = await session.fetch(f"select msg_id, message from pgmq.q_{row['queue']} order by msg_id")
        state[f"log of {told(row['name'])}"] = [f"{number} {message}" for number, message in log]
    state["drift"] = [told(str(item)) for item in await drift_look.look(session, fingerprint=True)]
    return state


def difference(found: State, expected: State) -> str:
    """In which parts, and how, two differ; empty: they do not."""
    parts = [part for part in {**expected, **found} if found.get(part) != expected.get(part)]
    return "\n".join(f"{part}: {found.get(part)}\n  instead of {expected.get(part)}" for part in parts)
