"""The metrics of an operator's process, scraped as Prometheus does it."""

import urllib.request

from control_plane import wait_until
from operator_process import Operator
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape_text(operator: Operator) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def scrape(operator: Operator) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(scrape_text(operator))
        for sample in family.samples
    }


def value(operator: Operator, name: str, /, **labels: str) -> float | None:
    return scrape(operator).get((name, frozenset(labels.items())))


def wait_for(operator: Operator, expected: float | None, name: str, /, **labels: str) -> None:
    wait_until(lambda: value(operator, name, **labels) == expected, f"{name} {labels} is {expected}")
