"""What a user is told to run in the operator's pod: what was typed, and nothing that the pod has not."""

import shlex
import sys

import click
import pytest

from bus_operator.cli import cli
from bus_operator.cli.typed import typed_in
from bus_operator.cluster_client import Typed


def typed(line: str, namespace: str | None = "shop") -> Typed:
    name, *arguments = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    with command.make_context(name, arguments):
        return typed_in(namespace)


@pytest.mark.parametrize(
    ("line", "namespace", "expected"),
    [
        ("peers", "shop", "busctl peers -n shop"),
        ("peers orders --stalled", "shop", "busctl peers orders --stalled -n shop"),
        ("doctor -o json pod/worker-0 -n depot", "depot", "busctl doctor pod/worker-0 --output json -n depot"),
        ("status -l team=shop,tier!=test -A", None, "busctl status --selector 'team=shop,tier!=test' -A"),
        ("top depot/orders --once --interval 0.5", "shop", "busctl top depot/orders --interval 0.5 --once -n shop"),
        (
            """tail orders --type A --type 'B*' --grep '"a b"'""",
            "shop",
            """busctl tail orders --type A --type 'B*' --grep '"a b"' -n shop""",
        ),
        # It takes files, or standard input, or changes something.
        ("plan -f -", "shop", "busctl ..."),
        ("publish orders '{}'", "shop", "busctl ..."),
        ("rotate orders", "shop", "busctl ..."),
    ],
)
def test_the_command_is_whole(line: str, namespace: str | None, expected: str) -> None:
    assert typed(line, namespace) == Typed(expected, "kubectl exec")


def test_the_cluster_is_that_of_kubectl() -> None:
    made = typed("peers orders --context admin@prod --kubeconfig '/my files/config' -n depot", "depot")
    assert made.busctl == "busctl peers orders -n depot"
    assert made.kubectl == "kubectl exec --context admin@prod --kubeconfig '/my files/config'"


def test_a_uri_is_never_repeated() -> None:
    made = typed("peers orders --database postgresql://postgres:hunter2@localhost/app")
    assert made == Typed("busctl peers orders -n shop", "kubectl exec")


@pytest.mark.parametrize(("line", "needs"), [("top", True), ("tail orders", True), ("peers", False)])
def test_what_goes_on_until_interrupted_gets_a_terminal(
    monkeypatch: pytest.MonkeyPatch, line: str, needs: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert typed(line).kubectl == ("kubectl exec -it" if needs else "kubectl exec")
