"""The steps that plans consist of. Each says in a few words what it does; none says anything secret."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from bus_operator.catalog import ObservedChannel
from bus_operator.model import ChannelSpec, Uid, parse_duration
from bus_operator.naming import VERIFIER_CONNECTIONS


@dataclass(frozen=True)
class CreateGroupRole:
    """Create a role that nobody logs in as."""

    role: str

    def __str__(self) -> str:
        return f"create role {self.role}"


@dataclass(frozen=True)
class GrantOwnerToSelf:
    """Make the administrator, who is no superuser, a member of the owner role."""

    def __str__(self) -> str:
        return "become a member of the owner role"


@dataclass(frozen=True)
class InstallPgmq:
    """Install PGMQ: the extension where the server has it, else the SQL that the `pgmq` package ships."""

    extension: bool

    def __str__(self) -> str:
        return f"install PGMQ ({'extension' if self.extension else 'bundled SQL'})"


@dataclass(frozen=True)
class GrantConnect:
    """Let clients connect to a database that is closed to PUBLIC."""

    def __str__(self) -> str:
        return "let clients connect to the database"


@dataclass(frozen=True)
class InstallSchema:
    """Create schemas and tables at the current version."""

    version: int

    def __str__(self) -> str:
        return f"install schema version {self.version}"


@dataclass(frozen=True)
class MigrateSchema:
    """Run the migrations after `current` up to `target`."""

    current: int
    target: int

    def __str__(self) -> str:
        return f"migrate the schema from version {self.current} to {self.target}"


@dataclass(frozen=True)
class InstallFunctions:
    """(Re-)create all functions and their privileges."""

    version: int
    in_place: bool
    """Nobody changed them since they were installed: replacing them disturbs nobody who is in them."""

    def __str__(self) -> str:
        return "install functions"


InstallAction = (
    CreateGroupRole | GrantOwnerToSelf | InstallPgmq | GrantConnect | InstallSchema | MigrateSchema | InstallFunctions
)


@dataclass(frozen=True)
class DesiredChannel:
    """A channel as its manifest wants it."""

    name: str
    owner_uid: Uid
    owner_reference: str
    durability: str
    self_delivery: bool
    max_peers: int
    max_message_bytes: int
    max_connections: int
    peer_timeout: timedelta
    max_age: timedelta | None
    max_messages: int | None
    max_bytes: int | None

    @classmethod
    def from_spec(cls, spec: ChannelSpec, *, namespace: str, name: str, uid: Uid) -> "DesiredChannel":
        """The wanted row for the BusChannel `namespace/name`."""
        return cls(
            name=spec.wire_name(namespace, name),
            owner_uid=uid,
            owner_reference=f"{namespace}/{name}",
            durability=spec.durability,
            self_delivery=spec.self_delivery,
            max_peers=spec.limits.max_peers,
            max_message_bytes=spec.limits.max_message_bytes,
            max_connections=spec.limits.max_connections,
            peer_timeout=parse_duration(spec.peer_timeout),
            max_age=parse_duration(spec.retention.max_age) if spec.retention.max_age else None,
            max_messages=spec.retention.max_messages,
            max_bytes=spec.retention.max_bytes,
        )

    @classmethod
    def from_observed(cls, observed: ObservedChannel, owner_uid: Uid) -> "DesiredChannel":
        """The channel as it is."""
        return cls(
            name=observed.name,
            owner_uid=owner_uid,
            owner_reference=observed.owner_reference or "",
            durability=observed.durability,
            self_delivery=observed.self_delivery,
            max_peers=observed.max_peers,
            max_message_bytes=observed.max_message_bytes,
            max_connections=observed.max_connections,
            peer_timeout=observed.peer_timeout,
            max_age=observed.max_age,
            max_messages=observed.max_messages,
            max_bytes=observed.max_bytes,
        )

    @property
    def unlogged(self) -> bool:
        """Whether the log is not to be in the server's write-ahead log."""
        return self.durability == "Unlogged"

    @property
    def login_connections(self) -> int:
        """The connection limit of each login."""
        return self.max_connections + VERIFIER_CONNECTIONS

    def differs_from(self, observed: ObservedChannel) -> bool:
        """Whether the registry's row says something else."""
        return any(getattr(self, name) != getattr(observed, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True)
class CreateChannel:
    """Create role, log, registry row and functions."""

    desired: DesiredChannel

    def __str__(self) -> str:
        return f"create channel {self.desired.name!r}"


@dataclass(frozen=True)
class SetAside:
    """Give a younger BusChannel's channel another name: the older one has a claim to the name, not to the messages."""

    channel: ObservedChannel

    def __str__(self) -> str:
        return f"set channel {self.channel.name!r} of BusChannel {self.channel.owner_reference} aside"


@dataclass(frozen=True)
class UpdateChannel:
    """Write the registry row: changed settings, or a new owner."""

    desired: DesiredChannel

    def __str__(self) -> str:
        return f"update channel {self.desired.name!r}"


@dataclass(frozen=True)
class RepairRole:
    """Put the channel's role back: it is missing or no client any more."""

    role: str
    create: bool

    def __str__(self) -> str:
        return f"repair role {self.role}"


@dataclass(frozen=True)
class RecreateLog:
    """Create the log anew after somebody dropped it; its messages are gone."""

    queue: str
    unlogged: bool

    def __str__(self) -> str:
        return f"create the lost queue {self.queue} anew"


@dataclass(frozen=True)
class SetLogPersistence:
    """Rewrite the log with its messages, into the server's write-ahead log or out of it."""

    queue: str
    unlogged: bool

    def __str__(self) -> str:
        return f"make queue {self.queue} {'unlogged' if self.unlogged else 'logged'}"


@dataclass(frozen=True)
class InstallChannelFunctions:
    """(Re-)create the channel's own functions and their privileges."""

    queue: str
    in_place: bool
    """Nobody changed them since they were installed: replacing them disturbs nobody who is in them."""

    def __str__(self) -> str:
        return f"install the functions of queue {self.queue}"


class Cause(StrEnum):
    """Why a channel gets another credential, as an Event says it."""

    SCHEDULE = "the rotation interval is over"
    REQUEST = "it was asked for by annotation"
    SECRET_INVALID = "the Secret held none that is valid"  # noqa: S105 - words
    SECRET_MISSING = "the Secret held none"  # noqa: S105 - words
    OWNER_CHANGED = "the BusChannel is another one"
    RESUMED = "it was begun before"


@dataclass(frozen=True)
class IssueCredential:
    """Create the login of a new generation, with a new password."""

    generation: int
    connection_limit: int
    request: str | None = None
    """What asked for a rotation last, so that it is answered once."""
    again: bool = False
    """The login is there already: it was never published, and gets another password."""
    cause: Cause | None = field(default=None, compare=False)
    """None for the first of a channel."""

    def __str__(self) -> str:
        return f"issue credential generation {self.generation}{' again' if self.again else ''}"


@dataclass(frozen=True)
class PublishLogin:
    """Record that the binding holds this login."""

    role: str
    generation: int

    def __str__(self) -> str:
        return f"publish credential generation {self.generation}"


@dataclass(frozen=True)
class WarnOfLogin:
    """Tell, once, who still uses a login that will end."""

    role: str
    generation: int

    def __str__(self) -> str:
        return f"warn of the end of credential generation {self.generation}"


@dataclass(frozen=True)
class UpdateLogin:
    """Set a login's connection limit."""

    role: str
    verifier: str = field(repr=False)
    connection_limit: int

    def __str__(self) -> str:
        return f"update login {self.role}"


@dataclass(frozen=True)
class DropLogin:
    """End the sessions of a login that no binding holds any more, and drop it."""

    role: str
    generation: int

    def __str__(self) -> str:
        return f"drop login {self.role}"


ChannelAction = (
    CreateChannel
    | SetAside
    | UpdateChannel
    | RepairRole
    | RecreateLog
    | SetLogPersistence
    | InstallChannelFunctions
    | IssueCredential
    | PublishLogin
    | WarnOfLogin
    | UpdateLogin
    | DropLogin
)


@dataclass(frozen=True)
class ReleaseChannel:
    """Give up ownership and drop the logins; messages, positions and the name stay."""

    channel: ObservedChannel

    def __str__(self) -> str:
        return f"retain channel {self.channel.name!r}"


@dataclass(frozen=True)
class DropChannel:
    """Drop the channel with its messages, roles and logins."""

    channel: ObservedChannel

    def __str__(self) -> str:
        return f"drop channel {self.channel.name!r}"


DeletionAction = ReleaseChannel | DropChannel
