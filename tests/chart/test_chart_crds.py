"""The chart ships the custom resource definitions of crds/ as they are."""

import tomllib
from pathlib import Path

import yaml

from bus_operator import definitions

ROOT = Path(__file__).parents[2]


def test_chart_has_the_same_definitions(chart: Path) -> None:
    source = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    shipped = {path.name: path.read_text() for path in (chart / "crds").glob("*.yaml")}
    assert source
    assert shipped == source, "run: cp crds/*.yaml charts/pgmq-bus/crds/"


def test_the_distribution_has_the_same_definitions() -> None:
    """With the version that tells an older one from a newer one."""
    source = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert list(definitions.shipped()) == source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for definition in source:
        assert definition["metadata"]["annotations"][definitions.VERSION_ANNOTATION] == project["version"]


def test_chart_and_distribution_have_one_version(chart: Path) -> None:
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["version"] == metadata["appVersion"] == project["version"]
