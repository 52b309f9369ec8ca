"""Performs an installation plan, in one transaction: it is there as a whole or not at all."""

import hashlib
from collections.abc import Sequence

import asyncpg
from pgmq.install import get_embedded_install_sql, get_embedded_sql_version

from bus_operator import catalog, naming, render, sql
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
from bus_operator.roles import as_owner, execute


def functions_digest() -> str:
    """A digest of the function texts and privileges that this operator ships."""
    return hashlib.sha256("\n".join((*sql.functions(), sql.privileges())).encode()).hexdigest()[:32]


async def apply_installation(connection: asyncpg.Connection, actions: Sequence[InstallAction]) -> None:
    """Performs an installation plan."""
    if not actions:
        return
    async with connection.transaction():
        if not any(isinstance(action, InstallSchema | GrantOwnerToSelf) for action in actions):
            await connection.execute(sql.query("lock_installation"))
        for action in actions:
            await _install(connection, action)


async def _install(connection: asyncpg.Connection, action: InstallAction) -> None:
    match action:
        case CreateGroupRole(role):
            await connection.execute(render.create_group_role(role))
        case GrantOwnerToSelf():
            await connection.execute(render.grant_role_to_self(naming.OWNER_ROLE))
        case InstallPgmq(extension=True):
            await connection.execute("CREATE EXTENSION pgmq")
            await execute(connection, render.grant_pgmq())
        case InstallPgmq(extension=False):
            await connection.execute(get_embedded_install_sql())
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
            async with as_owner(connection):
                for version, migration in sql.migrations():
                    if current < version <= target:
                        await connection.execute(migration)
            await _record(connection, target, None)
        case InstallFunctions(version, in_place):
            await execute(connection, render.create_schemas())
            await connection.execute(render.public_schema_create(allow=True))
            if not in_place or not await _replace_functions(connection):
                await connection.execute(sql.query("drop_functions"))
                await _create_functions(connection)
            await connection.execute(render.public_schema_create(allow=False))
            actual = await catalog.functions_fingerprint(connection)
            await _record(connection, version, stored_fingerprint(functions_digest(), actual))


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
    bundled = None if extension else get_embedded_sql_version()
    await connection.execute(sql.query("record_installation"), version, fingerprint, bundled)
