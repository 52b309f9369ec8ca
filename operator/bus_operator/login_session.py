"""Sessions of channels' logins, opened as pods open theirs, to see what a credential is good for."""

import asyncpg

from bus_operator.database import Endpoint
from bus_operator.roles import IssuedCredential

REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
)
"""The server does not take the credential."""

# InternalClientError is raised by a session that was idle when the server ended it, and has not noticed yet.
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Whatever else may become of a session; refusals are among them."""


async def log_in(
    credential: IssuedCredential,
    endpoint: Endpoint,
    *,
    application: str,
    connect_timeout: float,
    command_timeout: float,
) -> asyncpg.Connection:
    """A session that the caller ends.

    Args:
        credential: What was issued.
        endpoint: Where to log in.
        application: What the server calls the session.
        connect_timeout: Seconds.
        command_timeout: Seconds that a statement may take.

    Raises one of REFUSALS or FAILURES: what they mean depends on who tries.
    """
    return await asyncpg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=credential.username,
        password=credential.password,
        database=endpoint.database,
        ssl=endpoint.tls,
        timeout=connect_timeout,
        command_timeout=command_timeout,
        # A pooler in transaction mode has no place for prepared statements.
        statement_cache_size=0,
        server_settings={"application_name": application},
    )
