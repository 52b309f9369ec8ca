"""Observe, plan, apply for one database and one channel: what the operator and `busctl` have in common."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg

from bus_operator import apply, catalog, drift_look, drift_repair, installation, plan, sql, usage
from bus_operator.actions import (
    ChannelAction,
    DeletionAction,
    DesiredChannel,
    DropLogin,
    InstallAction,
    InstallChannelFunctions,
    InstallFunctions,
    IssueCredential,
    RecreateLog,
    RepairRole,
)
from bus_operator.catalog import ChannelCounts, ObservedChannel, ObservedDatabase
from bus_operator.drift import Difference, DriftReport, Repair
from bus_operator.errors import TransientError
from bus_operator.model import Uid
from bus_operator.plan_credentials import MAX_LOGINS, HeldCredential, RotationRules, is_contested
from bus_operator.roles import IssuedCredential, overtaken

_BY_CHANNEL = (Repair.CHANNEL_FUNCTIONS, Repair.ROLE, Repair.LOG, Repair.CREDENTIAL)
"""What a channel's own plan puts right; the rest is left to the look at its database."""

_INSTALLATION_ROUNDS = 2
"""A second one is needed where only the first lets this administrator read the registry."""


async def install(
    connection: asyncpg.Connection, drift: list[Difference] | None = None
) -> tuple[ObservedDatabase, list[InstallAction]]:
    """Brings the schema of a database up to date.

    Args:
        connection: An administrator's session.
        drift: What was found to be changed by hand. If nothing of that explains why the shared functions are to be made
            anew, it is looked for before they are, and what is found is put right and added.

    Returns:
        The database as it then is, and what was done.
    """
    done: list[InstallAction] = []
    for _ in range(_INSTALLATION_ROUNDS):
        observed = await catalog.observe_database(connection)
        actions = plan.plan_installation(observed, sql.schema_version(), sql.functions_digest())
        if not actions:
            break
        anew = any(isinstance(action, InstallFunctions) and not action.in_place for action in actions)
        if anew and drift is not None and all(item.channel is not None for item in drift):
            found = await drift_look.look(connection, fingerprint=True)
            await drift_repair.repair(connection, found)
            drift += [item for item in found if item not in drift]
        await installation.apply_installation(connection, actions)
        done += actions
    else:
        observed = await catalog.observe_database(connection)
    return observed, done


async def keep(connection: asyncpg.Connection) -> tuple[ObservedDatabase, list[InstallAction], DriftReport]:
    """Brings a database up to date, and puts right what was changed in it by hand. Returns also what that was."""
    found = await drift_look.look(connection)
    await drift_repair.repair(connection, found)
    observed, done = await install(connection, found)
    return observed, done, await drift_repair.report(connection, found)


Deliver = Callable[[IssuedCredential], Awaitable[None]]
"""Verifies a credential, and puts it where pods find it."""


@dataclass(frozen=True)
class ProvisionedChannel:
    """A channel that is as its manifest wants it."""

    generation: int | None
    """The credential generation that the binding holds; None when no binding was wanted, or none could be had."""
    issued: IssuedCredential | None
    counts: ChannelCounts
    actions: tuple[ChannelAction, ...]
    before: ObservedChannel | None
    """What was there, with who used the logins of before."""
    channel: ObservedChannel
    drift: tuple[Difference, ...] = ()
    """What the actions have put right, where somebody had changed something by hand."""
    refusal: TransientError | None = None
    """Why there is no credential for the binding, if there is none. All the rest is as it should be."""


async def provision(
    connection: asyncpg.Connection,
    desired: DesiredChannel,
    held: HeldCredential | None,
    yielding: frozenset[Uid] = frozenset(),
    *,
    rotation: RotationRules | None = None,
    binding_wanted: bool = True,
    deliver: Deliver | None = None,
) -> ProvisionedChannel:
    """Makes a channel as desired.

    Args:
        connection: An administrator's session.
        desired: What the manifest wants.
        held: What the binding holds.
        yielding: Owners that give way; see `plan_channel`.
        rotation: When to replace credentials; default: when the binding holds none that is valid.
        binding_wanted: False leaves the credentials as they are.
        deliver: Called with a credential that was issued. If it fails, the one before stays the channel's, and the
            next call issues this generation again. Without it, the caller delivers what is returned.
    """
    rotation = rotation or RotationRules()
    before = await catalog.observe_channel(connection, desired.name)
    if before is not None and before.owner_uid == desired.owner_uid and binding_wanted:
        before = await usage.look(connection, before, rotation)
    actions = plan.plan_channel(
        desired,
        before,
        held,
        yielding,
        functions_digest=sql.channel_functions_digest(),
        rotation=rotation,
        binding_wanted=binding_wanted,
    )
    drift = await _drift(connection, before, actions) if before is not None else ()
    issued = await apply.apply_channel(connection, before, actions)
    if issued is not None:
        if deliver is not None:
            await deliver(issued)
        await connection.execute(sql.query("publish_login"), issued.username)
    observed = await catalog.observe_channel(connection, desired.name) if actions else before
    if observed is None:
        raise overtaken(f"channel {desired.name!r}")
    counts = await catalog.count_channel(connection, observed.id)
    refusal = _refusal(before, held, rotation) if issued is None and binding_wanted else None
    generation = _generation(observed, issued or held) if refusal is None else None
    return ProvisionedChannel(generation, issued, counts, tuple(actions), before, observed, drift, refusal)


def _refusal(
    before: ObservedChannel | None, held: HeldCredential | None, rotation: RotationRules
) -> TransientError | None:
    if before is None or not is_contested(before, held, rotation):
        return None
    return TransientError(
        f"the binding was lost or changed {MAX_LOGINS} times in a row: another is made when the logins of before are no"
        " longer used. Find out who else writes the Secret",
        reason="SecretContested",
    )


async def _drift(
    connection: asyncpg.Connection, observed: ObservedChannel, actions: Sequence[ChannelAction]
) -> tuple[Difference, ...]:
    """What a plan is about to put right: looked at only where there is such an action."""
    functions = any(isinstance(action, InstallChannelFunctions) and not action.in_place for action in actions)
    if not functions and not any(isinstance(action, RepairRole | RecreateLog | IssueCredential) for action in actions):
        return ()
    found = await drift_look.look(connection, observed.id)
    own = tuple(item for item in found if item.repair in _BY_CHANNEL)
    if functions and not found:
        return (*own, Difference("its functions in pgmq_bus_channel", "were changed", Repair.CHANNEL_FUNCTIONS))
    return own


def confirmed(
    observed: ObservedChannel,
    counts: ChannelCounts,
    desired: DesiredChannel,
    held: HeldCredential | None,
    yielding: frozenset[Uid] = frozenset(),
    *,
    rotation: RotationRules | None = None,
    binding_wanted: bool = True,
) -> ProvisionedChannel | None:
    """The channel, if what was observed is as desired; None when there is something to do, which `provision` does."""
    if sum(not login.is_retired for login in observed.logins) > 1:
        # Who uses those that were replaced has to be looked up.
        return None
    actions = plan.plan_channel(
        desired,
        observed,
        held,
        yielding,
        functions_digest=sql.channel_functions_digest(),
        rotation=rotation or RotationRules(),
        binding_wanted=binding_wanted,
    )
    if actions:
        return None
    return ProvisionedChannel(_generation(observed, held), None, counts, (), observed, observed)


def _generation(observed: ObservedChannel, credential: IssuedCredential | HeldCredential | None) -> int | None:
    username = credential.username if credential else None
    return next((login.generation for login in observed.logins if login.role == username), None)


async def deprovision(connection: asyncpg.Connection, name: str, uid: Uid, policy: str) -> DeletionAction | None:
    """Does what a deleted BusChannel's policy says. Returns what was done; None when the channel is not its own."""
    observed = await catalog.observe_channel(connection, name)
    counts = await catalog.count_channel(connection, observed.id) if observed and observed.log_exists else None
    action = plan.plan_deletion(policy, uid, observed, counts)
    await apply.apply_deletion(connection, action)
    return action


async def withdraw(connection: asyncpg.Connection, name: str, uid: Uid) -> list[DropLogin]:
    """Drops all logins of a channel, if it is this BusChannel's own. Returns what was done."""
    observed = await catalog.observe_channel(connection, name)
    actions = plan.plan_withdrawal(uid, observed)
    await apply.apply_channel(connection, observed, actions)
    return actions
