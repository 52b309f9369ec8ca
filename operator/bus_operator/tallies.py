"""What the operator counts about its own work.

The one place that knows the library's counters: everything else calls a function here. The values of all labels come
from the code, so their number is bounded. What is to be said about single resources is read at a scrape: see `metrics`.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bus_operator import database
from bus_operator.actions import Cause
from bus_operator.drift import Repair
from bus_operator.errors import BusError

REGISTRY = CollectorRegistry()

# A second series for each of them, which nothing here needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a look that finds nothing to do, to the timeouts of a database that hangs."""

DONE, RETRY, DEFECT = "done", "retry", "defect"
"""Outcomes of a reconciliation: it came to its end (which may be a condition that says what the user has to change), it
comes back by itself, or it raised what nobody expected."""

_reconciles = Counter(
    "pgmq_bus_reconciles", "Reconciliations, by kind of resource and outcome.", ["kind", "outcome"], registry=REGISTRY
)
_reconcile_duration = Histogram(
    "pgmq_bus_reconcile_duration_seconds",
    "How long reconciliations took.",
    ["kind", "outcome"],
    buckets=_DURATIONS,
    registry=REGISTRY,
)
_errors = Counter(
    "pgmq_bus_errors",
    "Failures, by the reason that the resource's condition shows.",
    ["kind", "reason"],
    registry=REGISTRY,
)
_api_requests = Counter(
    "pgmq_bus_api_requests",
    "Requests to the Kubernetes API, without kopf's own watches.",
    ["verb", "status"],
    registry=REGISTRY,
)
_admissions = Counter(
    "pgmq_bus_admissions", "Pods that the webhook was asked about, by outcome.", ["outcome"], registry=REGISTRY
)
_admission_duration = Histogram(
    "pgmq_bus_admission_duration_seconds", "How long the webhook took.", buckets=_DURATIONS, registry=REGISTRY
)

_drift_repairs = Counter(
    "pgmq_bus_drift_repairs", "What was changed by hand and put right, by how.", ["repair"], registry=REGISTRY
)
_verifications = Counter(
    "pgmq_bus_verifications", "Proofs that a channel is isolated, by what came of it.", ["outcome"], registry=REGISTRY
)
_rotations = Counter("pgmq_bus_rotations", "Credentials that were issued anew, by why.", ["trigger"], registry=REGISTRY)
_old_credentials_used = Counter(
    "pgmq_bus_old_credential_warnings",
    "Replaced credentials that somebody still used when a warning was due.",
    registry=REGISTRY,
)
_ended_credentials = Counter(
    "pgmq_bus_ended_credentials", "Replaced credentials that have ended: unused, or in use.", ["use"], registry=REGISTRY
)
_sessions = Gauge("pgmq_bus_database_sessions", "Sessions that the operator has open in databases.", registry=REGISTRY)
_sessions.set_function(database.open_sessions)

# A rate needs a value before the first event.
for _kind in ("BusDatabase", "BusChannel"):
    for _outcome in (DONE, RETRY, DEFECT):
        _reconciles.labels(_kind, _outcome)
for _cause in Cause:
    _rotations.labels(_cause.name.lower())
for _use in ("unused", "in_use"):
    _ended_credentials.labels(_use)
for _repair in Repair:
    _drift_repairs.labels(_repair.value)
for _outcome in ("verified", "failed", "unclear"):
    _verifications.labels(_outcome)
for _outcome in ("injected", "incomplete", "unchanged", "malformed"):
    _admissions.labels(_outcome)


@contextmanager
def reconciling(kind: str) -> Iterator[None]:
    """A resource is looked at: counts how that ends, and after how long."""
    begun = time.monotonic()
    outcome: str | None = DEFECT
    try:
        yield
    except BusError as exc:
        outcome = RETRY
        failed(kind, exc.reason)
        raise
    except asyncio.CancelledError:
        outcome = None
        raise
    else:
        outcome = DONE
    finally:
        if outcome is not None:
            _reconciles.labels(kind, outcome).inc()
            _reconcile_duration.labels(kind, outcome).observe(time.monotonic() - begun)


def failed(kind: str, reason: str) -> None:
    """A resource could not be brought to what its manifest says; `reason` is that of a BusError."""
    _errors.labels(kind, reason).inc()


def requested(verb: str, status: int | None) -> None:
    """The API server answered, or did not (None)."""
    _api_requests.labels(verb, f"{status // 100}xx" if status is not None else "none").inc()


def admitted(outcome: str, seconds: float) -> None:
    """The webhook answered: injected, incomplete (injected, with warnings), unchanged or malformed."""
    _admissions.labels(outcome).inc()
    _admission_duration.observe(seconds)


def repaired(repair: Repair) -> None:
    """Something that was changed by hand is as it should be again."""
    _drift_repairs.labels(repair.value).inc()


def verified(outcome: str) -> None:
    """A channel's login tried what it may and may not do: verified, failed or unclear."""
    _verifications.labels(outcome).inc()


def rotated(cause: Cause) -> None:
    """A channel got another credential."""
    _rotations.labels(cause.name.lower()).inc()


def old_credential_used() -> None:
    """A credential that was replaced is still used, and those who do were named in an Event."""
    _old_credentials_used.inc()


def credential_ended(*, in_use: bool) -> None:
    """A credential that was replaced has ended, for want of users or at the end of its overlap."""
    _ended_credentials.labels("in_use" if in_use else "unused").inc()
