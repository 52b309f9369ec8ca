"""The way of a channel's credentials as users see it: delivered to the Secret, told in Events, shown in the status."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from bus_operator import tallies, verification
from bus_operator.actions import Cause, DropLogin, IssueCredential, WarnOfLogin
from bus_operator.catalog import LoginUser, ObservedChannel
from bus_operator.database import Endpoint
from bus_operator.errors import BusError
from bus_operator.inventory import Resource
from bus_operator.kube import Kube
from bus_operator.model import ChannelSpec
from bus_operator.plan_credentials import (
    RetiringLogin,
    RotationRules,
    is_wanted,
    next_look,
    next_step,
    request_of,
    retiring_logins,
)
from bus_operator.provision import ProvisionedChannel
from bus_operator.reporting import Reporter
from bus_operator.roles import IssuedCredential
from bus_operator.status import Condition, timestamp

logger = logging.getLogger(__name__)

SHOWN_USERS = 20
"""Pods that an Event names; its message holds a thousand characters."""

_SHOWN_REQUEST = 253


class Rotation:
    """What one reconciliation does about one channel's credentials.

    Args:
        resource: The BusChannel.
        spec: Its spec.
        unused: How long nobody must be seen to use replaced credentials before they end.
    """

    def __init__(self, resource: Resource, spec: ChannelSpec, *, unused: timedelta) -> None:
        self.rules = replace(
            RotationRules.from_spec(spec.credentials),
            request=request_of(resource.rotate),
            unused=unused,
        )
        self._resource = resource
        self._verified = ""

    async def verify(self, credential: IssuedCredential, server: Endpoint, clients: Endpoint) -> None:
        """Logs in with a credential before it is published. Raises BusError when it does not work."""
        self._verified = await verification.verify(credential, server, clients)
        logger.info("%s: credential generation %s: %s", self._resource, credential.generation, self._verified)

    def condition(self, channel: ObservedChannel, generation: int | None, secret: str) -> Condition:
        """CredentialsCurrent for a channel whose binding holds a valid credential."""
        current = f"generation {generation} in Secret {secret}"
        retiring = retiring_logins(channel, self.rules)
        if not retiring:
            return Condition.true("CredentialsCurrent", "Current", current)
        before = "; ".join(_ending(item) for item in retiring)
        then = "; the rotation that was asked for begins then" if is_wanted(channel, self.rules) else ""
        return Condition.true("CredentialsCurrent", "Rotating", f"{current}; {before}{then}")

    def request_answered(self, channel: ObservedChannel) -> str | None:
        """The value of the annotation that was answered last, for the status."""
        answered = any(login.request == self.rules.request for login in channel.logins if login.is_published)
        if answered and self._resource.rotate is not None:
            return self._resource.rotate[:_SHOWN_REQUEST]
        return self._resource.status.get("rotationRequest")

    def next_look(self, channel: ObservedChannel) -> float | None:
        """Seconds after which time may have brought something about; None: never."""
        after = next_look(channel, self.rules)
        return after.total_seconds() if after is not None else None

    def next_step(self, channel: ObservedChannel) -> float | None:
        """Seconds until a step must have been taken, below 0 when it is overdue; None: there is none to come."""
        after = next_step(channel, self.rules)
        return after.total_seconds() if after is not None else None

    async def tell(self, provisioned: ProvisionedChannel, kube: Kube, reporter: Reporter) -> None:
        """Posts the Events about what was done."""
        before = provisioned.before
        if before is None or before.owner_uid != self._resource.uid:
            return
        retiring = {item.login.role: item for item in retiring_logins(before, self.rules)}
        for action in provisioned.actions:
            match action:
                case IssueCredential(generation, cause=cause) if cause is not None:
                    tallies.rotated(cause)
                    why = "the first" if generation == 1 and cause is Cause.SECRET_MISSING else cause
                    message = f"credential generation {generation}: {why}; {self._verified}"
                    await reporter.tell(self._resource, warning=False, reason="CredentialRotated", message=message)
                case WarnOfLogin(role):
                    tallies.old_credential_used()
                    item = retiring[role]
                    users = await _name(item.login.users, self._resource.namespace, kube)
                    message = (
                        f"credential generation {item.login.generation}, which was replaced, is still used by {users}."
                        f" It ends at {timestamp(item.deadline)}: restart them before then"
                    )
                    await reporter.tell(self._resource, warning=True, reason="CredentialStillUsed", message=message)
                case DropLogin(role) if role in retiring:
                    await self._tell_end(retiring[role], kube, reporter)
                case _:
                    pass

    async def _tell_end(self, item: RetiringLogin, kube: Kube, reporter: Reporter) -> None:
        generation, users = item.login.generation, item.login.users
        tallies.credential_ended(in_use=bool(users))
        if not users:
            message = f"credential generation {generation} has ended: nobody used it any more"
            await reporter.tell(self._resource, warning=False, reason="CredentialRetired", message=message)
            return
        message = (
            f"the overlap of credential generation {generation} was over, and its sessions were ended while it was"
            f" still used by {await _name(users, self._resource.namespace, kube)}: restart them"
        )
        await reporter.tell(self._resource, warning=True, reason="CredentialRevoked", message=message)


def _ending(item: RetiringLogin) -> str:
    return (
        f"generation {item.login.generation} ends when nobody uses it any more, at the latest at"
        f" {timestamp(item.deadline)}"
    )


async def _name(users: Sequence[LoginUser], namespace: str, kube: Kube) -> str:
    """The pods and addresses that use a login, each once."""
    names = {user.host: None for user in users if user.host}
    for address in {user.address for user in users if user.address}:
        try:
            pods = await kube.pods_at(namespace, address)
        except BusError as exc:
            logger.warning("cannot tell which pod is at %s: %s", address, exc)
            pods = []
        names |= dict.fromkeys(pods or [address])
    return _listed(names) or "a session on the server's own host"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN_USERS} more" if len(ordered) > SHOWN_USERS else ""
    return ", ".join(ordered[:SHOWN_USERS]) + more
