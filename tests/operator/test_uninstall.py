"""The operator is uninstalled: no BusChannel hangs on its finalizer, and nothing in a database changes."""

import os
import subprocess
from pathlib import Path

import pytest
from control_plane import ApiError, KubeClient
from operator_process import BIN, RELEASE, Operator, account_kubeconfig
from operator_world import API, Namespace, World

FINALIZER = "pgmqbus.dev/finalizer"


@pytest.fixture
def hook(world: World, tmp_path: Path) -> Path:
    """A kubeconfig with exactly the rights of the chart's hook."""
    return account_kubeconfig(world.kube, tmp_path, f"{RELEASE}-uninstall")


def release_finalizers(kubeconfig: Path, *options: str) -> tuple[int, list[str]]:
    """The command of the hook: its exit status and its output."""
    done = subprocess.run(
        [BIN / "busctl", "release-finalizers", *(options or ("--all-namespaces",))],
        env=os.environ | {"KUBECONFIG": str(kubeconfig)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).splitlines()


async def test_nothing_hangs(world: World, namespace: Namespace, operator: Operator, hook: Path) -> None:
    created = await world.postgres()
    namespace.database(created.dsn)
    deleted = namespace.channel("deleted", deletionPolicy="Delete")
    kept = namespace.channel("kept")
    for channel in (deleted, kept):
        channel.wait_ready()
    binding = namespace.secret("kept-bus")
    operator.kill()
    try:
        world.kube.patch(kept.path, {"metadata": {"finalizers": [FINALIZER, "example.org/another"]}})
        deleted.delete()
        assert deleted.get() is not None
        status, output = release_finalizers(hook)
        assert status == 0
        assert output == [
            f"BusChannel {namespace.name}/deleted was being deleted and goes; its channel stays in the database"
            " (Delete)",
            "2 of 2 BusChannels had the operator's finalizer and were released",
        ]
        assert deleted.get() is None
        # Of others' finalizers it takes none.
        assert kept.get()["metadata"]["finalizers"] == ["example.org/another"]
        world.kube.patch(kept.path, {"metadata": {"finalizers": None}})
        assert release_finalizers(hook) == (0, ["0 of 1 BusChannels had the operator's finalizer and were released"])
        assert namespace.secret("kept-bus") == binding
        assert await created.channels() == [f"{namespace.name}.deleted", f"{namespace.name}.kept"]
    finally:
        operator.start()
    # Installed again, it goes on where it was.
    namespace.channel("new").wait_ready()
    assert kept.get()["metadata"]["finalizers"] == [FINALIZER]
    assert namespace.secret("kept-bus") == binding


def test_page_by_page(world: World, namespace: Namespace, operator: Operator, hook: Path) -> None:
    """More than one page, of BusChannels that never were made."""
    operator.kill()
    try:
        path = f"{API}/namespaces/{namespace.name}/buschannels"
        for number in range(501):
            metadata = {"name": f"c{number}", "finalizers": [FINALIZER]}
            world.kube.create(
                path, {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata, "spec": {}}
            )
        assert release_finalizers(hook, "--namespace", namespace.name) == (
            0,
            ["501 of 501 BusChannels had the operator's finalizer and were released"],
        )
        world.kube.delete(path)
        assert world.kube.get(path)["items"] == []
    finally:
        operator.start()


def test_rights(world: World, hook: Path) -> None:
    """It can do nothing else."""
    client = KubeClient(hook)
    for path in (f"{API}/busdatabases", "/api/v1/secrets", "/api/v1/namespaces"):
        with pytest.raises(ApiError, match="403"):
            client.get(path)
    with pytest.raises(ApiError, match="403"):
        client.request("DELETE", f"{API}/namespaces/default/buschannels/any")
    client.close()


def test_usage(hook: Path) -> None:
    status, output = release_finalizers(hook, "--all-namespaces", "--namespace", "default")
    assert status == 2
    assert output[-1] == "Error: give either --all-namespaces or one or more --namespace"
