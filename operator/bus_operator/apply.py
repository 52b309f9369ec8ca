"""Performs what was planned. Each plan runs in one transaction: it is there as a whole or not at all."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
from pgmq.install import get_embedded_install_sql, get_embedded_sql_version

from bus_operator import catalog, credentials, naming, render, sql
from bus_operator.actions import (
    ChannelAction,
    CreateChannel,
    CreateGroupRole,
    DeletionAction,
    DesiredChannel,
    DropChannel,
    DropLogin,
    GrantConnect,
    GrantOwnerToSelf,
    InstallAction,
    InstallFunctions,
    InstallPgmq,
    InstallSchema,
    IssueCredential,
    MigrateSchema,
    RecreateLog,
    RepairRole,
    UpdateChannel,
    UpdateLogin,
)
from bus_operator.catalog import ObservedChannel
from bus_operator.errors import TransientError
from bus_operator.plan import stored_fingerprint


@dataclass(frozen=True)
class IssuedCredential:
    """A login that was just created. The only place of its password besides the binding; kept out of `repr`."""

    username: str
    password: str = field(repr=False)
    generation: int


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
            await _execute(connection, render.grant_pgmq())
        case InstallPgmq(extension=False):
            await connection.execute(get_embedded_install_sql())
            await _execute(connection, render.grant_pgmq())
        case GrantConnect():
            database = await connection.fetchval("SELECT current_database()")
            await connection.execute(render.grant_connect(database))
        case InstallSchema(version):
            await _execute(connection, [*render.create_schemas(), *render.grant_pgmq()])
            await _as_owner(connection, sql.schema())
            await _record(connection, version, None)
        case MigrateSchema(current, target):
            for version, migration in sql.migrations():
                if current < version <= target:
                    await _as_owner(connection, migration)
            await _record(connection, target, None)
        case InstallFunctions(version):
            await _execute(connection, render.create_schemas())
            # Not replaced in place: CREATE OR REPLACE refuses another owner, other argument names or another result,
            # and leaves an earlier version's functions behind. Clients look functions up by name and find the new ones.
            await connection.execute(sql.query("drop_functions"))
            await connection.execute(render.public_schema_create(allow=True))
            await _as_owner(connection, *sql.functions(), sql.privileges())
            await connection.execute(render.public_schema_create(allow=False))
            actual = await catalog.functions_fingerprint(connection)
            await _record(connection, version, stored_fingerprint(functions_digest(), actual))


def _overtaken(what: str) -> TransientError:
    return TransientError(f"{what} was created or changed by another reconciler meanwhile", reason="Conflict")


async def _execute(connection: asyncpg.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        await connection.execute(statement)


async def _record(connection: asyncpg.Connection, version: int, fingerprint: str | None) -> None:
    extension = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'pgmq'")
    bundled = None if extension else get_embedded_sql_version()
    await connection.execute(sql.query("record_installation"), version, fingerprint, bundled)


async def _as_owner(connection: asyncpg.Connection, *statements: str) -> None:
    """Runs statements as the owner role, so that what they create is its own, then becomes the administrator again."""
    await connection.execute(render.set_local_role(naming.OWNER_ROLE))
    await _execute(connection, statements)
    await connection.execute("RESET ROLE")


async def apply_channel(
    connection: asyncpg.Connection, observed: ObservedChannel | None, actions: Sequence[ChannelAction]
) -> IssuedCredential | None:
    """Performs a channel's plan. Returns the credential that was issued, if one was.

    Raises:
        TransientError: When another reconciler was faster; observing and planning again helps.
    """
    if not actions:
        return None
    issued = None
    async with connection.transaction():
        channel_id = observed.id if observed else None
        role = observed.role if observed else ""
        for action in actions:
            match action:
                case CreateChannel(desired):
                    channel_id, role = await _create_channel(connection, desired)
                case UpdateChannel(desired):
                    updated = await connection.fetchval(
                        sql.query("update_channel"),
                        channel_id,
                        desired.owner_uid,
                        desired.owner_reference,
                        desired.durability,
                        desired.self_delivery,
                        desired.max_peers,
                        desired.max_message_bytes,
                        desired.max_connections,
                        desired.peer_timeout,
                        observed.owner_uid if observed else None,
                    )
                    if updated is None:
                        raise _overtaken(f"channel {desired.name!r}")
                case RepairRole(name, create):
                    if create:
                        await connection.execute(render.create_group_role(name))
                    await connection.execute(render.grant_role(naming.CLIENT_ROLE, name))
                case RecreateLog(queue):
                    await _as_owner_fetch(connection, "create_queue", queue)
                    await _as_owner_fetch(connection, "resume_log", queue)
                case IssueCredential(generation, connection_limit):
                    issued = await _issue(connection, role, channel_id, generation, connection_limit)
                case UpdateLogin(name, verifier, connection_limit):
                    await connection.execute(render.login_attributes(name, verifier, connection_limit))
                case DropLogin(name):
                    await _drop_login(connection, role, name)
    return issued


async def _create_channel(connection: asyncpg.Connection, desired: DesiredChannel) -> tuple[int, str]:
    names = naming.new_channel_names()
    await connection.execute(render.create_group_role(names.role))
    await connection.execute(render.grant_role(naming.CLIENT_ROLE, names.role))
    await _as_owner_fetch(connection, "create_queue", names.queue)
    try:
        channel_id = await connection.fetchval(
            sql.query("insert_channel"),
            desired.name,
            names.queue,
            names.role,
            names.wake,
            desired.owner_uid,
            desired.owner_reference,
            desired.durability,
            desired.self_delivery,
            desired.max_peers,
            desired.max_message_bytes,
            desired.max_connections,
            desired.peer_timeout,
        )
    except asyncpg.UniqueViolationError as exc:
        raise _overtaken(f"channel {desired.name!r}") from exc
    return int(channel_id), names.role


async def _issue(
    connection: asyncpg.Connection, role: str, channel_id: int | None, generation: int, connection_limit: int
) -> IssuedCredential:
    username = naming.login_name(role, generation)
    password = credentials.new_password()
    verifier = credentials.scram_verifier(password)
    try:
        await connection.execute(render.create_group_role(username))
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError) as exc:
        raise _overtaken(f"login {username}") from exc
    await connection.execute(render.login_attributes(username, verifier, connection_limit))
    for statement in render.login_settings(username):
        await connection.execute(statement)
    await connection.execute(render.grant_role(role, username))
    await connection.execute(sql.query("insert_login"), username, channel_id, generation, verifier)
    return IssuedCredential(username, password, generation)


async def _drop_login(connection: asyncpg.Connection, channel_role: str, name: str) -> None:
    if await _role_exists(connection, name):
        await _become_member(connection, name)
        await connection.execute(sql.query("terminate_sessions"), name)
        if not await _drop_role(connection, name):
            # It stays as a name that can do nothing, and stays registered so that no later generation takes the name.
            await connection.execute(render.forbid_login(name))
            if await _role_exists(connection, channel_role):
                await connection.execute(render.revoke_role(channel_role, name))
            await connection.execute(sql.query("retire_login"), name)
            return
    await connection.execute(sql.query("delete_login"), name)


async def _drop_role(connection: asyncpg.Connection, name: str) -> bool:
    """Drops a role with what a client may have created as it, temporary tables or large objects.

    False when it owns something in another database of the server: any login may create large objects wherever it may
    connect.
    """
    await _become_member(connection, name)
    await connection.execute(render.drop_owned(name))
    try:
        async with connection.transaction():
            await connection.execute(render.drop_role(name))
    except asyncpg.DependentObjectsStillExistError:
        return False
    return True


async def _become_member(connection: asyncpg.Connection, name: str) -> None:
    """Only members of a role may end its sessions and drop what it owns; a superuser is one of every role."""
    if not await connection.fetchval("SELECT pg_has_role(current_user, to_regrole($1)::oid, 'USAGE')", name):
        await connection.execute(render.grant_role_to_self(name))


async def _role_exists(connection: asyncpg.Connection, name: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", name))


async def _as_owner_fetch(connection: asyncpg.Connection, query: str, argument: str) -> None:
    await connection.execute(render.set_local_role(naming.OWNER_ROLE))
    await connection.execute(sql.query(query), argument)
    await connection.execute("RESET ROLE")


async def apply_deletion(connection: asyncpg.Connection, action: DeletionAction | None) -> None:
    """Releases or drops a channel."""
    if action is None:
        return
    channel = action.channel
    async with connection.transaction():
        for login in channel.logins:
            await _drop_login(connection, channel.role, login.role)
        if isinstance(action, DropChannel):
            await _as_owner_fetch(connection, "drop_queue", channel.queue)
            await connection.execute(sql.query("delete_channel"), channel.id)
            if await _role_exists(connection, channel.role):
                await connection.execute(render.revoke_role(naming.CLIENT_ROLE, channel.role))
                await _drop_role(connection, channel.role)
        else:
            await connection.execute(sql.query("release_channel"), channel.id)
