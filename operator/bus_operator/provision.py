"""Observe, plan, apply for one database and one channel: what the operator and `busctl` have in common."""

from dataclasses import dataclass

import asyncpg

from bus_operator import apply, catalog, drift_repair, installation, plan, sql
from bus_operator.actions import ChannelAction, DeletionAction, DesiredChannel, InstallAction
from bus_operator.catalog import ChannelCounts, ObservedDatabase
from bus_operator.drift import DriftReport
from bus_operator.model import Uid
from bus_operator.roles import IssuedCredential, overtaken

_INSTALLATION_ROUNDS = 2
"""A second one is needed where only the first lets this administrator read the registry."""


async def install(connection: asyncpg.Connection) -> tuple[ObservedDatabase, list[InstallAction]]:
    """Brings the schema of a database up to date. Returns the database as it then is, and what was done."""
    done: list[InstallAction] = []
    for _ in range(_INSTALLATION_ROUNDS):
        observed = await catalog.observe_database(connection)
        actions = plan.plan_installation(observed, sql.schema_version(), installation.functions_digest())
        if not actions:
            break
        await installation.apply_installation(connection, actions)
        done += actions
    else:
        observed = await catalog.observe_database(connection)
    return observed, done


async def keep(connection: asyncpg.Connection) -> tuple[ObservedDatabase, list[InstallAction], DriftReport]:
    """Brings a database up to date, and puts right what was changed in it by hand. Returns also what that was."""
    found = await drift_repair.look(connection)
    await drift_repair.repair(connection, found)
    observed, done = await install(connection)
    return observed, done, await drift_repair.report(connection, found)


@dataclass(frozen=True)
class ProvisionedChannel:
    """A channel that is as its manifest wants it."""

    generation: int | None
    """The credential generation that the binding holds; None when no binding was wanted."""
    issued: IssuedCredential | None
    counts: ChannelCounts
    actions: tuple[ChannelAction, ...]


async def provision(
    connection: asyncpg.Connection,
    desired: DesiredChannel,
    held: plan.HeldCredential | None,
    yielding: frozenset[Uid] = frozenset(),
    *,
    binding_wanted: bool = True,
) -> ProvisionedChannel:
    """Makes a channel as desired. A credential that is issued must be written to the binding by the caller."""
    observed = await catalog.observe_channel(connection, desired.name)
    actions = plan.plan_channel(
        desired,
        observed,
        held,
        yielding,
        functions_digest=apply.channel_functions_digest(),
        binding_wanted=binding_wanted,
    )
    issued = await apply.apply_channel(connection, observed, actions)
    if actions:
        observed = await catalog.observe_channel(connection, desired.name)
    if observed is None:
        raise overtaken(f"channel {desired.name!r}")
    username = issued.username if issued else held.username if held else None
    generation = next((login.generation for login in observed.logins if login.role == username), None)
    return ProvisionedChannel(generation, issued, await catalog.count_channel(connection, observed.id), tuple(actions))


async def deprovision(connection: asyncpg.Connection, name: str, uid: Uid, policy: str) -> DeletionAction | None:
    """Does what a deleted BusChannel's policy says. Returns what was done; None when the channel is not its own."""
    observed = await catalog.observe_channel(connection, name)
    counts = await catalog.count_channel(connection, observed.id) if observed and observed.log_exists else None
    action = plan.plan_deletion(policy, uid, observed, counts)
    await apply.apply_deletion(connection, action)
    return action
