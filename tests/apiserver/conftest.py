"""A real API server with the project's resource definitions; no node, so that nothing runs."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import GROUP, VERSION, Manifest
from kubernetes import aio, client, config
from kubernetes.client.exceptions import ApiException

from hack.cluster.layout import cache_directory

PLURALS = {"BusDatabase": "busdatabases", "BusChannel": "buschannels"}
# What the API server adds when a value is missing or of a wrong type, so that the rules have nothing to look at.
RULES_NOT_CHECKED = (
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


@pytest.fixture(scope="session")
def api(apiserver: Path) -> Iterator[client.ApiClient]:
    """A client of the API server, as its administrator."""
    with config.new_client_from_config(str(apiserver)) as api_client:
        yield api_client


@pytest.fixture(name="client")
async def aio_client(apiserver: Path) -> AsyncIterator[aio.client.ApiClient]:
    """Such a client as the operator has."""
    async with await aio.config.new_client_from_config(config_file=str(apiserver)) as api_client:
        yield api_client


@pytest.fixture(scope="session")
def run(apiserver: Path) -> Callable[..., str]:
    """Run kubectl or helm against the API server and return standard output."""
    programs = {"helm": Path(sys.executable).parent / "helm", "kubectl": cache_directory() / "bin" / "kubectl"}

    def run_program(program: str, *arguments: str, stdin: str = "") -> str:
        command = [str(programs[program]), "--kubeconfig", str(apiserver), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_program


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
