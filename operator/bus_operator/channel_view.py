"""A channel as busctl shows it, whether its BusChannel's status says so or the database's registry. Pure: no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from bus_operator import naming
from bus_operator.status import find, timestamp

if TYPE_CHECKING:  # the driver takes longer to import than a look at a cluster takes
    from bus_operator.catalog import ChannelCounts, ObservedChannel, ObservedLogin

RETAINED = "Retained"


class Place(NamedTuple):
    """Which database holds a channel."""

    namespace: str | None
    """Of the BusDatabase; None where the database itself was looked at."""
    name: str
    """Of the BusDatabase, else of the database."""
    shard: int | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """The BusDatabase as a status refers to it; without a namespace it is a database's own name."""
        return {"namespace": self.namespace, "name": self.name} if self.namespace else {"name": self.name}

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{name} shard {self.shard}" if self.shard else name


class Readiness(NamedTuple):
    """Whether a channel can be used, and why not."""

    ready: str
    """True, False or Unknown."""
    reason: str
    message: str


@dataclass(frozen=True)
class ChannelView:
    """What is known of one channel; what is not known is None."""

    namespace: str | None
    name: str | None
    """Namespace and name of its BusChannel."""
    channel: str | None
    """The wire name."""
    ready: str
    """True, False or Unknown."""
    reason: str
    message: str
    place: Place | None
    durability: str | None
    peers: int | None = None
    wake: Mapping[str, int] | None = None
    """Peers by how they are woken."""
    backlog: int | None = None
    oldest: str | None = None
    """The age of the oldest message in the backlog, such as 40s, 7m, 26h."""
    generation: int | None = None
    """Of the credentials."""
    issued: datetime | None = None
    """When that was published."""
    verified: str | None = None
    """When isolation was last verified."""
    created: str | None = None
    conditions: Sequence[Mapping[str, Any]] = field(default=())
    secret: str | None = None
    """Of the binding, as the BusChannel has it called."""
    is_bound: bool = True
    """Whether that was written already."""

    @property
    def is_healthy(self) -> bool:
        """Whether nobody has to look: it is ready, or it was retained on purpose."""
        return self.ready == "True" or self.reason == RETAINED

    @property
    def label(self) -> str:
        """What users call it."""
        return self.name or self.channel or "?"

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape: names as in the BusChannel's status, null for what is not known."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "channel": self.channel,
            "ready": self.ready,
            "reason": self.reason,
            "message": self.message,
            "database": self.place.as_json if self.place else None,
            "shard": self.place.shard if self.place else None,
            "durability": self.durability,
            "peers": self.peers,
            "wake": dict(self.wake) if self.wake is not None else None,
            "backlog": self.backlog,
            "oldestMessageAge": self.oldest,
            "credentialGeneration": self.generation,
            "credentialTime": timestamp(self.issued) if self.issued else None,
            "lastVerifiedTime": self.verified,
            "creationTimestamp": self.created,
            "conditions": [dict(item) for item in self.conditions],
        }


def from_resource(body: Mapping[str, Any]) -> ChannelView:
    """Reads a BusChannel as the API server sends it."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    readiness = _readiness(metadata, status)
    # Others may write a status as well, and by halves.
    reference = status.get("database") or {}
    whole = reference.keys() >= {"namespace", "name"}
    return ChannelView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        channel=status.get("channel"),
        ready=readiness.ready,
        reason=readiness.reason,
        message=readiness.message,
        place=Place(reference["namespace"], reference["name"], status.get("shard")) if whole else None,
        durability=spec.get("durability"),
        peers=status.get("peers"),
        wake=status.get("wake"),
        backlog=status.get("backlog"),
        oldest=status.get("oldestMessageAge"),
        generation=status.get("credentialGeneration"),
        verified=status.get("lastVerifiedTime"),
        created=metadata.get("creationTimestamp"),
        conditions=status.get("conditions", ()),
        secret=(spec.get("credentials") or {}).get("secretName") or naming.binding_secret(metadata["name"]),
        is_bound="secretRef" in status,
    )


def _readiness(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    if "deletionTimestamp" in metadata:
        return Readiness("False", reason="Deleting", message="it is being deleted")
    condition = find(status.get("conditions", ()), "Ready")
    if condition is None:
        return _unseen("it")
    if condition.get("observedGeneration") != metadata.get("generation"):
        return _unseen("its latest change")
    return Readiness(condition["status"], condition["reason"], condition.get("message", ""))


def _unseen(what: str) -> Readiness:
    message = f"the operator has not looked at {what} yet: is it running?"
    return Readiness("Unknown", reason="NotReconciledYet", message=message)


def from_database(observed: "ObservedChannel", counts: "ChannelCounts | None", place: Place) -> ChannelView:
    """Reads what a database's registry says of a channel; `counts` is None where it was made meanwhile."""
    reference, _, _ = (observed.owner_reference or "").partition("@")
    namespace, _, name = reference.partition("/")
    readiness = _judged(observed)
    current = observed.current_login
    return ChannelView(
        namespace=namespace or None,
        name=name or None,
        channel=observed.name,
        ready=readiness.ready,
        reason=readiness.reason,
        message=readiness.message,
        place=place,
        durability=observed.durability,
        peers=counts.peers if counts else None,
        wake={"doorbell": counts.doorbell, "listen": counts.listen, "poll": counts.poll} if counts else None,
        backlog=counts.backlog if counts else None,
        oldest=brief_age(counts.oldest) if counts and counts.oldest is not None else None,
        generation=current.generation if current else None,
        issued=current.published_at if current else None,
    )


def _judged(observed: "ObservedChannel") -> Readiness:
    """Whether what belongs to a channel is as it was made."""
    if observed.owner_uid is None:
        message = "its BusChannel was deleted; it waits with its messages for one of the same name"
        return Readiness("Unknown", reason=RETAINED, message=message)
    changed = []
    if not observed.log_exists:
        changed.append("its log is gone")
    if not observed.role_exists or not observed.role_is_client:
        changed.append(f"role {observed.role} is gone or no member of pgmq_bus_client any more")
    if not (observed.installed_fingerprint or "").endswith(f":{observed.actual_fingerprint}"):
        changed.append("its functions were changed")
    changed += [f"login {login.role} was changed" for login in observed.logins if _was_changed(login)]
    if changed:
        message = f"{'; '.join(changed)}: the operator, or busctl apply, puts that right"
        return Readiness("False", reason="DriftRemains", message=message)
    return Readiness("True", reason="Ready", message="everything is in place")


def _was_changed(login: "ObservedLogin") -> bool:
    return login.is_published and not login.is_sound


def brief_age(age: timedelta) -> str:
    """An age for people, in one unit, as kubectl writes it: 90s, 7m, 26h, 3d."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, length, from_ in (("d", 86400, 172800), ("h", 3600, 7200), ("m", 60, 120)):
        if seconds >= from_:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def age_of(time: str | datetime | None, now: datetime | None = None) -> str | None:
    """How long ago that was, for people; None for no time."""
    if time is None:
        return None
    then = datetime.fromisoformat(time) if isinstance(time, str) else time
    return brief_age((now or datetime.now(UTC)) - then)
