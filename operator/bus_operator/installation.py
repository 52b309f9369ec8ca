"""Performs an installation plan, in one transaction: it is there as a whole or not at all."""

import asyncio
from collections.abc import Sequence

import asyncpg

from bus_operator import catalog, migrations, naming, pgmq_sql, render, sql
from bus_operator.actions import (
    CreateGroupRole,
    GrantConnect,
    GrantOwnerToSelf,
    InstallAction,
    InstallFunctions,
    InstallPgmq,
    InstallSchema,
    MigrateSchema,
)
from bus_operator.plan import stored_fingerprint
from bus_operator.roles import as_owner, execute, overtaken


async def apply_installation(connection: asyncpg.Connection, actions: Sequence[InstallAction]) -> None:
    """Performs an installation plan.

    Raises:
        TransientError: Another operator was faster, or a session keeps using what is to be migrated.
    """
    if not actions:
        return
    migration = next((action for action in actions if isinstance(action, MigrateSchema)), None)
    if migration is None:
        await _perform(connection, actions, None)
        return
    if migration.current == migrations.GATED_VERSION and await _gate(connection, migration.current):
        await asyncio.sleep(migrations.SETTLED)
    await migrations.patiently(lambda: _perform(connection, actions, migration))


async def _perform(
    connection: asyncpg.Connection, actions: Sequence[InstallAction], migration: MigrateSchema | None
) -> None:
    async with connection.transaction():
        if migration is not None:
            await migrations.lock(connection, migration.current, migration.target)
        if not any(isinstance(action, InstallSchema | GrantOwnerToSelf) for action in actions):
            await _lock_installation(connection, actions)
        for action in actions:
            await perform(connection, action)
        if migration is not None and migration.current == migrations.GATED_VERSION:
            await migrations.make_channel_functions(connection)


async def _lock_installation(connection: asyncpg.Connection, actions: Sequence[InstallAction]) -> None:
    """Keeps other operators out. Raises TransientError when one of them has been here since the plan was made."""
    expected = {action.current for action in actions if isinstance(action, MigrateSchema)} or {
        action.version for action in actions if isinstance(action, InstallFunctions)
    }
    version = await connection.fetchval(sql.query("lock_installation"))
    if expected and version not in expected:
        raise overtaken(f"schema version {version}")


async def _gate(connection: asyncpg.Connection, version: int) -> bool:
    async with connection.transaction():
        await _lock_installation(connection, [MigrateSchema(version, version)])
        if not await migrations.gate(connection):
            return False
        # Recorded, so that what an interrupted migration leaves does not look like somebody's doing.
        await _record(connection, version, stored_fingerprint("gated", await catalog.functions_fingerprint(connection)))
        return True


async def perform(connection: asyncpg.Connection, action: InstallAction) -> None:
    """Performs one step, within the transaction of its plan."""
    match action:
        case CreateGroupRole(role):
            await connection.execute(render.create_group_role(role))
        case GrantOwnerToSelf():
            await connection.execute(render.grant_role_to_self(naming.OWNER_ROLE))
        case InstallPgmq(extension=True):
            await connection.execute("CREATE EXTENSION pgmq")
            await execute(connection, render.grant_pgmq())
        case InstallPgmq(extension=False):
            await connection.execute(pgmq_sql.install_sql())
            await execute(connection, render.grant_pgmq())
        case GrantConnect():
            database = await connection.fetchval("SELECT current_database()")
            await connection.execute(render.grant_connect(database))
        case InstallSchema(version):
            await execute(connection, [*render.create_schemas(), *render.grant_pgmq()])
            async with as_owner(connection):
                await connection.execute(sql.schema())
            await _record(connection, version, None)
        case MigrateSchema(current, target):
            await execute(connection, render.grant_pgmq())
            await migrations.migrate(connection, current, target)
            await _record(connection, target, None)
        case InstallFunctions(version, in_place):
            await execute(connection, render.create_schemas())
            await connection.execute(render.public_schema_create(allow=True))
            if not in_place or not await _replace_functions(connection):
                await connection.execute(sql.query("drop_functions"))
                await _create_functions(connection)
            await connection.execute(render.public_schema_create(allow=False))
            actual = await catalog.functions_fingerprint(connection)
            await _record(connection, version, stored_fingerprint(sql.functions_digest(), actual))


async def _replace_functions(connection: asyncpg.Connection) -> bool:
    """False, and nothing done, where an earlier version's functions must be dropped first.

    CREATE OR REPLACE refuses other argument names or another result, and leaves what has other arguments behind.
    Dropping is noticed, though: whoever is about to call a function that was dropped gets an error.
    """
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        await _create_functions(connection)
    except asyncpg.InvalidFunctionDefinitionError:
        await savepoint.rollback()
        return False
    if await connection.fetchval(sql.query("count_functions")) != len(sql.functions()):
        await savepoint.rollback()
        return False
    await savepoint.commit()
    return True


async def _create_functions(connection: asyncpg.Connection) -> None:
    async with as_owner(connection):
        await execute(connection, [*sql.functions(), sql.privileges()])


async def _record(connection: asyncpg.Connection, version: int, fingerprint: str | None) -> None:
    extension = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'pgmq'")
    bundled = None if extension else pgmq_sql.version()
    await connection.execute(sql.query("record_installation"), version, fingerprint, bundled)
