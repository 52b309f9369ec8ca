"""Names in PostgreSQL and Kubernetes.

Roles and relations can be listed by every login of a server, so none of their names contains a channel's name: they are
random, and the private registry says which channel they belong to.
"""

import re
import secrets
from dataclasses import dataclass
from typing import TypeGuard

GROUP = "pgmqbus.dev"
VERSION = "v1alpha1"
"""Of the API: what BusDatabases and BusChannels are resources of."""

VERIFIER_CONNECTIONS = 1
"""What each login may have beyond `limits.maxConnections`: the operator logs in as it, to see what it can do."""

OWNER_ROLE = "pgmq_bus_owner"
"""NOLOGIN owner of the schemas, the functions and the logs."""

CLIENT_ROLE = "pgmq_bus_client"
"""NOLOGIN group that may execute the public functions; every channel's role is a member."""


LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
"""What Kubernetes accepts as a name: of a namespace, and of most other objects."""

LONGEST_NAME = 63
"""Of a namespace, and by a rule of the definitions of a BusDatabase and of a BusChannel."""

_NAMESPACE, _CHANNEL = re.compile(LABEL), re.compile(SUBDOMAIN)


def is_namespace(value: object) -> TypeGuard[str]:
    """Whether the API server accepts it as the name of a namespace."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and _NAMESPACE.fullmatch(value) is not None


def is_channel(value: object) -> TypeGuard[str]:
    """Whether the API server accepts it as the name of a BusChannel."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and _CHANNEL.fullmatch(value) is not None


@dataclass(frozen=True)
class ChannelNames:
    """The names of one channel's objects, chosen once and kept in the registry."""

    queue: str
    role: str


def new_channel_names() -> ChannelNames:
    """Fresh names; 48 random bits, since they are merely opaque."""
    token = secrets.token_hex(6)
    return ChannelNames(queue=f"bus_{token}", role=f"bus_channel_{token}")


def channel_functions(queue: str) -> tuple[str, str]:
    """The names of a channel's own functions in pgmq_bus_channel: what publishes and what reads.

    Clients and the functions in the database make them of the queue's name in the same way.
    """
    token = queue.removeprefix("bus_")
    return f"publish_{token}", f"read_{token}"


def login_name(channel_role: str, generation: int) -> str:
    """The login of a credential generation, for example `bus_login_0f3a…_g1`."""
    return f"bus_login_{channel_role.removeprefix('bus_channel_')}_g{generation}"


def shard_prefix(database: str) -> str:
    """What the names of all shards begin with but the first's, which is the database itself."""
    return f"{database}_bus_"


def shard_database(database: str, index: int) -> str:
    """The database that is shard `index`: `app`, `app_bus_1`, `app_bus_2`."""
    return f"{shard_prefix(database)}{index}" if index else database


def binding_secret(channel: str) -> str:
    """The default name of the Secret that holds a BusChannel's binding."""
    return f"{channel}-bus"


def default_wire_name(namespace: str, name: str) -> str:
    """The channel name on the wire when the manifest gives none."""
    return f"{namespace}.{name}"
