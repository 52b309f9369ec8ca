"""What to do about a channel's logins: issue, publish, retire. Pure: no I/O, no clock, no randomness.

A login is issued, verified, then published: written to the binding, which makes it the channel's current one. The one
before goes on working beside it and is retired on evidence, when nobody was seen to use it for a while, or else at the
end of the overlap. What was issued and never published, because the operator was killed or the login did not work, was
given to nobody: the next look gives it another password and goes on with it.
"""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from bus_operator import credentials
from bus_operator.actions import (
    Cause,
    ChannelAction,
    DesiredChannel,
    DropLogin,
    IssueCredential,
    PublishLogin,
    UpdateLogin,
    WarnOfLogin,
)
from bus_operator.catalog import ObservedChannel, ObservedLogin
from bus_operator.model import Credentials, parse_duration

MAX_LOGINS = 4
"""Published logins of a channel at most, so that whoever damages a Secret again and again does not fill the server."""

LOOKS = 4
"""How often a login must be seen unused, spread over the time, before it is retired."""

WARN_AFTER = timedelta(hours=1)
"""Who uses a login this long after the next one was published will not change over by itself."""

_SPREAD = 0.1
"""The share of the interval over which rotations are spread: channels that were made together are not rotated so."""


@dataclass(frozen=True)
class HeldCredential:
    """What the binding holds now. The password is kept out of `repr`."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"HeldCredential(username={self.username!r})"


@dataclass(frozen=True)
class RotationRules:
    """When a channel's credentials are rotated, and how the ones before end."""

    interval: timedelta | None = None
    """How old they become; None: any age."""
    request: str | None = None
    """Who wants a rotation changes this text: each is answered once."""
    overlap: timedelta = timedelta(hours=24)
    """How long the login before may be used at most."""
    unused: timedelta = timedelta(minutes=2)
    """How long nobody must be seen to use it before that. Longer than it takes until a new Secret is in all pods."""

    @classmethod
    def from_spec(cls, spec: Credentials) -> "RotationRules":
        """What a BusChannel's `spec.credentials` says of them."""
        return cls(
            interval=parse_duration(spec.rotation_interval) if spec.rotation_interval is not None else None,
            overlap=parse_duration(spec.overlap),
        )


def request_of(annotation: str | None) -> str | None:
    """What is kept of the annotation that asks for a rotation: enough to tell whether it was answered."""
    return hashlib.sha256(annotation.encode()).hexdigest()[:32] if annotation is not None else None


@dataclass(frozen=True)
class RetiringLogin:
    """A login before the current one."""

    login: ObservedLogin
    deadline: datetime

    def ends(self, now: datetime, rules: RotationRules) -> bool:
        """Whether its time has come."""
        if not self.login.role_exists:
            # Dropped by hand: nobody uses it, and nobody is looked for.
            return True
        unused_since = self.login.unused_since
        return now >= self.deadline or (unused_since is not None and now - unused_since >= rules.unused)

    def wants_warning(self, now: datetime, rules: RotationRules) -> bool:
        """Whether its users should be told that it will end."""
        after = min(rules.overlap / 2, WARN_AFTER)
        return bool(self.login.users) and self.login.warned_at is None and now >= self.deadline - rules.overlap + after


def retiring_logins(observed: ObservedChannel, rules: RotationRules) -> list[RetiringLogin]:
    """The logins that were published before, oldest first, with the end of the time that each may be used."""
    published = sorted((login for login in observed.logins if login.is_published), key=_generation)
    return [
        RetiringLogin(login, successor.published_at + rules.overlap)
        for login, successor in pairwise(published)
        if successor.published_at is not None
    ]


def is_wanted(observed: ObservedChannel, rules: RotationRules) -> bool:
    """Whether a rotation was asked for that has not begun."""
    current = observed.current_login
    return current is not None and _cause(observed, current, rules, valid=True, held=None) is not None


def next_step(observed: ObservedChannel, rules: RotationRules) -> timedelta | None:
    """How long until a login before the current one must have ended, or else until the current one is to be replaced.

    Less than nothing when that is overdue; None: no step that time brings about.
    """
    if retiring := retiring_logins(observed, rules):
        return min(item.deadline for item in retiring) - observed.observed_at
    current = observed.current_login
    due = _due_at(observed, current, rules) if current is not None else None
    return due - observed.observed_at if due is not None else None


def next_look(observed: ObservedChannel, rules: RotationRules) -> timedelta | None:
    """After which time there may be something to do about the logins; None: nothing that time brings about."""
    after = next_step(observed, rules)
    if after is None:
        return None
    if retiring_logins(observed, rules):
        after = min(after, rules.unused / LOOKS)
    return max(after, timedelta(0))


def is_contested(observed: ObservedChannel, held: HeldCredential | None, rules: RotationRules) -> bool:
    """Whether the binding was lost or changed so often that no credential is issued until one of before has ended."""
    if _valid_login(observed, held) is not None:
        return False
    ending = [item for item in retiring_logins(observed, rules) if item.ends(observed.observed_at, rules)]
    return sum(login.is_published for login in observed.logins) - len(ending) >= MAX_LOGINS


def plan_credentials(
    desired: DesiredChannel,
    observed: ObservedChannel,
    held: HeldCredential | None,
    rules: RotationRules,
    *,
    owned: bool,
) -> list[ChannelAction]:
    """The steps that make the binding hold a valid login, and end those that are not needed any more.

    Args:
        desired: What the manifest wants.
        observed: What is there.
        held: What the binding holds.
        rules: When to rotate.
        owned: Whether the channel is this BusChannel's already: who takes it over ends all credentials of before.
    """
    if not owned:
        generation = max((login.generation for login in observed.logins), default=0) + 1
        issue = IssueCredential(generation, desired.login_connections, rules.request, cause=Cause.OWNER_CHANGED)
        return [issue, *(DropLogin(login.role, login.generation) for login in observed.logins)]
    current = observed.current_login
    in_binding = _valid_login(observed, held)
    valid = in_binding is not None
    retiring = retiring_logins(observed, rules)
    now = observed.observed_at
    ending = [item for item in retiring if item.ends(now, rules)]
    # Also those before: pods still use them.
    actions: list[ChannelAction] = [
        UpdateLogin(login.role, login.verifier, desired.login_connections)
        for login in observed.logins
        if (login is in_binding or login.is_published) and login.is_sound
        if login.connection_limit != desired.login_connections and login not in [item.login for item in ending]
    ]
    if in_binding is not None and not in_binding.is_published:
        actions.append(PublishLogin(in_binding.role, in_binding.generation))
    unpublished = _unpublished(observed, in_binding)
    # What is just being published answers whatever asked for it.
    cause = _cause(observed, in_binding or current, rules, valid=valid, held=held)
    if (unpublished or not valid or (cause and not retiring)) and not is_contested(observed, held, rules):
        actions += _issue(desired, observed, unpublished, rules, cause)
    actions += [DropLogin(item.login.role, item.login.generation) for item in ending]
    actions += [
        WarnOfLogin(item.login.role, item.login.generation)
        for item in retiring
        if item not in ending and item.wants_warning(now, rules)
    ]
    return actions


def _valid_login(observed: ObservedChannel, held: HeldCredential | None) -> ObservedLogin | None:
    """The login that the binding opens, if it holds what it should."""
    found = next((login for login in observed.logins if held and login.role == held.username), None)
    if held is None or found is None or not found.is_sound or not credentials.matches(held.password, found.verifier):
        return None
    current = observed.current_login
    # A binding that was put back to an older one counts as lost: that login is about to end.
    return found if current is None or found.generation >= current.generation else None


def _issue(
    desired: DesiredChannel,
    observed: ObservedChannel,
    unpublished: list[ObservedLogin],
    rules: RotationRules,
    cause: Cause | None,
) -> Iterable[ChannelAction]:
    """A new login, or the one that was issued and never published once more."""
    again = unpublished[-1] if unpublished and unpublished[-1].is_sound else None
    highest = max((login.generation for login in observed.logins), default=0)
    generation = again.generation if again is not None else highest + 1
    yield IssueCredential(
        generation,
        desired.login_connections,
        rules.request,
        again=again is not None,
        cause=cause or Cause.RESUMED,
    )
    for login in unpublished:
        if login is not again:
            yield DropLogin(login.role, login.generation)


def _unpublished(observed: ObservedChannel, in_binding: ObservedLogin | None) -> list[ObservedLogin]:
    found = [login for login in observed.logins if login.published_at is None and not login.is_retired]
    return sorted((login for login in found if login is not in_binding), key=_generation)


def _cause(
    observed: ObservedChannel,
    current: ObservedLogin | None,
    rules: RotationRules,
    *,
    valid: bool,
    held: HeldCredential | None,
) -> Cause | None:
    """Why there should be another credential; None: there is no reason."""
    if not valid:
        return Cause.SECRET_INVALID if held is not None else Cause.SECRET_MISSING
    if current is None:
        return None
    if rules.request is not None and rules.request != current.request:
        return Cause.REQUEST
    due = _due_at(observed, current, rules)
    return Cause.SCHEDULE if due is not None and observed.observed_at >= due else None


def _due_at(observed: ObservedChannel, current: ObservedLogin, rules: RotationRules) -> datetime | None:
    if rules.interval is None or current.published_at is None:
        return None
    # Of the channel's random name: the same at each look, and different for each channel.
    early = zlib.crc32(observed.role.encode()) / 2**32 * _SPREAD
    return current.published_at + rules.interval * (1 - early)


def _generation(login: ObservedLogin) -> int:
    return login.generation
