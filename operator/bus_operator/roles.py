"""Roles on the server: acting as the owner role, the logins of channels, and getting rid of either."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from bus_operator import credentials, naming, render, sql
from bus_operator.actions import IssueCredential
from bus_operator.errors import TransientError

ROLE_LOCK_TIMEOUT = 1
"""Seconds to wait for whoever names a role in a transaction that is under way."""

_HELD = (asyncpg.DependentObjectsStillExistError, asyncpg.LockNotAvailableError)
"""What keeps a role from being dropped, and not from being made worthless."""


@dataclass(frozen=True)
class IssuedCredential:
    """A login that was just created. The only place of its password besides the binding; kept out of `repr`."""

    username: str
    password: str = field(repr=False)
    generation: int


def overtaken(what: str) -> TransientError:
    """The error of a plan that no longer fits."""
    return TransientError(f"{what} was created, changed or dropped by another reconciler meanwhile", reason="Conflict")


async def execute(connection: asyncpg.Connection, statements: Iterable[str]) -> None:
    """Runs statements one after the other."""
    for statement in statements:
        await connection.execute(statement)


@asynccontextmanager
async def as_owner(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Acts as the owner role, so that what is created is its own, then as the administrator again.

    Within a transaction, whose end does the same after a failure.
    """
    await connection.execute(render.set_local_role(naming.OWNER_ROLE))
    yield
    await connection.execute("RESET ROLE")


async def issue(
    connection: asyncpg.Connection, role: str, channel_id: int, action: IssueCredential
) -> IssuedCredential:
    """Creates the login of a credential generation with a new password, or gives a new one to what nobody was given."""
    username = naming.login_name(role, action.generation)
    password = credentials.new_password()
    verifier = credentials.scram_verifier(password)
    if not action.again:
        try:
            await connection.execute(render.create_group_role(username))
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError) as exc:
            raise overtaken(f"login {username}") from exc
    await connection.execute(render.login_attributes(username, verifier, action.connection_limit))
    for statement in render.login_settings(username):
        await connection.execute(statement)
    await connection.execute(render.grant_role(role, username))
    await connection.execute(
        sql.query("insert_login"), username, channel_id, action.generation, verifier, action.request
    )
    return IssuedCredential(username, password, action.generation)


async def drop_login(connection: asyncpg.Connection, channel_role: str, name: str) -> None:
    """Ends a login's sessions and drops it; where that is impossible it stays as a name that can do nothing."""
    if await role_exists(connection, name):
        await become_member(connection, name)
        await connection.execute(sql.query("terminate_sessions"), name)
        if not await drop_role(connection, name):
            # It stays registered, so that no later generation takes the name.
            await connection.execute(render.forbid_login(name))
            if await role_exists(connection, channel_role):
                await connection.execute(render.revoke_role(channel_role, name))
            await connection.execute(sql.query("retire_login"), name)
            return
    await connection.execute(sql.query("delete_login"), name)


async def drop_role(connection: asyncpg.Connection, name: str) -> bool:
    """Drops a role with what a client may have created as it, temporary tables or large objects.

    False, and nothing done, when it owns something in another database of the server, where any login may create large
    objects; when another client has granted it something of its own, which nobody else can take back; and while one
    keeps a transaction open in which it did that, which locks the role.
    """
    await become_member(connection, name)
    patience = await connection.fetchval("SELECT current_setting('lock_timeout')")
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{ROLE_LOCK_TIMEOUT}s'")
            await connection.execute(render.drop_owned(name))
            await connection.execute(render.drop_role(name))
            await connection.execute(f"SET LOCAL lock_timeout = '{patience}'")
    except _HELD:
        return False
    return True


async def become_member(connection: asyncpg.Connection, name: str) -> None:
    """Only members of a role may end its sessions and drop what it owns; a superuser is one of every role."""
    if not await connection.fetchval("SELECT pg_has_role(current_user, to_regrole($1)::oid, 'USAGE')", name):
        await connection.execute(render.grant_role_to_self(name))


async def end_intruders(connection: asyncpg.Connection, queue: str, channel_role: str) -> None:
    """Ends sessions of other channels' logins that keep a channel's log locked, before it is needed for oneself.

    They have no right to it. But PostgreSQL locks a sequence before it looks whether somebody may use it, and asks for
    no right where somebody wants to know a table's columns; and it keeps the lock to the end of his transaction.
    """
    for pid, login in await connection.fetch(sql.query("intruders"), queue, channel_role):
        attempt = connection.transaction()
        await attempt.start()
        with suppress(asyncpg.InsufficientPrivilegeError):  # another administrator's
            await become_member(connection, login)
            await connection.execute(sql.query("terminate_session"), pid)
        # The session is gone all the same; the membership served its purpose.
        await attempt.rollback()


async def role_exists(connection: asyncpg.Connection, name: str) -> bool:
    """Whether the server has the role."""
    return bool(await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", name))
