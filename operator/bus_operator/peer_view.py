"""A peer as busctl shows it. Pure: no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from bus_operator.channel_view import brief_age
from bus_operator.status import timestamp

STALLED_SECONDS = 30.0
"""How old a message may become that a live peer has not acknowledged. The runtime acknowledges within two seconds of
handling, so that its handlers take as long, or hang."""

SILENT_FRACTION = 0.45
"""Of a channel's peerTimeout: who was not heard of for so long has probably ended. A peer calls at least every third of
it, and what is noted of it may be a tenth old."""

State = Literal["Ok", "Stalled", "Silent", "Away"]


@dataclass(frozen=True)
class PeerView:
    """What the database knows of one peer."""

    channel: str
    owner: str | None
    """Its BusChannel, `namespace/name`."""
    host: str | None
    """What it calls its host: the pod's name."""
    application: str | None
    durable: str | None
    """The durable peer's name; None for one that lives as long as its process."""
    runtime: str | None
    """Client library and version."""
    is_foreign: bool
    """Whether it speaks the reference client's protocol."""
    generation: int | None
    """Of the credential it was heard of with; None: that is registered no more."""
    is_retired: bool
    """Whether that credential was replaced."""
    wake: str
    is_deaf: bool
    """Whether it has a doorbell and does not rely on it, because rings did not arrive."""
    behind: int
    """Messages that it has not acknowledged."""
    behind_seconds: float | None
    """The age of the first of them."""
    last_seen: datetime
    silent_seconds: float
    """How long ago that is, by the server's clock."""
    joined_at: datetime
    timeout_seconds: float
    """The channel's peerTimeout."""
    is_live: bool
    """Whether it was heard of within that."""
    redelivered: int
    lost: int
    """Messages given to it again; trimmed before it had read them."""
    succeeded_seconds: float | None = None
    """How long ago a later process of the same pod and application joined, after this one was last heard of; None: none
    did, or it has a name, which the later one would have taken over."""

    @property
    def state(self) -> State:
        """Ok; Stalled: it does not get on; Silent: it has probably ended, and counts yet; Away: it counts no more."""
        if not self.is_live:
            return "Away"
        if self.silent_seconds >= self.timeout_seconds * SILENT_FRACTION:
            return "Silent"
        if not self.behind or (self.behind_seconds or 0) <= STALLED_SECONDS:
            return "Ok"
        return "Silent" if self.is_former else "Stalled"

    @property
    def may_have_ended(self) -> bool:
        """Whether it was not heard of for long enough to ask whether it is there. One that runs may be as silent."""
        return self.is_live and self.silent_seconds > STALLED_SECONDS / 2

    @property
    def is_former(self) -> bool:
        """Whether a later process of its pod has probably taken its place, as after its container was restarted."""
        return self.may_have_ended and self.succeeded_seconds is not None

    @property
    def is_there(self) -> bool:
        """Whether it was heard of lately enough to think that it still runs."""
        return self.state in ("Ok", "Stalled")

    @property
    def credential(self) -> str:
        """Which generation, and whether it is not the current one."""
        if self.generation is None:
            return "ended"
        return f"{self.generation} (retired)" if self.is_retired else str(self.generation)

    @property
    def credential_advice(self) -> str:
        """What it does with one that is not the current one, and what to do."""
        if self.generation is None:
            return "uses a credential that was withdrawn: restart it"
        return (
            f"uses generation {self.credential} of the credentials, which was replaced, and ends with the overlap:"
            " restart it before"
        )

    @property
    def behind_text(self) -> str:
        """Messages, and the age of the first: `120 (35s)`."""
        if self.behind_seconds is None:
            return str(self.behind)
        return f"{self.behind} ({brief_age(timedelta(seconds=self.behind_seconds))})"

    @property
    def client(self) -> str | None:
        """Library and version, as far as it told."""
        return self.runtime or ("pipecat" if self.is_foreign else None)

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape; null for what is not known."""
        namespace, _, name = (self.owner or "").partition("/")
        return {
            "channel": self.channel,
            "namespace": namespace or None,
            "name": name or None,
            "pod": self.host,
            "application": self.application,
            "peer": self.durable,
            "state": self.state,
            "credentialGeneration": self.generation,
            "credentialRetired": self.is_retired,
            "runtime": self.client,
            "wake": self.wake,
            "behindMessages": self.behind,
            "behindSeconds": round(self.behind_seconds, 3) if self.behind_seconds is not None else None,
            "lastSeenTime": timestamp(self.last_seen),
            "joinedTime": timestamp(self.joined_at),
            "redelivered": self.redelivered,
            "lost": self.lost,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "PeerView":
        """Reads a row of `queries/peers.sql`."""
        values = dict(row)
        reference = values.pop("owner_reference")
        return cls(owner=reference.partition("@")[0] if reference else None, **values)
