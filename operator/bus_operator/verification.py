"""Whether a credential works, found out by logging in with it as pods will."""

from contextlib import suppress

import asyncpg

from bus_operator.database import CONNECT_TIMEOUT, Endpoint, translate
from bus_operator.errors import TransientError
from bus_operator.login_session import FAILURES, REFUSALS, log_in
from bus_operator.roles import IssuedCredential

APPLICATION_NAME = "pgmq-bus-operator verifying"

CLIENT_TIMEOUT = 3.0
"""Seconds for the address that pods use, which may well be out of the operator's reach."""


async def verify(credential: IssuedCredential, server: Endpoint, clients: Endpoint) -> str:
    """Logs in with a credential, at the server and where pods connect.

    Args:
        credential: What was issued.
        server: The database as the operator reaches it.
        clients: The database as pods reach it.

    Returns:
        Where it was verified, for a message.

    Raises:
        TransientError: VerificationFailed: it does not work; the message says where and what to do.
        BusError: The server cannot be reached.
    """
    with translate(str(server)):
        try:
            await _try(credential, server, CONNECT_TIMEOUT)
        except REFUSALS as exc:
            raise _failed(credential, server, exc, "look at the server's pg_hba.conf and its log") from exc
    if clients == server:
        return f"verified at {server}"
    try:
        await _try(credential, clients, CLIENT_TIMEOUT)
    except REFUSALS as exc:
        remedy = "a pooler must take logins from the server (PgBouncer: auth_query), not from a list"
        raise _failed(credential, clients, exc, remedy) from exc
    except FAILURES:
        return f"verified at {server}; {clients}, where pods connect, is not reached from here"
    return f"verified at {clients}"


async def _try(credential: IssuedCredential, endpoint: Endpoint, seconds: float) -> None:
    connection = await log_in(
        credential, endpoint, application=APPLICATION_NAME, connect_timeout=seconds, command_timeout=seconds
    )
    try:
        # The server's own answer whether it is a member of what may call the functions.
        if not await connection.fetchval("SELECT has_schema_privilege('pgmq_bus_v1', 'USAGE')"):
            raise asyncpg.InsufficientPrivilegeError(f"{credential.username} may not use the bus")
    finally:
        with suppress(*FAILURES):
            await connection.close(timeout=seconds)


def _failed(credential: IssuedCredential, endpoint: Endpoint, error: Exception, remedy: str) -> TransientError:
    return TransientError(
        f"credential generation {credential.generation} does not work at {endpoint}, so the binding is left as it is:"
        f" {' '.join(str(error).split()) or 'no answer'}; {remedy}",
        reason="VerificationFailed",
    )
