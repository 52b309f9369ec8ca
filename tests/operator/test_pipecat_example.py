"""The example for users of pipecat with its own manifests: injected by the operator, its programs run as processes.

What is not tried here is the image, which is as large as pipecat and its dependencies: no node is there to run it.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pipecat_example
import pytest
import yaml
from control_plane import KubeClient
from operator_world import API, Namespace, Ref, World
from projected import project

JOBS = "/apis/batch/v1/namespaces/{}/jobs?fieldValidation=Strict&dryRun=All"
PODS = "/api/v1/namespaces/{}/pods?fieldValidation=Strict&dryRun=All"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((pipecat_example.FOLDER / name).read_text()))


def injected(kube: KubeClient, namespace: Namespace, job: dict[str, Any]) -> dict[str, Any]:
    """The pod that the Job's controller would create, as the API server would store it."""
    accepted = kube.create(JOBS.format(namespace.name), job)
    template = accepted["spec"]["template"]
    metadata = {key: template["metadata"][key] for key in ("labels", "annotations")}
    # The Job's own labels are for its controller.
    metadata["labels"] = {name: value for name, value in metadata["labels"].items() if "job" not in name}
    return kube.create(
        PODS.format(namespace.name), {"metadata": metadata | {"generateName": "pod-"}, "spec": template["spec"]}
    )


def environment(namespace: Namespace, pod: dict[str, Any], root: Path) -> dict[str, str]:
    """What the container finds: the Secrets that it mounts, where it is told to look."""
    (container,) = pod["spec"]["containers"]
    told = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    secrets = {item["name"]: item["secret"]["secretName"] for item in pod["spec"]["volumes"] if "secret" in item}
    for mount in container["volumeMounts"]:
        if mount["name"] in secrets:
            data = namespace.secret(secrets[mount["name"]])
            assert data is not None
            project(root / mount["mountPath"].lstrip("/"), data)
    return told | {"SERVICE_BINDING_ROOT": str(root / told["SERVICE_BINDING_ROOT"].lstrip("/"))}


async def run(program: str, environment: dict[str, str]) -> list[str]:
    """The lines that it prints, until it ends by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", program, cwd=pipecat_example.FOLDER, env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


@pytest.mark.timeout(400)
async def test_a_call_is_handed_over_and_back(webhook: World, namespace: Namespace, tmp_path: Path) -> None:
    kube = webhook.kube
    kube.create(f"/api/v1/namespaces/{namespace.name}/serviceaccounts", {"metadata": {"name": "default"}})
    database = namespace.database((await webhook.postgres()).dsn, default=True)
    database.wait_ready()
    (channel,) = documents("buschannel.yaml")
    kube.create(f"{API}/namespaces/{namespace.name}/buschannels?fieldValidation=Strict", channel)
    Ref(kube, "buschannels", namespace.name, "call").wait_ready()

    jobs = documents("workers.yaml")
    assert [job["metadata"]["name"] for job in jobs] == list(pipecat_example.WORKERS)
    pods = {job["metadata"]["name"]: injected(kube, namespace, job) for job in jobs}
    printed = await asyncio.gather(
        *(
            run(*pod["spec"]["containers"][0]["args"], environment(namespace, pod, tmp_path / name))
            for name, pod in pods.items()
        )
    )
    pipecat_example.check({name: [line.strip() for line in lines] for name, lines in zip(pods, printed, strict=True)})
