"""A real API server for tests, without nodes or controllers: nothing runs in it, and nothing is garbage-collected."""

import base64
import copy
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml

from hack.cluster.layout import Layout, cache_directory
from hack.cluster.process import Processes

ROOT = Path(__file__).parents[1]
GROUP, VERSION = "pgmqbus.dev", "v1alpha1"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

PATIENCE = 45.0
"""Seconds to wait for what takes one or two where a machine has nothing else to do."""

Manifest = dict[str, Any]


def _hack_cluster(command: str, name: str, *options: str) -> None:
    # Whatever cluster the environment asks for: this one is our own, and nothing here may reach another.
    environment = os.environ | {"CLUSTER": "local"}
    arguments = [sys.executable, "-m", "hack.cluster", command, "--name", name, *options]
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True)


class ControlPlane:
    """A running API server and its etcd, which can be killed one by one and started again with what they held."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layout = Layout.of(name)
        self._processes = Processes(self._layout.records, self._layout.logs)

    @property
    def kubeconfig(self) -> Path:
        return self._layout.kubeconfig

    def start(self) -> None:
        """Whatever does not run; returns when the API server serves."""
        _hack_cluster("up", self._name, "--control-plane-only")

    def signal(self, program: str, number: int) -> None:
        """To `etcd` or `kube-apiserver`."""
        record = self._processes.record(program)
        assert record is not None
        os.kill(record.pid, number)

    def kill(self, program: str) -> None:
        """By SIGKILL."""
        self.signal(program, signal.SIGKILL)
        wait_until(lambda: not self._processes.running(program), f"{program} has ended")

    def pids(self) -> list[int]:
        """Of what runs."""
        records = [self._processes.record(program) for program in ("etcd", "kube-apiserver")]
        return [record.pid for record in records if record is not None]

    def compact(self) -> None:
        """Has etcd forget all former versions: who watches from one of them is told that it is gone."""
        revision = self._etcd("range", key=base64.b64encode(b"/").decode(), limit="1")["header"]["revision"]
        self._etcd("compaction", revision=revision, physical=True)

    def _etcd(self, call: str, **arguments: Any) -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(f"{self._layout.runtime}/etcd.sock")
            connection.request("POST", f"/v3/kv/{call}", json.dumps(arguments))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)
        finally:
            connection.close()


@contextmanager
def running() -> Iterator[ControlPlane]:
    """An API server of this test session; sessions that run at the same time have one each."""
    with _reserved_name() as name:
        try:
            _hack_cluster("down", name)  # what a killed session has left
            started = ControlPlane(name)
            started.start()
            yield started
        finally:
            _hack_cluster("down", name)


@contextmanager
def _reserved_name() -> Iterator[str]:
    locks = cache_directory() / "test-sessions"
    locks.mkdir(parents=True, exist_ok=True)
    for number in range(100):
        with (locks / f"{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"pgmq-bus-test-{number}"
            return
    raise RuntimeError(f"a hundred test sessions hold the locks in {locks}")


class ApiError(Exception):
    """What the API server refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class KubeClient:
    """The API server as its administrator sees it: JSON in, JSON out, without the generated client's slow import."""

    def __init__(self, kubeconfig: Path) -> None:
        configuration = yaml.safe_load(kubeconfig.read_text())
        (cluster,) = (item["cluster"] for item in configuration["clusters"])
        (user,) = (item["user"] for item in configuration["users"])
        self.server: str = cluster["server"]
        self.kubeconfig = configuration
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        authority = base64.b64decode(cluster["certificate-authority-data"])
        self._pool = urllib3.PoolManager(ca_cert_data=authority.decode(), retries=False, timeout=30, maxsize=8)

    def impersonating(self, user: str) -> "KubeClient":
        """The same API server as this user sees it, who belongs to no group but those of every user."""
        client = copy.copy(self)
        client._headers = self._headers | {"Impersonate-User": user}
        return client

    def create_asking_pod(self, namespace: str, name: str) -> None:
        """A pod that asks for the binding of BusChannel orders, and that no node runs."""
        metadata = {
            "name": name,
            "labels": {"pgmqbus.dev/inject": "true"},
            "annotations": {"pgmqbus.dev/channels": "orders"},
        }
        spec = {"containers": [{"name": "main", "image": "none"}]}
        self.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": metadata, "spec": spec})

    def close(self) -> None:
        self._pool.clear()

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Raises ApiError for what is not 2xx."""
        response = self._pool.request(
            method,
            self.server + path,
            body=None if body is None else json.dumps(body),
            headers=self._headers | {"Content-Type": content_type},
        )
        answer = json.loads(response.data)
        if not 200 <= response.status < 300:
            raise ApiError(response.status, answer.get("message", ""))
        return answer

    def raw(self, path: str) -> urllib3.BaseHTTPResponse:
        """What is no JSON, such as the API server's metrics."""
        return self._pool.request("GET", self.server + path, headers=self._headers)

    def get(self, path: str) -> Any:
        """An object, or None when there is none."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, collection: str, body: Manifest) -> Any:
        return self.request("POST", collection, body)

    def apply(self, path: str, body: Manifest) -> Any:
        """Server-side apply."""
        return self.request("PATCH", f"{path}?fieldManager=tests&force=true", body, APPLY_PATCH)

    def patch(self, path: str, body: Manifest) -> Any:
        return self.request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str) -> None:
        """It is no error when there is none."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise

    def install_definitions(self) -> dict[str, Manifest]:
        """Installs the resource definitions as crds/ has them; returns them by kind when they are served."""
        manifests = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
        for manifest in manifests:
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{manifest['metadata']['name']}"
            self.apply(path, manifest)
            found = wait_until(lambda path=path: _established(self.get(path)), manifest["metadata"]["name"])
            # A definition that is accepted may still have been found wanting.
            assert found["NamesAccepted"] == "True", found
            assert "NonStructuralSchema" not in found, found
            collection = f"/apis/{GROUP}/{VERSION}/{manifest['spec']['names']['plural']}"
            wait_until(lambda collection=collection: self._serves(collection), f"{collection} is served")
        return {manifest["spec"]["names"]["kind"]: manifest for manifest in manifests}

    def _serves(self, collection: str) -> bool:
        """An established definition's storage may still be getting ready."""
        try:
            return self.get(collection) is not None
        except ApiError as error:
            if error.status in (429, 503):
                return False
            raise


def _established(definition: Manifest) -> dict[str, str] | None:
    conditions = definition.get("status", {}).get("conditions") or []
    found = {item["type"]: item["status"] for item in conditions}
    return found if found.get("Established") == "True" else None


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Polls until `condition` returns something true, which is returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s; last seen: {found!r}"
        time.sleep(0.05)
