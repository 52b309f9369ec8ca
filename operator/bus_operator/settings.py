"""The operator's settings: environment variables with the prefix BUS_, as the chart sets them."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bus_operator.errors import SpecError, StartError
from bus_operator.runtime_injection import PullPolicy

_PREFIX = "BUS_"


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """All settings. Times are in seconds."""

    model_config = ConfigDict(frozen=True)

    operator_namespace: str = "default"
    namespaces: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """The only ones in which BusDatabases and BusChannels are looked at, separated by commas; none: all."""
    pod_name: str | None = None
    """What this replica is called in the Lease; no two that run may have the same. Without it, it makes one up."""
    lease_name: str = "pgmq-bus"
    service_account: str = "pgmq-bus"
    webhook_service: str = "pgmq-bus-webhook"
    webhook_configuration: str = "pgmq-bus"
    webhook_tls_secret: str = "pgmq-bus-webhook-tls"  # noqa: S105 - a name
    webhook_cert_dir: str | None = None
    """Directory of a certificate that someone else renews (cert-manager); without it the operator makes its own."""
    webhook_port: Annotated[int, Field(ge=0, le=65535)] = 9443
    runtime_image: str | None = None
    """The image from which pods get bus_runtime: the operator's own; none: they do not."""
    runtime_pull_policy: PullPolicy = "IfNotPresent"
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """0: no metrics."""
    metrics_max_channels: Annotated[int, Field(ge=0)] = 1000
    """So many BusChannels have metrics of their own, those first that need attention."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "json"
    canary_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60
    """How often the watches are tried out, see canary.py."""
    resync_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60
    credential_unused_seconds: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 120
    """How long nobody must be seen to use replaced credentials before they end."""
    verification_interval_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3600
    """Between two verifications of a channel's isolation; with very many channels it takes longer."""
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    """Of each database."""

    @property
    def secrets_role(self) -> str:
        """ClusterRole that a namespace binds to let the operator write bindings there; named in remedies."""
        return f"{self.service_account}-secrets"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Reads BUS_*; an empty value counts as absent. Raises SpecError naming the variable that is wrong."""
        environment = os.environ if environment is None else environment
        values = {
            name: environment[_PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(_PREFIX + name.upper())
        }
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            first = exc.errors()[0]
            raise SpecError(
                f"{_PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}", reason=StartError.reason
            ) from exc
