"""What the docs have typed for Helm, on a real API server: without hooks and without waiting, since nothing runs there.

What needs definitions of others, such as Prometheus' ones, is rendered by tests/chart; the quickstart is followed by
tests/cluster.
"""

import json
from collections.abc import Callable, Iterator

import pytest
from control_plane import ApiError, KubeClient, Manifest
from snippets import commands, snippets

from hack.docs.pages import ROOT

pytestmark = pytest.mark.cluster

CHART = "charts/pgmq-bus"
GRANT = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings"

Run = Callable[..., str]


def lines(*command: str, page: str | None = None) -> list[list[str]]:
    """What is typed for it, each only once."""
    found = {
        tuple(words)
        for snippet in snippets("sh")
        if page in (None, snippet.page)
        for words in commands(snippet.text)
        if tuple(words[: len(command)]) == command
    }
    return [list(words) for words in sorted(found)]


@pytest.fixture(scope="module")
def typed(run: Run, kube: KubeClient, definitions: dict[str, Manifest]) -> Iterator[Callable[[list[str]], str]]:
    """Types a line; the chart is installed as its README has it, and uninstalled as the docs have it."""

    def type_(words: list[str]) -> str:
        put_in = {CHART: str(ROOT / CHART), "CHART": str(ROOT / CHART), "RELEASE": "pgmq-bus", "NAMESPACE": "pgmq-bus"}
        program, *arguments = [put_in.get(word, word) for word in words if word != "--wait"]
        return run(program, *arguments, *(["--no-hooks"] if program == "helm" else []))

    try:
        kube.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    except ApiError as error:
        if error.status != 409:
            raise
    (install,) = lines("helm", "install", page="charts/pgmq-bus/README.md")
    type_(install)
    yield type_
    (uninstall,) = lines("helm", "uninstall", page="docs/uninstalling.md")
    assert "uninstalled" in type_(uninstall)


def revision(run: Run) -> int:
    return int(json.loads(run("helm", "status", "pgmq-bus", "-n", "pgmq-bus", "-o", "json"))["version"])


def test_a_namespace_that_was_granted_by_hand_is_taken_over(
    run: Run, typed: Callable[[list[str]], str], kube: KubeClient
) -> None:
    """As the page on errors says: the chart's grant takes the place of that one."""
    granted = ("--clusterrole=pgmq-bus-secrets", "--serviceaccount=pgmq-bus:pgmq-bus")
    run("kubectl", "create", "rolebinding", "pgmq-bus-secrets", "-n", "shop", *granted)
    (remove,) = lines("kubectl", "delete", "rolebinding", page="docs/errors.md")
    (upgrade,) = [words for words in lines("helm", "upgrade", page="docs/errors.md") if "RELEASE" in words]
    with pytest.raises(AssertionError, match="pgmq-bus-secrets"):
        typed(upgrade)
    typed(remove)
    typed(upgrade)
    (binding,) = [item for item in kube.get(GRANT)["items"] if item["metadata"]["name"] == "pgmq-bus-secrets"]
    assert binding["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize("upgrade", lines("helm", "upgrade", page="docs/upgrading.md"), ids=" ".join)
def test_an_upgrade_keeps_what_was_set(run: Run, typed: Callable[[list[str]], str], upgrade: list[str]) -> None:
    values = run("helm", "get", "values", "pgmq-bus", "-n", "pgmq-bus", "-o", "json")
    assert "default" in json.loads(values)["secretNamespaces"]
    before = revision(run)
    typed(upgrade)
    assert revision(run) == before + 1
    assert run("helm", "get", "values", "pgmq-bus", "-n", "pgmq-bus", "-o", "json") == values
