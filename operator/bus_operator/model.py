"""What users ask for: the specs of BusDatabase and BusChannel, as the CRDs define them.

The API server validates manifests by the CRD's schema; these models hold the same constraints, for `busctl` and because
a stored object may be older than the schema. A test keeps the two in step.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, NewType

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from bus_operator import naming

GROUP = naming.GROUP
VERSION = naming.VERSION

Uid = NewType("Uid", str)
"""A Kubernetes object's UID, or what `busctl` uses in its place."""

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?")
"""The CRD's own pattern: the digits are bounded because durations overflow."""


def parse_duration(text: str) -> timedelta:
    """A duration such as `90s`, `10m` or `1h30m`. Raises ValueError saying how to write one."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration: write hours, minutes and seconds, such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_age(age: timedelta) -> str:
    """An age for a status, such as 40s, 7m, 50m, 26h: in steps that become longer, so that it is seldom written."""
    seconds = max(int(age.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds // 10 * 10}s"
    if seconds < 3600:
        minutes = seconds // 60
        return f"{minutes if minutes < 10 else minutes // 10 * 10}m"
    return f"{seconds // 3600}h"


def _peer_timeout(text: str) -> str:
    if not timedelta(seconds=10) <= parse_duration(text) <= timedelta(days=30):
        raise ValueError("peerTimeout must be between 10s and 720h")
    return text


def _max_age(text: str) -> str:
    if not timedelta(seconds=1) <= parse_duration(text) <= timedelta(days=365):
        raise ValueError("maxAge must be between 1s and 8760h")
    return text


def _rotation_interval(text: str) -> str:
    if not timedelta(hours=1) <= parse_duration(text) <= timedelta(days=365):
        raise ValueError("rotationInterval must be between 1h and 8760h")
    return text


def _overlap(text: str) -> str:
    if not timedelta(minutes=1) <= parse_duration(text) <= timedelta(days=30):
        raise ValueError("overlap must be between 1m and 720h")
    return text


def _number(value: object) -> object:
    """JSON has one kind of numbers, so 1.0 is an integer; a text or a boolean is none."""
    if isinstance(value, str | bool):
        raise ValueError("must be a whole number")
    return value


Int = Annotated[int, BeforeValidator(_number)]

_HOST = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
"""A DNS name, or an IPv6 address: two colons at least, so that `host:port` is none."""

_LabelValue = Annotated[str, Field(max_length=63)]
SecretName = Annotated[str, Field(pattern=f"^{naming.SUBDOMAIN}$", max_length=253)]
_SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, spec: Any) -> Any:
        """As the API server does it: a field that is null has its default."""
        if not isinstance(spec, dict):
            return spec
        known = {field.alias for field in cls.model_fields.values()}
        return {key: value for key, value in spec.items() if value is not None or key not in known}


class SecretKeyRef(_Spec):
    """`connectionSecretRef`: a Secret of the BusDatabase's namespace."""

    name: SecretName
    key: _SecretKey = "uri"


class CaSecretRef(_Spec):
    """`caSecretRef`: a Secret of the BusDatabase's namespace."""

    name: SecretName
    key: _SecretKey = "ca.crt"


class ClientEndpoint(_Spec):
    """`clientEndpoint`: where pods connect when that differs from the administrator's address."""

    host: Annotated[str, Field(pattern=f"^({_HOST})$", max_length=253)] | None = None
    port: Annotated[Int, Field(ge=1, le=65535)] | None = None
    ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None


def _says_something(endpoint: ClientEndpoint) -> ClientEndpoint:
    if endpoint == ClientEndpoint():
        raise ValueError("must have host, port or sslMode; leave clientEndpoint out to use the URI's")
    return endpoint


class LabelExpression(_Spec):
    """One requirement of a label selector, as Kubernetes defines it."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[_LabelValue, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _has_the_values_it_needs(self) -> "LabelExpression":
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(
                "operators In and NotIn need at least one value in values; Exists and DoesNotExist allow none"
            )
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet the requirement."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(_Spec):
    """A Kubernetes label selector; an empty one matches everything."""

    match_labels: Annotated[dict[str, _LabelValue], Field(max_length=64)] = {}
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=32)] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet all requirements."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            expression.matches(labels) for expression in self.match_expressions
        )


class PodSelector(LabelSelector):
    """`injection.podSelector`: never everything by leaving something out."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> "PodSelector":
        if not self.match_labels and not self.match_expressions:
            raise ValueError(
                "podSelector must not be empty; write for example matchLabels: {app: worker}, or for all pods"
                " matchExpressions: [{key: pgmqbus.dev/inject, operator: DoesNotExist}]"
            )
        return self


class AllowedNamespaces(_Spec):
    """`allowedNamespaces`: whose channels may use a database."""

    from_: Annotated[Literal["Same", "All", "Selector"], Field(alias="from")] = "Same"
    selector: LabelSelector | None = None

    @model_validator(mode="after")
    def _selector_belongs_to_selector(self) -> "AllowedNamespaces":
        if (self.from_ == "Selector") != (self.selector is not None):
            raise ValueError("selector goes with `from: Selector`, and only with it")
        return self

    def allows(self, own: str, other: str, other_labels: dict[str, str]) -> bool:
        """Whether namespace `other` may use a BusDatabase that lives in namespace `own`."""
        if own == other or self.from_ == "All":
            return True
        return self.selector is not None and self.selector.matches(other_labels)


class DatabaseSpec(_Spec):
    """`BusDatabase.spec`."""

    connection_secret_ref: SecretKeyRef
    ca_secret_ref: CaSecretRef | None = None
    client_endpoint: Annotated[ClientEndpoint, AfterValidator(_says_something)] = ClientEndpoint()
    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    shards: Annotated[Int, Field(ge=1, le=64)] = 1
    default: StrictBool = False


class DatabaseRef(_Spec):
    """`databaseRef`: a BusDatabase, of the same namespace when none is named."""

    name: Annotated[str, Field(pattern=f"^{naming.SUBDOMAIN}$", max_length=naming.LONGEST_NAME)]
    namespace: Annotated[str, Field(pattern=f"^{naming.LABEL}$", max_length=naming.LONGEST_NAME)] | None = None


_BIGINT = 2**63 - 1


class Retention(_Spec):
    """`retention`: what is kept at most; without a bound, until every peer has acknowledged it."""

    max_age: Annotated[str, AfterValidator(_max_age)] | None = None
    max_messages: Annotated[Int, Field(ge=1, le=_BIGINT)] | None = None
    max_bytes: Annotated[Int, Field(ge=65_536, le=_BIGINT)] | None = None


class Limits(_Spec):
    """`limits`: what a channel may cost."""

    max_peers: Annotated[Int, Field(ge=1, le=10_000)] = 1000
    max_message_bytes: Annotated[Int, Field(ge=1024, le=16_777_216)] = 1_048_576
    max_connections: Annotated[Int, Field(ge=1, le=10_000)] = 100


class Reader(_Spec):
    """`reader`: the defaults that bound pods get."""

    visibility_timeout_seconds: Annotated[Int, Field(ge=1, le=3600)] = 30
    batch_size: Annotated[Int, Field(ge=1, le=1000)] = 10
    poll_interval_milliseconds: Annotated[Int, Field(ge=10, le=60_000)] = 100
    max_poll_seconds: Annotated[Int, Field(ge=0, le=60)] = 5


class Credentials(_Spec):
    """`credentials`: where the binding is written, and when what is in it is replaced."""

    secret_name: SecretName | None = None
    rotation_interval: Annotated[str, AfterValidator(_rotation_interval)] | None = None
    overlap: Annotated[str, AfterValidator(_overlap)] = "24h"


class Injection(_Spec):
    """`injection`: which pods get the binding without asking for it."""

    pod_selector: PodSelector


class ChannelSpec(_Spec):
    """`BusChannel.spec`."""

    database_ref: DatabaseRef | None = None
    channel: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=200)] | None = None
    durability: Literal["Sync", "Async", "Unlogged"] = "Sync"
    self_delivery: StrictBool = True
    retention: Retention = Retention()
    limits: Limits = Limits()
    peer_timeout: Annotated[str, AfterValidator(_peer_timeout)] = "10m"
    reader: Reader = Reader()
    credentials: Credentials = Credentials()
    injection: Injection | None = None
    deletion_policy: Literal["Retain", "Delete", "DeleteIfEmpty"] = "Retain"

    def wire_name(self, namespace: str, name: str) -> str:
        """The channel's name in the database."""
        return self.channel or naming.default_wire_name(namespace, name)

    def secret_name(self, name: str) -> str:
        """The name of the Secret that holds the binding."""
        return self.credentials.secret_name or naming.binding_secret(name)


def describe(error: ValidationError) -> str:
    """A validation error as one line: path and what is wrong, without the values, for one may be a password."""
    return "; ".join(f"{'.'.join(('spec', *map(str, item['loc'])))}: {_problem(item)}" for item in error.errors())


def _problem(item: ErrorDetails) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "model_type":
            return "must be a mapping"
        case "value_error":
            return str(item["ctx"]["error"])
        case _:
            return item["msg"]
