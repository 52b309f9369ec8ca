"""Puts right what was changed by hand in a database, as far as it is ours, and tells what is left: see `drift_look`."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg

from bus_operator import apply, catalog, render, sql
from bus_operator.actions import ChannelAction, InstallChannelFunctions, RecreateLog, RepairRole
from bus_operator.drift import Difference, DriftReport, Repair, split
from bus_operator.drift_look import look
from bus_operator.errors import BusError
from bus_operator.roles import as_owner, drop_login, execute

logger = logging.getLogger(__name__)


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
