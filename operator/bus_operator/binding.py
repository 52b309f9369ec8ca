"""What a pod gets: the entries of a binding, as the Service Binding specification for Kubernetes lays them out."""

import json
from collections.abc import Mapping

from bus_operator.database import Endpoint
from bus_operator.model import ChannelSpec
from bus_operator.plan_credentials import HeldCredential
from bus_operator.roles import IssuedCredential

TYPE = "pgmqbus"
PROVIDER = "pgmq-bus"
AUTHORITY = "ca.crt"
"""The entry with the certificates by which the server's is judged; only where the BusDatabase has some."""


def config(spec: ChannelSpec) -> str:
    """`config.json`: the reader's settings and the limits that a client can respect by itself."""
    return json.dumps(
        {
            "reader": spec.reader.model_dump(by_alias=True),
            "limits": spec.limits.model_dump(by_alias=True),
        },
        indent=2,
    )


def binding_data(endpoint: Endpoint, channel: str, spec: ChannelSpec, credential: IssuedCredential) -> dict[str, str]:
    """All entries of the binding: the Secret's keys, which are the file names in the pod."""
    return {
        "type": TYPE,
        "provider": PROVIDER,
        "host": endpoint.host,
        "port": str(endpoint.port),
        "database": endpoint.database,
        "username": credential.username,
        "password": credential.password,
        "sslmode": endpoint.ssl_mode,
        "uri": endpoint.uri(credential.username, credential.password),
        "channel": channel,
        "config.json": config(spec),
        "generation": str(credential.generation),
    } | ({} if endpoint.authority is None else {AUTHORITY: endpoint.authority})


def held_credential(data: Mapping[str, str] | None) -> HeldCredential | None:
    """The credential in a binding that exists already; None when there is none or it is not whole."""
    if data is None or not data.get("username") or not data.get("password"):
        return None
    return HeldCredential(data["username"], data["password"])


def is_current(present: Mapping[str, str] | None, wanted: Mapping[str, str | None]) -> bool:
    """Whether a binding holds what it should, and nothing under the keys of None; all else is nobody's business."""
    return present is not None and all(present.get(key) == value for key, value in wanted.items())
