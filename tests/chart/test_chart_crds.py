"""The chart ships the custom resource definitions of crds/ as they are."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_chart_has_the_same_definitions(chart: Path) -> None:
    source = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    shipped = {path.name: path.read_text() for path in (chart / "crds").glob("*.yaml")}
    assert source
    assert shipped == source, "run: cp crds/*.yaml charts/pgmq-bus/crds/"


def test_chart_and_distribution_have_one_version(chart: Path) -> None:
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["version"] == metadata["appVersion"] == project["version"]
