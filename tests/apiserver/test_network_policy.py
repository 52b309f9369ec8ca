"""The NetworkPolicy for pods that the documentation gives; tests/chart has that for the operator."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

DOCUMENT = Path(__file__).parents[2] / "docs" / "network-policy.md"


def test_the_policy_in_the_documentation(run: Callable[..., str]) -> None:
    manifest, *_ = re.findall("```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    created = json.loads(
        run("kubectl", "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=manifest)
    )
    injected = {"podSelector": {"matchLabels": {"pgmqbus.dev/inject": "true"}}}
    assert created["spec"]["podSelector"] == injected["podSelector"]
    # Doorbells in and out: UDP without a port is all ports.
    doorbell = {"ports": [{"protocol": "UDP"}]}
    assert created["spec"]["ingress"] == [{"from": [injected]} | doorbell]
    assert created["spec"]["egress"][0] == {"to": [injected]} | doorbell
