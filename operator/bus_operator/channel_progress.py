"""How far the reconciliation of one BusChannel has got, and what its conditions are then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bus_operator.actions import (
    ChannelAction,
    CreateChannel,
    DesiredChannel,
    DropLogin,
    IssueCredential,
    PublishLogin,
    WarnOfLogin,
)
from bus_operator.binding import AUTHORITY, binding_data, held_credential
from bus_operator.catalog import ObservedChannel
from bus_operator.database_access import UsableDatabase
from bus_operator.errors import BusError
from bus_operator.inventory import Resource
from bus_operator.kube_objects import Secret
from bus_operator.model import ChannelSpec, Uid
from bus_operator.probes import Verdict
from bus_operator.roles import IssuedCredential
from bus_operator.rotation import Rotation
from bus_operator.shards import Shard
from bus_operator.status import Condition


@dataclass
class Task:
    """What is wanted of a channel, and what its binding holds."""

    resource: Resource
    spec: ChannelSpec
    usable: UsableDatabase
    desired: DesiredChannel
    yielding: frozenset[Uid]
    rotation: Rotation
    present: Secret | None
    binding_wanted: bool

    def __post_init__(self) -> None:
        self.data = self.present.data if self.present is not None else None
        self.held = held_credential(self.data)
        self.version = self.present.resource_version if self.present is not None else ""

    def binding(self, shard: Shard, credential: IssuedCredential) -> dict[str, str | None]:
        """What the Secret should hold; None: what it should not hold any more."""
        endpoint = shard.admin.endpoint.for_clients(self.usable.clients)
        return {AUTHORITY: None} | binding_data(endpoint, self.desired.name, self.spec, credential)


class Found(NamedTuple):
    """A channel and its binding, when both are as they should be."""

    observed: ObservedChannel
    actions: Sequence[ChannelAction]
    """What was done for it."""
    secret: str
    secret_version: str

    @property
    def at_rest(self) -> bool:
        """Whether nothing follows from what was done, and no login is on its way in or out."""
        made = any(isinstance(action, CreateChannel) for action in self.actions)
        changing = IssueCredential | PublishLogin | DropLogin | WarnOfLogin
        follows = not made and any(isinstance(action, changing) for action in self.actions)
        return not follows and sum(not login.is_retired for login in self.observed.logins) == 1


class Progress:
    """How far reconciling a channel got: the conditions follow from it."""

    def __init__(self) -> None:
        self.provisioned: str | None = None
        self.current: Condition | None = None
        self.next_look: float | None = None
        self.withdrawn: str | None = None
        self.verdict: Verdict | None = None
        self.found: Found | None = None

    def conditions(self, failure: BusError | None) -> list[Condition]:
        """Provisioned and CredentialsCurrent, the failure at the first that was not reached."""
        reason, message = (failure.reason, str(failure)) if failure else ("Waiting", "")
        if self.withdrawn is not None:
            return [
                Condition.false("Provisioned", reason, f"{message}; {self.withdrawn}"),
                Condition.false("CredentialsCurrent", reason, self.withdrawn),
            ]
        if self.provisioned is None:
            return [
                Condition.false("Provisioned", reason, message),
                Condition.unknown("CredentialsCurrent", "Waiting", "the channel is not provisioned"),
            ]
        done = Condition.true("Provisioned", "Provisioned", self.provisioned)
        if self.current is None:
            return [done, Condition.false("CredentialsCurrent", reason, message)]
        return [done, self.current]
