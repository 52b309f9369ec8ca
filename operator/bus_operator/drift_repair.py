"""Looks for what was changed by hand in a database, and puts right what is ours: all channels in a few queries.

What is exactly compared: the text, owner, settings and privileges of every function, against the shipped files; the
registry's structure, against `structure.txt`; owners, privileges, triggers and the like of tables; roles with their
attributes, settings and memberships; and whatever else in the database names one of our roles in its privileges. The
queries return differences only, so a look that finds nothing costs a few round trips and no memory.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any

import asyncpg
from pgmq.install import get_embedded_install_sql, get_embedded_sql_version

from bus_operator import apply, catalog, installation, render, sql
from bus_operator.actions import ChannelAction, InstallChannelFunctions, RecreateLog, RepairRole
from bus_operator.drift import Difference, DriftReport, Repair, split
from bus_operator.errors import BusError
from bus_operator.function_texts import FunctionText
from bus_operator.model import VERIFIER_CONNECTIONS
from bus_operator.roles import as_owner, drop_login, execute

logger = logging.getLogger(__name__)

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
        digest = f"{installation.functions_digest()}:"
        comparable = (installed["functions_fingerprint"] or digest).startswith(digest)
        shared = _rows(sql.functions()) if comparable else None
        roles, functions, templates = sql.query("drift_roles"), sql.query("drift_functions"), _templates()
        # In the order of repairs: roles before what is granted to them.
        found = [
            *await _found(connection, roles, channel_id, render.login_defaults(), VERIFIER_CONNECTIONS),
            *damage,
            *await _found(connection, sql.query("drift_relations"), channel_id, _registry()),
            *await _found(connection, sql.query("drift_schemas"), channel_id),
            *await _found(connection, functions, channel_id, shared, templates, apply.channel_functions_digest()),
        ]
        if channel_id is not None:
            return found
        bundled = installed["pgmq_version"] == get_embedded_sql_version()
        found += await _found(connection, sql.query("drift_pgmq"), _pgmq_functions() if bundled else None)
        if fingerprint and shared is not None and not any(item.channel is None for item in found):
            actual = await catalog.functions_fingerprint(connection)
            if installed["functions_fingerprint"] != f"{digest}{actual}":
                found.append(Difference(ALL_FUNCTIONS, "were changed", Repair.FUNCTIONS))
        return found


async def repair(connection: asyncpg.Connection, found: Sequence[Difference]) -> None:
    """Puts right what is ours. What the shared functions lack is left to an installation that follows."""
    done = set()
    for difference in found:
        # A channel's functions are made anew once, however much is wrong with them.
        step = difference.repair, difference.channel, difference.statement
        if step not in done:
            done.add(step)
            await _repair(connection, difference)


async def report(connection: asyncpg.Connection, found: Sequence[Difference]) -> DriftReport:
    """What of `found` is put right by now, and what is left for somebody else to do."""
    if not found:
        return DriftReport()
    return split(found, [item for item in await look(connection) if item.repair is not Repair.CREDENTIAL])


async def _found(connection: asyncpg.Connection, query: str, *arguments: object) -> list[Difference]:
    return [Difference.from_row(row) for row in await connection.fetch(query, *arguments)]


@cache
def _registry() -> list[str]:
    """The names of the registry's relations."""
    return sorted({line.split()[0] for line in sql.structure()})


@cache
def _pgmq_functions() -> str:
    """How many functions of each name the bundled SQL of PGMQ makes."""
    return json.dumps(Counter(_PGMQ_FUNCTION.findall(get_embedded_install_sql())))


def _rows(texts: Sequence[str]) -> str:
    return json.dumps([FunctionText.parse(text).as_row() for text in texts])


def _templates() -> str:
    rows = [FunctionText.parse(text).as_row() for text in sql.channel_functions()]
    return json.dumps([row | {"prefix": f"{row['name'].strip('{}')}_"} for row in rows])


async def _repair(connection: asyncpg.Connection, difference: Difference) -> None:
    """One that fails stays, is found again by the next look, and holds up none of the others."""
    try:
        async with connection.transaction():
            await _REPAIRS[difference.repair](connection, difference)
    except (BusError, asyncpg.PostgresError) as exc:
        logger.warning("%s: not put right: %s", difference, exc)


async def _run_statement(connection: asyncpg.Connection, difference: Difference) -> None:
    await connection.execute(difference.statement)


async def _forget_functions(connection: asyncpg.Connection, _: Difference) -> None:
    await connection.execute(sql.query("forget_functions"))


async def _reset_settings(connection: asyncpg.Connection, difference: Difference) -> None:
    await connection.execute(difference.statement)
    await execute(connection, render.login_settings(difference.object.removeprefix("role ")))


async def _remove_login(connection: asyncpg.Connection, difference: Difference) -> None:
    name = difference.statement or ""
    await drop_login(connection, difference.problem.removeprefix("is a member of "), name)


async def _repair_channel(connection: asyncpg.Connection, difference: Difference) -> None:
    observed = await catalog.observe_channel(connection, difference.channel or "")
    if observed is None:
        return
    if difference.repair is Repair.QUEUE:
        async with as_owner(connection):
            await apply.create_queue(connection, observed.queue, unlogged=observed.durability == "Unlogged")
        return
    actions: dict[Repair, ChannelAction] = {
        Repair.CHANNEL_FUNCTIONS: InstallChannelFunctions(observed.queue, in_place=False),
        Repair.ROLE: RepairRole(observed.role, create=not observed.role_exists),
        Repair.LOG: RecreateLog(observed.queue, observed.durability == "Unlogged"),
    }
    await apply.apply_channel(connection, observed, [actions[difference.repair]])


async def _leave(_: asyncpg.Connection, __: Difference) -> None:
    """Others see to it."""


_REPAIRS: dict[Repair, Callable[[asyncpg.Connection, Difference], Coroutine[Any, Any, None]]] = {
    Repair.STATEMENT: _run_statement,
    Repair.FUNCTIONS: _forget_functions,
    Repair.SETTINGS: _reset_settings,
    Repair.DROP_LOGIN: _remove_login,
    Repair.CHANNEL_FUNCTIONS: _repair_channel,
    Repair.ROLE: _repair_channel,
    Repair.LOG: _repair_channel,
    Repair.QUEUE: _repair_channel,
    Repair.CREDENTIAL: _leave,
    Repair.REPORT: _leave,
}
