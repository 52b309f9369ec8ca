"""What the operator says about itself and its databases at a scrape: read then, and kept nowhere."""

from collections.abc import Iterator

from bus_operator.canary import Canary
from bus_operator.controller import PURPOSES, Controller
from bus_operator.definition_age import DefinitionAge
from bus_operator.election import Elector
from bus_operator.metrics import Gauge
from bus_operator.serving_certificates import ServingCertificate


def of_operator(
    controller: Controller,
    elector: Elector,
    canary: Canary,
    certificate: ServingCertificate,
    definitions: DefinitionAge,
) -> list[Gauge]:
    """The gauges of a running operator."""

    def leader() -> Iterator[tuple[tuple[()], float]]:
        yield (), float(elector.leading)

    def deaf() -> Iterator[tuple[tuple[()], float]]:
        yield (), float(canary.deaf is not None)

    def canary_age() -> Iterator[tuple[tuple[str, str], float]]:
        return (((kind, namespace), age) for kind, namespace, age in canary.ages())

    def queue_depth() -> Iterator[tuple[tuple[str], float]]:
        depths = dict.fromkeys(PURPOSES, 0)
        for purpose, depth in controller.queue_depths():
            depths[purpose] = depths.get(purpose, 0) + depth
        return (((purpose,), depth) for purpose, depth in depths.items())

    def database_up() -> Iterator[tuple[tuple[str], float]]:
        return ((("/".join(state.key),), float(state.up)) for state in controller.database_states())

    def breaker() -> Iterator[tuple[tuple[str, str], float]]:
        return ((("/".join(state.key), state.breaker), 1.0) for state in controller.database_states())

    def without_binding() -> Iterator[tuple[tuple[()], float]]:
        if (lacking := controller.pods_without_binding) is not None:
            yield (), lacking

    def selected_without_binding() -> Iterator[tuple[tuple[()], float]]:
        if (lacking := controller.selected_pods_without_binding) is not None:
            yield (), lacking

    def certificate_expiry() -> Iterator[tuple[tuple[()], float]]:
        if (expires := certificate.expires) is not None:
            yield (), expires.timestamp()

    def outdated() -> Iterator[tuple[tuple[str], float]]:
        return (((name,), float(older)) for name, older in definitions.outdated.items())

    def refused() -> Iterator[tuple[tuple[str, str], float]]:
        return (((namespace, why.value), 1.0) for namespace, why in controller.refused_namespaces.items())

    return [
        Gauge("pgmq_bus_leader", "Whether this replica holds the Lease and reconciles.", (), leader),
        Gauge("pgmq_bus_watch_deaf", "Whether a watch delivers nothing any more.", (), deaf),
        Gauge(
            "pgmq_bus_watch_canary_age_seconds",
            "Since when a watch has not been seen to deliver; without a namespace it covers all.",
            ("kind", "watched_namespace"),
            canary_age,
        ),
        Gauge(
            "pgmq_bus_namespace_unreadable",
            "1 for a namespace of scope.namespaces that the operator may not read: gone, terminating or forbidden.",
            ("watched_namespace", "why"),
            refused,
        ),
        Gauge("pgmq_bus_queue_depth", "Resources that wait for a worker.", ("lane",), queue_depth),
        Gauge("pgmq_bus_database_up", "Whether the administrator could log in last time.", ("database",), database_up),
        Gauge(
            "pgmq_bus_database_breaker",
            "1 for the state of the circuit breaker: closed, open, or pending until a probe has decided.",
            ("database", "state"),
            breaker,
        ),
        Gauge(
            "pgmq_bus_pods_without_binding",
            "Pods that asked for a binding and were created without it.",
            (),
            without_binding,
        ),
        Gauge(
            "pgmq_bus_selected_pods_without_binding",
            "Pods that a BusChannel selects and that were created without its binding.",
            (),
            selected_without_binding,
        ),
        Gauge(
            "pgmq_bus_webhook_certificate_expiry_timestamp_seconds",
            "Until when the webhook's certificate is valid, in Unix time.",
            (),
            certificate_expiry,
        ),
        Gauge(
            "pgmq_bus_definition_outdated",
            "Whether the cluster's resource definition is older than this operator, or not installed.",
            ("definition",),
            outdated,
        ),
    ]
