"""Who still uses the logins before the current one: the evidence on which they are retired."""

from dataclasses import replace

import asyncpg

from bus_operator import sql
from bus_operator.catalog import LoginUser, ObservedChannel
from bus_operator.peer_view import SILENT_FRACTION
from bus_operator.plan_credentials import RotationRules, retiring_logins
from bus_operator.roles import become_member


async def look(connection: asyncpg.Connection, observed: ObservedChannel, rules: RotationRules) -> ObservedChannel:
    """The channel with what is seen of its retiring logins' users; notes since when there were none.

    Asks nothing where no login is retiring, which is the rule.
    """
    retiring = {item.login.role for item in retiring_logins(observed, rules) if item.login.role_exists}
    if not retiring:
        return observed
    for role in sorted(retiring):
        # Only members of a role see where its sessions come from.
        await become_member(connection, role)
    users: dict[str, list[LoginUser]] = {}
    for row in await connection.fetch(sql.query("observe_use"), observed.id, sorted(retiring), SILENT_FRACTION):
        users.setdefault(row["login"], []).append(LoginUser(row["host"], row["application"], row["address"]))
    await connection.execute(sql.query("note_use"), sorted(retiring), sorted(users))
    return replace(
        observed,
        logins=tuple(
            replace(
                login,
                users=tuple(users.get(login.role, ())),
                unused_since=None if login.role in users else login.unused_since or observed.observed_at,
            )
            if login.role in retiring
            else login
            for login in observed.logins
        ),
    )
