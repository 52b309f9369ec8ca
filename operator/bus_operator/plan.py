"""What to do, from what is wanted and what is there. Pure: no I/O, no clock, no randomness."""

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
    InstallChannelFunctions,
    InstallFunctions,
    InstallPgmq,
    InstallSchema,
    IssueCredential,
    MigrateSchema,
    RecreateLog,
    ReleaseChannel,
    RepairRole,
    SetAside,
    SetLogPersistence,
    UpdateChannel,
)
from bus_operator.catalog import ChannelCounts, ObservedChannel, ObservedDatabase
from bus_operator.errors import ChannelConflictError
from bus_operator.model import Uid
from bus_operator.naming import CLIENT_ROLE, OWNER_ROLE
from bus_operator.obstacles import obstacles
from bus_operator.plan_credentials import HeldCredential, RotationRules, plan_credentials


def plan_installation(observed: ObservedDatabase, schema_version: int, functions_digest: str) -> list[InstallAction]:
    """The steps that make the schema current; none when it is.

    Args:
        observed: The database as it is.
        schema_version: The version this operator ships.
        functions_digest: Digest of the function texts this operator ships; part of the stored fingerprint.

    Raises:
        SpecError: When the server cannot be used as it is; the message says what to change.
    """
    for obstacle in obstacles(observed, schema_version):
        raise obstacle
    if observed.schema_installed and not observed.owns_as_owner_role:
        # Another administrator installed it: what the registry says can be read, and the rest planned, only after this.
        return [GrantOwnerToSelf()]
    actions: list[InstallAction] = []
    if not observed.owner_role_exists:
        actions.append(CreateGroupRole(OWNER_ROLE))
    if not observed.client_role_exists:
        actions.append(CreateGroupRole(CLIENT_ROLE))
    if not observed.is_superuser and not observed.owns_as_owner_role:
        actions.append(GrantOwnerToSelf())
    if not observed.pgmq_installed:
        actions.append(InstallPgmq(extension=observed.pgmq_available_version is not None))
    if not observed.client_may_connect:
        actions.append(GrantConnect())
    if observed.schema_version is None:
        actions.append(InstallSchema(schema_version))
    elif observed.schema_version < schema_version:
        actions.append(MigrateSchema(observed.schema_version, schema_version))
    expected = stored_fingerprint(functions_digest, observed.actual_fingerprint or "")
    if observed.schema_version != schema_version or observed.installed_fingerprint != expected:
        untouched = was_installed(observed.installed_fingerprint, observed.actual_fingerprint or "")
        actions.append(InstallFunctions(schema_version, in_place=untouched))
    return actions


def stored_fingerprint(functions_digest: str, actual: str) -> str:
    """What is recorded at installation: the texts that were shipped and what the server then held.

    It differs when the operator ships other functions, and when somebody changed the installed ones.
    """
    return f"{functions_digest}:{actual}"


def was_installed(stored: str | None, actual: str) -> bool:
    """Whether the server holds what was recorded at the installation, whatever this operator ships."""
    return stored is not None and stored.endswith(f":{actual}")


def plan_channel(
    desired: DesiredChannel,
    observed: ObservedChannel | None,
    held: HeldCredential | None,
    yielding: frozenset[Uid] = frozenset(),
    *,
    functions_digest: str,
    rotation: RotationRules,
    binding_wanted: bool = True,
) -> list[ChannelAction]:
    """The steps that make the channel as desired and its binding valid; none when they are.

    Args:
        desired: What the manifest wants.
        observed: What is there.
        held: What the binding holds.
        yielding: Owners that give way: younger BusChannels that claimed the same wire name. Their messages stay theirs.
        functions_digest: Digest of the templates of a channel's functions that this operator ships.
        rotation: When the credentials are replaced.
        binding_wanted: False leaves the credentials as they are.

    Raises:
        ChannelConflictError: When the wire name belongs to another BusChannel.
    """
    credential = [IssueCredential(1, desired.login_connections, rotation.request)] if binding_wanted else []
    if observed is None:
        return [CreateChannel(desired), *credential]
    owned = observed.owner_uid == desired.owner_uid
    # The same reference under another UID: the BusChannel was deleted, its channel retained, and it was made anew.
    # Nobody else adopts what was retained, or knowing a channel's name would give its messages to another namespace.
    returns = observed.owner_reference == desired.owner_reference
    if not owned and not returns and (observed.owner_uid is None or observed.owner_uid not in yielding):
        state = "belongs to" if observed.owner_uid is not None else "was retained for"
        raise ChannelConflictError(
            f"channel {desired.name!r} {state} BusChannel {observed.owner_reference}: choose another spec.channel"
        )
    if not owned and not returns:
        # Or whoever had a claim to the name, and was not allowed before, would be given another namespace's messages.
        return [SetAside(observed), CreateChannel(desired), *credential]
    actions: list[ChannelAction] = []
    if not observed.role_exists or not observed.role_is_client:
        actions.append(RepairRole(observed.role, create=not observed.role_exists))
    if not observed.log_exists:
        actions.append(RecreateLog(observed.queue, desired.unlogged))
    if observed.installed_fingerprint != stored_fingerprint(functions_digest, observed.actual_fingerprint):
        untouched = was_installed(observed.installed_fingerprint, observed.actual_fingerprint)
        actions.append(InstallChannelFunctions(observed.queue, in_place=untouched))
    if desired.differs_from(observed):
        actions.append(UpdateChannel(desired))
    if observed.log_exists and observed.log_unlogged != desired.unlogged:
        actions.append(SetLogPersistence(observed.queue, desired.unlogged))
    if binding_wanted:
        actions += plan_credentials(desired, observed, held, rotation, owned=owned)
    return actions


def plan_deletion(
    policy: str, uid: Uid, observed: ObservedChannel | None, counts: ChannelCounts | None
) -> DeletionAction | None:
    """What deleting a BusChannel does to its channel; nothing when another one owns it."""
    if observed is None or observed.owner_uid != uid:
        return None
    empty = counts is not None and counts.stored == 0
    if policy == "Delete" or (policy == "DeleteIfEmpty" and empty):
        return DropChannel(observed)
    return ReleaseChannel(observed)


def plan_withdrawal(uid: Uid, observed: ObservedChannel | None) -> list[DropLogin]:
    """What takes all credentials of a BusChannel away; nothing when it has none, or the channel is another one's."""
    if observed is None or observed.owner_uid != uid:
        return []
    return [DropLogin(login.role, login.generation) for login in observed.logins if not login.is_retired]
