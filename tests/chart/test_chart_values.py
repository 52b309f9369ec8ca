"""What values the chart takes, and what it says to the others."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_operator.model import ChannelSpec, DatabaseSpec
from hack.docs.chart_readme import README, updated
from hack.docs.values import values


def test_lint_is_clean(helm: Callable[..., str], chart: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"replicaCount": 2}, "(root): Additional property replicaCount is not allowed"),
        ({"replicas": 0}, "replicas: Must be greater than or equal to 1"),
        ({"image": {"name": "x"}}, "image: Additional property name is not allowed"),
        ({"image": {"repository": ""}}, "image.repository: String length must be greater than or equal to 1"),
        ({"image": {"repository": "a b"}}, "image.repository: Does not match pattern"),
        ({"image": {"tag": "1:2"}}, "image.tag: Does not match pattern"),
        ({"image": {"digest": "a" * 64}}, "image.digest: Does not match pattern"),
        ({"image": {"digest": "sha256:" + "a" * 63}}, "image.digest: Does not match pattern"),
        (
            {"image": {"pullPolicy": "Sometimes"}},
            "image.pullPolicy: image.pullPolicy must be one of the following",
        ),
        (
            {"imagePullSecrets": ["registry"]},
            "imagePullSecrets.0: Invalid type. Expected: object, given: string",
        ),
        ({"imagePullSecrets": [{}]}, "imagePullSecrets.0: name is required"),
        ({"log": {"level": "verbose"}}, "log.level: log.level must be one of the following"),
        ({"log": {"format": "xml"}}, "log.format: log.format must be one of the following"),
        ({"metrics": {"port": 9443}}, "metrics.port: Must not validate the schema (not)"),
        ({"metrics": {"port": 80}}, "metrics.port: Must be greater than or equal to 1024"),
        ({"metrics": {"maxChannels": -1}}, "metrics.maxChannels: Must be greater than or equal to 0"),
        (
            {"metrics": {"serviceMonitor": {"interval": "soon"}}},
            "metrics.serviceMonitor.interval: Does not match pattern",
        ),
        ({"credentialUnusedSeconds": 1}, "credentialUnusedSeconds: Must be greater than or equal to 10"),
        ({"resyncSeconds": 0}, "resyncSeconds: Must be greater than or equal to 5"),
        ({"resyncSeconds": "60s"}, "resyncSeconds: Invalid type. Expected: integer, given: string"),
        ({"secretNamespaces": "default"}, "secretNamespaces: Invalid type. Expected: array, given: string"),
        ({"secretNamespaces": ["*"]}, "secretNamespaces.0: Does not match pattern"),
        ({"secretNamespaces": ["a", "a"]}, "secretNamespaces: array items[0,1] must be unique"),
        ({"serviceAccount": {"name": "x"}}, "serviceAccount: Additional property name is not allowed"),
        ({"webhook": {"failurePolicy": "Fail"}}, "webhook: Additional property failurePolicy is not allowed"),
        (
            {"webhook": {"certManager": {"enabled": "yes"}}},
            "webhook.certManager.enabled: Invalid type. Expected: boolean, given: string",
        ),
        ({"runtimeInjection": {"image": "a b"}}, "runtimeInjection.image: Does not match pattern"),
        ({"runtimeInjection": {"enabled": None}}, "runtimeInjection: enabled is required"),
        ({"resources": {"cpu": "1"}}, "resources: Additional property cpu is not allowed"),
        ({"podLabels": {"a": 1}}, "podLabels.a: Invalid type. Expected: string, given: integer"),
        ({"tolerations": {}}, "tolerations: Invalid type. Expected: array, given: object"),
        ({"fullnameOverride": "x" * 41}, "fullnameOverride: String length must be less than or equal to 40"),
        ({"fullnameOverride": "Bus_1"}, "fullnameOverride: Does not match pattern"),
        ({"nameOverride": "Bus"}, "nameOverride: Does not match pattern"),
        ({"devPostgres": {"persistence": {}}}, "devPostgres: Additional property persistence is not allowed"),
        ({"devPostgres": {"runAsUser": 0}}, "devPostgres.runAsUser: Must be greater than or equal to 1"),
        (
            {"devPostgres": {"image": ""}},
            "devPostgres.image: String length must be greater than or equal to 1",
        ),
    ],
)
def test_bad_values_are_refused(refusal: Callable[..., str], values: dict[str, Any], error: str) -> None:
    assert f"- {error}" in refusal(values)


def test_every_value_is_explained_and_checked() -> None:
    """The comment is what the reference shows, and the schema what Helm refuses by."""
    for value in values():
        assert value.comment, f"values.yaml: write a comment right above {value.path}"
        assert value.schema, f"values.schema.json does not know {value.path}"


def test_schema_names_the_values_there_are(chart: Path) -> None:
    """Else a value could be set that values.yaml does not explain."""
    schema = json.loads((chart / "values.schema.json").read_text())
    compared = [("", schema), *((value.path, value.schema) for value in values() if value.has_parts)]
    for path, definition in compared:
        below = {value.path for value in values() if value.path.rpartition(".")[0] == path}
        assert {f"{path}.{name}".lstrip(".") for name in definition["properties"].keys() - {"global"}} == below
        assert definition["additionalProperties"] is False, path


def test_defaults_can_be_used_below_another_chart(render: Callable[..., Any]) -> None:
    assert render({"global": {"imageRegistry": "example.org"}}) == render()


def test_the_readme_has_the_values_as_they_are() -> None:
    text = README.read_text()
    assert updated(text) == text, "run python -m hack.docs.chart_readme"


def test_what_registries_of_charts_are_told(chart: Path, helm: Callable[..., str], tmp_path: Path) -> None:
    """The definitions that there are, examples that can be used, and a package with README and licence."""
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    annotations = described["annotations"]
    definitions = [yaml.safe_load(path.read_text()) for path in sorted((chart / "crds").glob("*.yaml"))]
    listed = yaml.safe_load(annotations["artifacthub.io/crds"])
    assert sorted((one["name"], one["kind"], one["version"]) for one in listed) == [
        (one["metadata"]["name"], one["spec"]["names"]["kind"], one["spec"]["versions"][0]["name"])
        for one in definitions
    ]
    database, channel = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    DatabaseSpec.model_validate(database["spec"])
    ChannelSpec.model_validate(channel["spec"])
    assert all(isinstance(value, str) for value in annotations.values())
    helm("package", str(chart), "--destination", str(tmp_path))
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        names = package.getnames()
    assert {f"pgmq-bus/{name}" for name in ("README.md", "LICENSE", "values.schema.json")} <= set(names)
    licence = chart / "LICENSE"
    assert licence.read_text() == (chart.parents[1] / "LICENSE").read_text()
