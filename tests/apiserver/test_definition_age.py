"""Whether definitions in a real API server are found to be older, and what is said then."""

import logging
from collections.abc import Iterator

import pytest
from control_plane import GROUP, KubeClient, Manifest
from kubernetes.aio.client import ApiClient

from bus_operator import definition_age
from bus_operator.definition_age import DefinitionAge
from bus_operator.kube_api import KubeApi

pytestmark = pytest.mark.cluster

CHANNELS, DATABASES = f"buschannels.{GROUP}", f"busdatabases.{GROUP}"
PATH = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CHANNELS}"
REMEDY = "helm show crds CHART | kubectl apply --server-side --force-conflicts -f -"


@pytest.fixture
def age(client: ApiClient, kube: KubeClient, definitions: dict[str, Manifest]) -> Iterator[DefinitionAge]:
    """Of an operator of version 2.0.0. Afterwards the definitions are as they were."""
    assert definitions
    for name in (CHANNELS, DATABASES):
        state(kube, name, "2.0.0")
    yield DefinitionAge(KubeApi(client), expected="2.0.0")
    kube.install_definitions()


def state(kube: KubeClient, name: str, version: str | None) -> None:
    """Gives a definition this version, or none."""
    path = PATH.replace(CHANNELS, name)
    kube.patch(path, {"metadata": {"annotations": {"pgmqbus.dev/version": version}}})


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(item.levelname, item.message) for item in caplog.records if item.name == definition_age.__name__]
    caplog.clear()
    return found


async def test_older_until_somebody_upgrades_it(
    age: DefinitionAge, kube: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state(kube, CHANNELS, "1.10.0")
    assert await age.look()
    assert age.outdated == {CHANNELS: True, DATABASES: False}
    ((level, message),) = said(caplog)
    assert level == "WARNING"
    assert message.startswith(f"definition {CHANNELS} is of version 1.10.0, older than the 2.0.0 of this operator: ")
    assert message.endswith(REMEDY)

    assert await age.look()
    assert said(caplog) == [], "once is enough"
    state(kube, CHANNELS, "2.0.0")
    assert await age.look()
    assert age.outdated == {CHANNELS: False, DATABASES: False}
    assert said(caplog) == [("INFO", f"definition {CHANNELS} is up to date now")]


@pytest.mark.parametrize(
    ("version", "older"), [("2.0.1", False), ("2.0.0-rc1", False), ("10.0.0", False), ("1.9.9", True), (None, True)]
)
async def test_versions(age: DefinitionAge, kube: KubeClient, version: str | None, older: bool) -> None:
    """A newer one is there after a rollback, and is no trouble: it knows all fields of before."""
    state(kube, CHANNELS, version)
    assert await age.look()
    assert age.outdated[CHANNELS] == older


async def test_one_that_is_not_installed(
    age: DefinitionAge, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definition_age, "PLURALS", {"BusLine": "buslines"})
    assert not await age.look()
    assert age.outdated == {f"buslines.{GROUP}": True}
    assert said(caplog) == [("WARNING", f"definition buslines.{GROUP} is not installed. Install it: {REMEDY}")]


async def test_one_that_may_not_be_read(
    age: DefinitionAge, client: ApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is claimed about it."""
    client.set_default_header("Impersonate-User", "somebody")
    for _ in range(2):
        assert not await age.look()
    assert age.outdated == {}
    first, second = said(caplog)
    assert f"definition {DATABASES} cannot be read" in first[1] + second[1]
    assert "is forbidden" in first[1]
