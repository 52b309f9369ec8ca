"""A real API server with the project's resource definitions; no node, so that nothing runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from hack.cluster.layout import Layout

ROOT = Path(__file__).parents[2]
LAYOUT = Layout.of("pgmq-bus-apiserver")
GROUP, VERSION = "pgmqbus.dev", "v1alpha1"
PLURALS = {"BusDatabase": "busdatabases", "BusChannel": "buschannels"}
# What the API server adds when a value is missing or of a wrong type, so that the rules have nothing to look at.
RULES_NOT_CHECKED = (
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)

Manifest = dict[str, Any]


def hack_cluster(command: str, *options: str) -> None:
    # Whatever cluster the environment asks for: this one is our own, and nothing here may reach another.
    environment = os.environ | {"CLUSTER": "local"}
    arguments = [sys.executable, "-m", "hack.cluster", command, "--name", LAYOUT.name, *options]
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[Path]:
    """The kubeconfig of an API server that is there for this session only."""
    try:
        hack_cluster("down")  # what a killed session has left
        hack_cluster("up", "--control-plane-only")
        yield LAYOUT.kubeconfig
    finally:
        hack_cluster("down")


@pytest.fixture(scope="session")
def api(apiserver: Path) -> Iterator[client.ApiClient]:
    """A client of the API server, as its administrator."""
    with config.new_client_from_config(str(apiserver)) as api_client:
        yield api_client


@pytest.fixture(scope="session")
def run(apiserver: Path) -> Callable[..., str]:
    """Run kubectl or helm against the API server and return standard output."""
    programs = {"helm": Path(sys.executable).parent / "helm", "kubectl": LAYOUT.kubectl}

    def run_program(program: str, *arguments: str, stdin: str = "") -> str:
        command = [str(programs[program]), "--kubeconfig", str(apiserver), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_program


def condition(definition: Any, kind: str) -> str | None:
    statuses = [c.status for c in definition.status.conditions or [] if c.type == kind]
    return statuses[0] if statuses else None


@pytest.fixture(scope="session")
def definitions(api: client.ApiClient) -> dict[str, Manifest]:
    """The resource definitions as crds/ has them, by kind, established in the API server."""
    extensions = client.ApiextensionsV1Api(api)
    manifests = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    for manifest in manifests:
        extensions.create_custom_resource_definition(manifest)
    for manifest in manifests:
        deadline = time.monotonic() + 30
        while True:
            found = extensions.read_custom_resource_definition(manifest["metadata"]["name"])
            if condition(found, "Established") == "True":
                break
            assert time.monotonic() < deadline, found.status
            time.sleep(0.05)
        # A definition that is accepted may still have been found wanting.
        assert condition(found, "NamesAccepted") == "True", found.status
        assert condition(found, "NonStructuralSchema") is None, found.status
    return {manifest["spec"]["names"]["kind"]: manifest for manifest in manifests}


class Resources:
    """BusDatabases and BusChannels in the API server."""

    def __init__(self, api_client: client.ApiClient) -> None:
        self._objects = client.CustomObjectsApi(api_client)

    def create(self, manifest: Manifest, dry_run: bool = True) -> Any:
        """Create, or have the API server say what it would create."""
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        created: Any = self._objects.create_namespaced_custom_object(
            GROUP,
            VERSION,
            "default",
            PLURALS[manifest["kind"]],
            manifest,
            field_validation="Strict",
            **options,
        )
        return created

    def replace(self, manifest: Manifest) -> Manifest:
        """Have the API server say what it would replace the object of this name by."""
        replaced: Any = self._objects.replace_namespaced_custom_object(
            GROUP,
            VERSION,
            "default",
            PLURALS[manifest["kind"]],
            manifest["metadata"]["name"],
            manifest,
            field_validation="Strict",
            dry_run="All",
        )
        return replaced

    def patch_status(self, kind: str, name: str, status: Manifest) -> Manifest:
        patched: Any = self._objects.patch_namespaced_custom_object_status(
            GROUP, VERSION, "default", PLURALS[kind], name, {"status": status}
        )
        return patched

    def delete(self, manifest: Manifest) -> None:
        self._objects.delete_namespaced_custom_object(
            GROUP, VERSION, "default", PLURALS[manifest["kind"]], manifest["metadata"]["name"]
        )


@pytest.fixture(scope="session")
def resources(api: client.ApiClient, definitions: dict[str, Manifest]) -> Resources:
    """Creates and replaces BusDatabases and BusChannels."""
    assert definitions.keys() == PLURALS.keys()
    return Resources(api)


@pytest.fixture(scope="session")
def refusal() -> Callable[..., list[tuple[str, str]]]:
    """Call something that the API server must refuse as invalid, and return (field, message) of each cause."""

    def refused(call: Callable[..., Any], *arguments: Any) -> list[tuple[str, str]]:
        with pytest.raises(ApiException) as caught:
            call(*arguments)
        status = json.loads(caught.value.body or "")
        assert status["reason"] == "Invalid", status["message"]
        causes = [(cause["field"], cause["message"]) for cause in status["details"]["causes"]]
        return [cause for cause in causes if cause != RULES_NOT_CHECKED]

    return refused
