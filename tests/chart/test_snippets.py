"""What README and docs tell users to type for Helm is what Helm and the chart take."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from snippets import Snippet, commands, commands_in_text, snippets

from hack.docs.pages import ROOT

CHART = "charts/pgmq-bus"

_FLAG = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)", re.MULTILINE)
_OF_INSTALLING = re.compile(r"^--(set|set-string|values|namespace|version)$|^-[fn]$")


def _lines() -> list[Any]:
    return [
        pytest.param(snippet, words[1:], id=f"{snippet}:{'-'.join(words[1:3])}")
        for snippet in [*snippets("sh"), *commands_in_text()]
        for words in commands(snippet.text)
        if words[0] == "helm"
    ]


@pytest.fixture(scope="session")
def flags(helm: Callable[..., str]) -> Callable[..., set[str]]:
    """The flags of a command of helm."""

    def of(*command: str) -> set[str]:
        return {flag for found in _FLAG.findall(helm(*command, "--help")) for flag in found if flag}

    return of


@pytest.mark.parametrize(("snippet", "arguments"), _lines())
def test_helm_takes_it(
    snippet: Snippet, arguments: list[str], helm: Callable[..., str], flags: Callable[..., set[str]]
) -> None:
    command = arguments[:2] if arguments[0] == "show" else arguments[:1]
    assert {word.partition("=")[0] for word in arguments if word.startswith("-")} <= flags(*command)
    if CHART not in arguments:
        return
    if command == ["show", "crds"]:
        assert "kind: CustomResourceDefinition" in helm("show", "crds", str(ROOT / CHART))
    else:
        assert "kind: Deployment" in helm("template", "pgmq-bus", str(ROOT / CHART), *_values(arguments))


@pytest.mark.parametrize("snippet", [one for one in snippets("yaml") if one.note == "values"], ids=str)
def test_values_can_be_used(snippet: Snippet, render: Callable[..., Any]) -> None:
    (values,) = snippet.documents()
    assert render(values).of("Deployment")


def _given_by_others() -> list[Any]:
    """Values in the manifests of tools that install charts."""
    found = []
    for snippet in snippets("yaml"):
        for document in [] if snippet.note == "values" else snippet.documents():
            spec = document.get("spec", {})
            values = spec.get("values") or spec.get("source", {}).get("helm", {}).get("valuesObject")
            if values is not None:
                found.append(pytest.param(values, id=f"{snippet}:{document['kind']}"))
    return found


@pytest.mark.parametrize("values", _given_by_others())
def test_values_in_manifests_of_others_can_be_used(values: dict[str, Any], render: Callable[..., Any]) -> None:
    assert render(values).of("Deployment")


def _values(arguments: list[str]) -> list[str]:
    """Those flags that change what is rendered."""
    return [
        word for flag, value in itertools.pairwise(arguments) if _OF_INSTALLING.match(flag) for word in (flag, value)
    ]
