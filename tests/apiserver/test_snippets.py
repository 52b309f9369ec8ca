"""Manifests and kubectl commands of README and docs, tried on a real API server with the real definitions.

There are no nodes: what needs a pod (logs, exec, port-forward, a rollout) is parsed only. What a page leaves to the
reader, in capitals, is put in: of each kind there is an object of one name.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import ApiError, KubeClient, Manifest
from snippets import Snippet, commands, commands_in_text, snippets

from hack.cluster.layout import cache_directory
from hack.docs.pages import ROOT

pytestmark = pytest.mark.cluster

KUBECTL = cache_directory() / "bin" / "kubectl"
GROUP = "/apis/pgmqbus.dev/v1alpha1"

FOREIGN = {
    "argoproj.io",
    "kustomize.toolkit.fluxcd.io",
    "postgresql.cnpg.io",
    "source.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
}
"""Groups of other projects, whose definitions are not here: of these the YAML is parsed only."""

WITHOUT_NODES = {
    "annotate",
    "api-resources",
    "apply",
    "auth",
    "create",
    "delete",
    "describe",
    "explain",
    "get",
    "label",
    "patch",
    "wait",
}
"""What can be executed here."""

READING = {"auth", "describe", "explain", "get", "label", "patch"}
"""Of those, what a sentence shows as a whole; others may lack what the sentence says."""

FOLLOWED = {"README.md", "docs/quickstart.md"}
"""Their lines need what those before have made; tests/cluster follows them from the first to the last."""

ANY = "any"
"""The namespace, name and file that stand for whichever the reader has."""

FILLED_IN = {
    r"\bcrd NAME\b": "crd buschannels.pgmqbus.dev",
    r"\b(RELEASE_)?NAMESPACE(_OF_THE_DATABASE)?\b": ANY,
    r"\b(NAME|POD|SERVICE|FILE_WITH_THE_\w+)\b": ANY,
}
"""What is in capitals in commands."""

ABSENT = {"certificate"}
"""Kinds of others, whose definitions are not here."""

GROUPS_OF_COMMANDS = {"auth", "config", "create", "rollout", "set", "top"}

WHOLE: dict[str, Manifest] = {
    "BusChannel": {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": {"name": "part"}},
    "BusDatabase": {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusDatabase",
        "metadata": {"name": "part"},
        "spec": {"connectionSecretRef": {"name": "postgres-admin"}},
    },
    "Pod": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "part"},
        "spec": {"containers": [{"name": "worker", "image": "worker"}]},
    },
}
"""What a snippet may be a part of."""

READY = [
    {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for kind, reason in (("Ready", "Ready"), ("CredentialsCurrent", "Current"))
]

# Nothing that a page deletes, changes or makes is gone or there for the next one.
SHIM = """#!/bin/sh
case "$1" in
  create) exec {kubectl} "$@" --dry-run=client ;;
  delete) exec {kubectl} "$@" --dry-run=server --ignore-not-found ;;
  annotate|apply|label|patch) exec {kubectl} "$@" --dry-run=server ;;
  *) exec {kubectl} "$@" ;;
esac
"""

_FLAG = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def namespaces(kube: KubeClient, definitions: dict[str, Manifest]) -> None:
    """All that a page names, each with the objects that the pages take for granted."""
    found = {document["metadata"].get("namespace") for snippet in snippets("yaml") for document in _whole(snippet)}
    for words in (words for snippet in snippets("sh") for words in commands(snippet.text)):
        found |= {value for flag, value in itertools.pairwise(words) if flag in ("-n", "--namespace")}
    for name in sorted(name for name in found | {"default"} if re.fullmatch(r"[a-z0-9-]+", name or "")):
        _create(kube, "/api/v1/namespaces", {"metadata": {"name": name}})
        for plural, whole, called in (("busdatabases", "BusDatabase", "main"), ("buschannels", "BusChannel", "orders")):
            collection = f"{GROUP}/namespaces/{name}/{plural}"
            _create(kube, collection, WHOLE[whole] | {"metadata": {"name": called}})
            kube.patch(f"{collection}/{called}/status", {"status": {"conditions": READY}})
    for name in ("default", ANY):
        _create_one_of_each(kube, name)


def _create_one_of_each(kube: KubeClient, namespace: str) -> None:
    """What is meant by a command with a name in capitals."""
    _create(kube, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    metadata = {"name": ANY}
    core = f"/api/v1/namespaces/{namespace}"
    _create(kube, f"{core}/secrets", {"metadata": metadata, "stringData": {"ca.crt": "none", "host": "none"}})
    _create(kube, f"{core}/serviceaccounts", {"metadata": {"name": "default"}})
    _create(kube, f"{core}/pods", WHOLE["Pod"] | {"metadata": metadata})
    _create(kube, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", {"metadata": metadata})
    for plural, kind in (("busdatabases", "BusDatabase"), ("buschannels", "BusChannel")):
        _create(kube, f"{GROUP}/namespaces/{namespace}/{plural}", WHOLE[kind] | {"metadata": metadata})


def _create(kube: KubeClient, collection: str, body: Manifest) -> None:
    try:
        kube.create(collection, body)
    except ApiError as error:
        if error.status != 409:
            raise


def _whole(snippet: Snippet) -> list[Manifest]:
    """The manifests in it; what is a part is put into the rest."""
    if snippet.note == "values":
        return []
    documents = snippet.documents()
    return [_merged(WHOLE[snippet.part_of], document) for document in documents] if snippet.part_of else documents


def _merged(whole: Any, part: Any) -> Any:
    if not isinstance(whole, dict) or not isinstance(part, dict):
        return part
    return whole | {key: _merged(whole.get(key), value) for key, value in part.items()}


def _ours(page: str) -> list[Manifest]:
    documents = [document for snippet in snippets("yaml") if snippet.page == page for document in _whole(snippet)]
    return [document for document in documents if document["apiVersion"].partition("/")[0] not in FOREIGN]


@pytest.mark.parametrize("page", sorted({one.page for one in snippets("yaml") if _ours(one.page)}))
@pytest.mark.usefixtures("namespaces")
def test_manifests_are_accepted(page: str, run: Callable[..., str]) -> None:
    """With their fields known and their rules kept."""
    arguments = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    manifests = _ours(page)
    done = run("kubectl", *arguments, stdin=yaml.safe_dump_all(manifests))
    assert done.count("(server dry run)") == len(manifests)


@pytest.fixture(scope="session")
def flags(run: Callable[..., str]) -> Callable[..., set[str]]:
    """The flags of a command of kubectl, those of all commands included."""
    known: dict[tuple[str, ...], set[str]] = {}

    def of(*command: str) -> set[str]:
        if command not in known:
            known[command] = {flag for found in _FLAG.findall(run("kubectl", *command)) for flag in found if flag}
        return known[command]

    return of


def _of_kubectl() -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{snippet}:{words[1]}")
        for snippet in [*snippets("sh"), *commands_in_text()]
        for words in commands(snippet.text)
        if words[0] == "kubectl" and words[1] != "bus"
    ]


@pytest.mark.parametrize("arguments", _of_kubectl())
def test_kubectl_has_the_command_and_its_flags(arguments: list[str], flags: Callable[..., set[str]]) -> None:
    in_group = arguments[0] in GROUPS_OF_COMMANDS and not arguments[1].startswith("-")
    below = 3 if arguments[:2] == ["create", "secret"] else 2 if in_group else 1
    if "--" in arguments:  # what follows is another program's
        arguments = arguments[: arguments.index("--")]
    used = {word.partition("=")[0] for word in arguments if re.match(r"^--?[a-z]|^-[A-Z]$", word)}
    assert used <= flags(*arguments[:below], "--help") | flags("options")


@pytest.fixture
def shell(apiserver: Path, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Runs a piece of shell against the API server, without lasting effect."""
    shim = tmp_path / "bin" / "kubectl"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(kubectl=KUBECTL))
    shim.chmod(0o755)

    def run(text: str) -> None:
        environment = os.environ | {
            "KUBECONFIG": str(apiserver),
            "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    yield run
    shutil.rmtree(shim.parent)


def _run_here() -> list[Snippet]:
    """Blocks, and of those that need more than there is here, the lines that do not."""
    blocks = [
        replace(part, text=_filled_in(part.text))
        for snippet in snippets("sh")
        if snippet.is_run
        for part in ([snippet] if _can_run(snippet) else _lines(snippet))
    ]
    return [part for part in blocks if _can_run(part)]


def _lines(snippet: Snippet) -> list[Snippet]:
    if snippet.page in FOLLOWED:
        return []
    text = re.sub(r"\\\n\s*", " ", snippet.text)
    return [replace(snippet, line=snippet.line + number, text=one) for number, one in enumerate(text.splitlines(), 1)]


def _in_sentences() -> list[Snippet]:
    found = [replace(one, text=_filled_in(one.text)) for one in commands_in_text()]
    return [one for one in found if _can_run(one) and _is_whole(commands(one.text)[0])]


def _is_whole(words: list[str]) -> bool:
    """Whether a command in a sentence is, and not only its name."""
    return len(words) > 2 and words[1] in READING and words[2] not in ABSENT


def _can_run(snippet: Snippet) -> bool:
    found = commands(snippet.text)
    runs = all(
        words[0] in ("base64", "read") or (words[0] == "kubectl" and words[1] in WITHOUT_NODES) for words in found
    )
    return runs and any(words[0] == "kubectl" for words in found)


def _filled_in(text: str) -> str:
    for capitals, meant in FILLED_IN.items():
        text = re.sub(capitals, meant, text)
    return text


@pytest.mark.parametrize("snippet", [*_run_here(), *_in_sentences()], ids=str)
@pytest.mark.usefixtures("namespaces")
def test_kubectl_is_run(snippet: Snippet, shell: Callable[[str], None], tmp_path: Path) -> None:
    # The page's own files, or those that all pages take for granted.
    for page in ("docs/quickstart.md", snippet.page):
        for other in snippets():
            if other.page == page and other.file:
                (tmp_path / other.file).write_text(other.text)
    (tmp_path / ANY).touch()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shell(snippet.text)
