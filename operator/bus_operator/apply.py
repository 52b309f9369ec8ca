"""Performs what was planned for a channel. Each plan runs in one transaction: it is there as a whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from bus_operator import catalog, naming, render, sql
from bus_operator.actions import (
    ChannelAction,
    CreateChannel,
    DeletionAction,
    DesiredChannel,
    DropChannel,
    DropLogin,
    InstallChannelFunctions,
    IssueCredential,
    PublishLogin,
    RecreateLog,
    RepairRole,
    SetAside,
    SetLogPersistence,
    UpdateChannel,
    UpdateLogin,
    WarnOfLogin,
)
from bus_operator.catalog import ObservedChannel
from bus_operator.errors import TransientError
from bus_operator.plan import stored_fingerprint
from bus_operator.roles import (
    IssuedCredential,
    as_owner,
    drop_login,
    drop_role,
    end_intruders,
    execute,
    issue,
    overtaken,
    role_exists,
)

LOCK_TIMEOUT = 3
"""Seconds to wait for those who use a channel or its log; publishers wait meanwhile. A long poll lasts one."""

REWRITE_TIMEOUT = 600.0
"""Seconds that rewriting a log may take."""


@dataclass(frozen=True)
class _Target:
    """The channel that a plan is about."""

    id: int
    queue: str
    role: str
    owner_uid: str | None


async def apply_channel(
    connection: asyncpg.Connection, observed: ObservedChannel | None, actions: Sequence[ChannelAction]
) -> IssuedCredential | None:
    """Performs a channel's plan. Returns the credential that was issued, if one was.

    Raises:
        TransientError: When another reconciler was faster, or a member holds the channel; observing and planning again
            helps.
    """
    if not actions:
        return None
    try:
        async with connection.transaction():
            return await _perform(connection, observed, actions)
    except asyncpg.LockNotAvailableError as exc:
        raise TransientError(
            f"the channel is in use by a member that keeps a transaction open: could not {actions[0]}",
            reason="ChannelBusy",
        ) from exc


async def _perform(
    connection: asyncpg.Connection, observed: ObservedChannel | None, actions: Sequence[ChannelAction]
) -> IssuedCredential | None:
    issued = None
    target = _Target(observed.id, observed.queue, observed.role, observed.owner_uid) if observed else None
    for action in actions:
        if isinstance(action, CreateChannel):
            target = await _create_channel(connection, action.desired)
        elif isinstance(action, SetAside):
            await _set_aside(connection, action.channel)
        elif target is None:
            raise ValueError(f"{action}: there is no channel")
        elif isinstance(action, IssueCredential):
            issued = await issue(connection, target.role, target.id, action)
        else:
            await _change(connection, target, action)
    if observed is not None and any(_revokes(action, observed) for action in actions):
        await _rotate_secrets(connection, observed.id)
    if target is not None and any(isinstance(action, CreateChannel) for action in actions):
        # The last step: until the commit, the server lets nobody else grant that role, in none of its databases.
        await connection.execute(render.grant_role(naming.CLIENT_ROLE, target.role))
    return issued


def _revokes(action: ChannelAction, observed: ObservedChannel) -> bool:
    """Whether somebody who heard the channel must not any more: a login ends, or the channel gets another owner."""
    match action:
        case DropLogin() | SetAside():
            return True
        case UpdateChannel(desired):
            return desired.owner_uid != observed.owner_uid
        case _:
            return False


async def _rotate_secrets(connection: asyncpg.Connection, channel_id: int) -> None:
    """Changes what wakes peers: who was just dropped must not hear the channel any more.

    The last step: publishers wait from here to the commit.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
    await connection.execute(sql.query("rotate_channel_secrets"), channel_id)


async def _change(connection: asyncpg.Connection, target: _Target, action: ChannelAction) -> None:
    match action:
        case UpdateChannel(desired):
            await _update_channel(connection, target, desired)
        case RepairRole(name, create=True):
            await connection.execute(render.create_group_role(name))
            await connection.execute(render.grant_role(naming.CLIENT_ROLE, name))
        case RepairRole(name, create=False):
            await connection.execute(render.grant_role(naming.CLIENT_ROLE, name))
        case RecreateLog(queue, unlogged):
            async with as_owner(connection):
                await create_queue(connection, queue, unlogged=unlogged)
                await connection.execute(sql.query("resume_log"), queue)
        case SetLogPersistence(queue, unlogged):
            await end_intruders(connection, queue, target.role)
            await _set_log_persistence(connection, target.id, queue, unlogged)
        case InstallChannelFunctions(_, in_place):
            await _install_functions(connection, target, in_place=in_place)
        case UpdateLogin(name, verifier, connection_limit):
            await connection.execute(render.login_attributes(name, verifier, connection_limit))
        case PublishLogin(name):
            await connection.execute(sql.query("publish_login"), name)
        case WarnOfLogin(name):
            await connection.execute(sql.query("warn_of_login"), name)
        case DropLogin(name):
            await drop_login(connection, target.role, name)


async def _create_channel(connection: asyncpg.Connection, desired: DesiredChannel) -> _Target:
    names = naming.new_channel_names()
    await connection.execute(render.create_group_role(names.role))
    async with as_owner(connection):
        await create_queue(connection, names.queue, unlogged=desired.unlogged)
    try:
        channel_id = await connection.fetchval(
            sql.query("insert_channel"), desired.name, names.queue, names.role, *_settings(desired)
        )
    except asyncpg.UniqueViolationError as exc:
        raise overtaken(f"channel {desired.name!r}") from exc
    target = _Target(int(channel_id), names.queue, names.role, desired.owner_uid)
    await _install_functions(connection, target, in_place=False)
    return target


async def _set_aside(connection: asyncpg.Connection, channel: ObservedChannel) -> None:
    for login in channel.logins:
        await drop_login(connection, channel.role, login.role)
    # No BusChannel can ask for such a name.
    name = f"{channel.name[:150]}~{channel.id}"
    if await connection.fetchval(sql.query("set_aside"), channel.id, channel.owner_uid, name) is None:
        raise overtaken(f"channel {channel.name!r}")


async def create_queue(connection: asyncpg.Connection, queue: str, *, unlogged: bool) -> None:
    """Makes what there is not of a queue. As the owner."""
    await connection.execute(sql.query("create_queue"), queue, unlogged)
    if unlogged:
        await connection.execute(render.log_the_sequence(queue))


async def _update_channel(connection: asyncpg.Connection, target: _Target, desired: DesiredChannel) -> None:
    query = sql.query("update_channel")
    if await connection.fetchval(query, target.id, target.owner_uid, *_settings(desired)) is None:
        raise overtaken(f"channel {desired.name!r}")


def _settings(desired: DesiredChannel) -> tuple[object, ...]:
    """What the registry's row says of a channel, in the order of both queries that write it."""
    return (
        desired.owner_uid,
        desired.owner_reference,
        desired.durability,
        desired.self_delivery,
        desired.max_peers,
        desired.max_message_bytes,
        desired.max_connections,
        desired.peer_timeout,
        desired.max_age,
        desired.max_messages,
        desired.max_bytes,
    )


async def _set_log_persistence(connection: asyncpg.Connection, channel_id: int, queue: str, unlogged: bool) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
    async with as_owner(connection):
        # First: whoever publishes holds this lock and then uses the log.
        await connection.execute(sql.query("lock_channel"), channel_id)
        for statement in render.set_log_persistence(queue, unlogged=unlogged):
            await connection.execute(statement, timeout=REWRITE_TIMEOUT)
        await connection.execute(sql.query("record_persistence"), queue, unlogged)


async def _install_functions(connection: asyncpg.Connection, target: _Target, *, in_place: bool) -> None:
    if not in_place or not await _replace_functions(connection, target):
        await _drop_functions(connection, target.queue)
        await _create_functions(connection, target)
    actual = await catalog.channel_functions_fingerprint(connection, target.id, target.queue)
    fingerprint = stored_fingerprint(sql.channel_functions_digest(), actual)
    await connection.execute(sql.query("record_channel_functions"), target.id, fingerprint)


async def _replace_functions(connection: asyncpg.Connection, target: _Target) -> bool:
    """False, and nothing done, where another interface needs that they are dropped first.

    Dropping is noticed: whoever is in a function that was dropped gets an error when it returns.
    """
    try:
        async with connection.transaction():
            await _create_functions(connection, target)
    except (asyncpg.InvalidFunctionDefinitionError, asyncpg.AmbiguousFunctionError):
        # Another result or other names of arguments; other types of arguments, and the older function is still there.
        return False
    return True


async def _create_functions(connection: asyncpg.Connection, target: _Target) -> None:
    statements = render.create_channel_functions(
        sql.channel_functions(), queue=target.queue, role=target.role, channel_id=target.id
    )
    async with as_owner(connection):
        await execute(connection, statements)


async def _drop_functions(connection: asyncpg.Connection, queue: str) -> None:
    statements = await connection.fetch(sql.query("drop_channel_functions"), naming.channel_functions(queue))
    await execute(connection, (row[0] for row in statements))


async def apply_deletion(connection: asyncpg.Connection, action: DeletionAction | None) -> None:
    """Releases or drops a channel."""
    if action is None:
        return
    channel = action.channel
    async with connection.transaction():
        for login in channel.logins:
            await drop_login(connection, channel.role, login.role)
        if isinstance(action, DropChannel):
            await _drop_functions(connection, channel.queue)
            await end_intruders(connection, channel.queue, channel.role)
            async with as_owner(connection):
                # Not by pgmq.drop_queue, which waits for an advisory lock made of the queue's name:
                # any login of the database can hold that.
                await connection.execute(render.drop_log(channel.queue))
                await connection.execute(sql.query("forget_queue"), channel.queue)
            await connection.execute(sql.query("delete_channel"), channel.id)
            if await role_exists(connection, channel.role):
                await connection.execute(render.revoke_role(naming.CLIENT_ROLE, channel.role))
                await drop_role(connection, channel.role)
        else:
            await connection.execute(sql.query("release_channel"), channel.id)
