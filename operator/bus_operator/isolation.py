"""Proves that a channel's login can do what it should, and nothing else: by logging in as it and trying.

Drift compares what the catalog says; this tries what it means. All attempts are made in one transaction that is rolled
back, in a session of a fraction of a second, which counts into the database's bounded sessions; the login's connection
limit has room for it.
"""

import json

import asyncpg

from bus_operator import probes, sql
from bus_operator.database import APPLICATION_NAME, Endpoint
from bus_operator.login_session import FAILURES, REFUSALS, log_in
from bus_operator.probes import Subject, Verdict
from bus_operator.roles import IssuedCredential

CONNECT_TIMEOUT = 5.0
CALL_TIMEOUT = 20.0
"""Seconds. What takes longer shows nothing, and is tried again later."""


async def find_subject(connection: asyncpg.Connection, channel: str) -> Subject | None:
    """Whom the login's attempts are aimed at. Uses an administrator's session; None where there is no such channel."""
    row = await connection.fetchrow(sql.query("probe_subject"), channel)
    return Subject(channel=channel, **dict(row)) if row is not None else None


async def verify(endpoint: Endpoint, credential: IssuedCredential, subject: Subject) -> Verdict:
    """Logs in and tries. Never raises for what the server says: it is part of the verdict."""
    try:
        connection = await log_in(
            credential,
            endpoint,
            application=APPLICATION_NAME,
            connect_timeout=CONNECT_TIMEOUT,
            command_timeout=CALL_TIMEOUT,
        )
    except REFUSALS as exc:
        return Verdict(broken=f"its login is refused: {exc}")
    except FAILURES as exc:
        return Verdict(unclear=f"it could not log in: {exc or type(exc).__name__}")
    try:
        return await _try(connection, subject, credential.username)
    except FAILURES as exc:
        return Verdict(unclear=f"the attempts were interrupted: {exc or type(exc).__name__}")
    finally:
        connection.terminate()


async def _try(connection: asyncpg.Connection, subject: Subject, login: str) -> Verdict:
    attempts = probes.attempts(subject, login)
    allowed = probes.allowed(subject, login)
    statements = [probe.statement for probe in attempts] + ([allowed] if allowed is not None else [])
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval("select pg_catalog.set_config('pgmq_bus.probes', $1, true)", json.dumps(statements))
    await connection.execute(sql.run_probes())
    answers = json.loads(await connection.fetchval("select pg_catalog.current_setting('pgmq_bus.probes')"))
    await transaction.rollback()
    results = [(state, message) for state, message in answers]
    return probes.judge(attempts, results[: len(attempts)], results[-1] if allowed is not None else None)
