"""Looks for what was changed by hand in a database: all channels in a few queries. Changes nothing.

What is exactly compared: the text, owner, settings and privileges of every function, against the shipped files; the
registry's structure, against `structure.txt`; owners, privileges, triggers and the like of tables; roles with their
attributes, settings and memberships; and whatever else in the database names one of our roles in its privileges. The
queries return differences only, so a look that finds nothing costs a few round trips and no memory.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import asyncpg

from bus_operator import catalog, naming, pgmq_sql, render, sql
from bus_operator.drift import Difference, Repair
from bus_operator.function_texts import FunctionText

MISSING = "is missing"
ALL_FUNCTIONS = "the functions in pgmq_bus, pgmq_bus_v1 and public"


_PGMQ_FUNCTION = re.compile(
    r"^create (?:or replace )?(?:function|procedure) pgmq\.\"?(\w+)", re.IGNORECASE | re.MULTILINE
)


async def look(
    connection: asyncpg.Connection, channel_id: int | None = None, *, fingerprint: bool = False
) -> list[Difference]:
    """What is not as it should be, in one channel or in the whole database, as it was at one moment.

    With `fingerprint` also that the shared functions differ from what was recorded, where no single one is found.
    Nothing while another version's schema is installed; another version's functions are not compared.
    """
    if not await connection.fetchval(sql.query("drift_can_be_seen")):
        return []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # Estimates are high where little is found: compiling these queries takes longer than running them.
        await connection.execute("SET LOCAL jit = off")
        if await connection.fetchval(sql.query("installed_version")) not in (None, sql.schema_version()):
            # Before all else: what another version consists of is no damage.
            return []
        structure = render.with_structure(sql.query("drift_structure"), sql.query("structure"))
        damage = await _found(connection, structure, channel_id, sql.structure())
        if any(item.problem == MISSING for item in damage):
            # Without a table of the registry nothing else can be found out.
            return damage
        installed = await connection.fetchrow(sql.query("observe_installation"))
        if installed is None:
            return []
        digest = f"{sql.functions_digest()}:"
        comparable = (installed["functions_fingerprint"] or digest).startswith(digest)
        shared = _rows(sql.functions()) if comparable else None
        roles, functions, templates = sql.query("drift_roles"), sql.query("drift_functions"), _templates()
        # In the order of repairs: roles before what is granted to them.
        found = [
            *await _found(connection, roles, channel_id, render.login_defaults(), naming.VERIFIER_CONNECTIONS),
            *damage,
            *await _found(connection, sql.query("drift_relations"), channel_id, _registry()),
            *await _found(connection, sql.query("drift_schemas"), channel_id),
            *await _found(connection, functions, channel_id, shared, templates, sql.channel_functions_digest()),
        ]
        if channel_id is not None:
            return found
        bundled = installed["pgmq_version"] == pgmq_sql.version()
        found += await _found(connection, sql.query("drift_pgmq"), _pgmq_functions() if bundled else None)
        if fingerprint and shared is not None and not any(item.channel is None for item in found):
            actual = await catalog.functions_fingerprint(connection)
            if installed["functions_fingerprint"] != f"{digest}{actual}":
                found.append(Difference(ALL_FUNCTIONS, "were changed", Repair.FUNCTIONS))
        return found


async def _found(connection: asyncpg.Connection, query: str, *arguments: object) -> list[Difference]:
    return [Difference.from_row(row) for row in await connection.fetch(query, *arguments)]


@cache
def _registry() -> list[str]:
    """The names of the registry's relations."""
    return sorted({line.split()[0] for line in sql.structure()})


@cache
def _pgmq_functions() -> str:
    """How many functions of each name the bundled SQL of PGMQ makes."""
    return json.dumps(Counter(_PGMQ_FUNCTION.findall(pgmq_sql.install_sql())))


def _rows(texts: Sequence[str]) -> str:
    return json.dumps([FunctionText.parse(text).as_row() for text in texts])


def _templates() -> str:
    rows = [FunctionText.parse(text).as_row() for text in sql.channel_functions()]
    return json.dumps([row | {"prefix": f"{row['name'].strip('{}')}_"} for row in rows])
