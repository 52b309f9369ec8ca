"""The operator's process for tests: started as the container starts it, with the service account of the chart."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from control_plane import ROOT, KubeClient, wait_until
from operator_forks import ForkedProcess
from postgres import free_port

BIN = Path(sys.executable).parent
RELEASE = "bus-under-test"
RELEASE_NAMESPACE = "bus-under-test"
SECRETS_ROLE = f"{RELEASE}-secrets"
RESYNC_SECONDS = 1
_START = 120.0
"""Seconds: most of what it does then is to import, which takes three where nobody else needs the processor."""
_PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{RELEASE_NAMESPACE}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
}


def install_chart(kube: KubeClient, directory: Path, release: str = RELEASE, *options: str) -> Path:
    """Applies what the chart says about rights; returns a kubeconfig of its service account."""
    rendered = subprocess.run(
        [
            BIN / "helm", "template", release, ROOT / "charts" / "pgmq-bus", "--namespace", RELEASE_NAMESPACE,
            "--set", f"fullnameOverride={release}", "--set-json", "secretNamespaces=[]", *options,
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kube.apply(
        f"/api/v1/namespaces/{RELEASE_NAMESPACE}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE_NAMESPACE}},
    )
    for manifest in yaml.safe_load_all(rendered.stdout):
        if manifest is not None and manifest["kind"] in _PATHS:
            metadata = manifest["metadata"]
            path = _PATHS[manifest["kind"]].format(namespace=metadata.get("namespace"))
            kube.apply(f"{path}/{metadata['name']}", manifest)
    return account_kubeconfig(kube, directory, release)


def account_kubeconfig(kube: KubeClient, directory: Path, account: str) -> Path:
    """A kubeconfig of a service account in the release namespace."""
    answer = kube.create(
        f"{_PATHS['ServiceAccount']}/{account}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}},
    )
    configuration = kube.kubeconfig | {"users": [{"name": "admin", "user": {"token": answer["status"]["token"]}}]}
    kubeconfig = directory / f"kubeconfig-{account}"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(yaml.safe_dump(configuration))
    return kubeconfig


Process = subprocess.Popen[bytes] | ForkedProcess
StartProcess = Callable[[Mapping[str, str], Path], Process]


def start_program(environment: Mapping[str, str], log: Path) -> Process:
    """As the container starts it."""
    with log.open("ab") as output:
        return subprocess.Popen([BIN / "bus-operator"], env=environment, stdout=output, stderr=output)


class Operator:
    """A `bus-operator` process, and what it writes to standard error through all its restarts."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        name: str | None = None,
        start_process: StartProcess = start_program,
        **settings: str,
    ) -> None:
        self.health_port = free_port()
        self.name = name or f"operator-{self.health_port}"
        self.kubeconfig = kubeconfig
        self.webhook_port = free_port()
        self.metrics_port = free_port()
        self._log = log
        self._start_process = start_process
        self._process: Process | None = None
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("BUS_", "KUBERNETES_"))
        } | {
            # As the image has it.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_TRIM_THRESHOLD_": "65536",
            "KUBECONFIG": str(kubeconfig),
            # The client writes the API server's certificate to a file, which stays when a process is killed.
            "TMPDIR": str(log.parent),
            "BUS_OPERATOR_NAMESPACE": RELEASE_NAMESPACE,
            "BUS_POD_NAME": self.name,
            "BUS_LEASE_NAME": RELEASE,
            "BUS_SERVICE_ACCOUNT": RELEASE,
            # There is no network of Services: so that the API server can reach it by a URL.
            "BUS_WEBHOOK_SERVICE": "localhost",
            "BUS_WEBHOOK_CONFIGURATION": RELEASE,
            "BUS_WEBHOOK_TLS_SECRET": f"{RELEASE}-webhook-tls",
            "BUS_WEBHOOK_PORT": str(self.webhook_port),
            "BUS_HEALTH_PORT": str(self.health_port),
            "BUS_METRICS_PORT": str(self.metrics_port),
            "BUS_RESYNC_SECONDS": str(RESYNC_SECONDS),
            "BUS_LOG_LEVEL": "DEBUG",
            "BUS_LOG_FORMAT": "json",
        } | settings  # fmt: skip

    @property
    def log(self) -> str:
        """Everything that was logged so far."""
        return self._log.read_text(errors="replace")

    def start(self, *, wait_ready: bool = True, **settings: str) -> None:
        """Returns when it says that it is ready."""
        self._process = self._start_process(self._environment | settings, self._log)
        if not wait_ready:
            return
        wait_until(lambda: self.probe("/readyz") == 200 or self._ended(), "operator is ready", seconds=_START)
        self.require_running()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def require_running(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def probe(self, path: str) -> int | None:
        """The HTTP status of a probe; None when nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as answer:
            return answer.code
        except OSError:
            return None

    def terminate(self) -> tuple[int, float]:
        """SIGTERM. Returns the exit status and how many seconds it took."""
        assert self._process is not None
        begun = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        self._process = None
        return status, time.monotonic() - begun

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process is not None and not self._ended()

    def kill(self) -> None:
        """As a crash or a lost node ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run_to_end(self, **settings: str) -> tuple[int, str]:
        """Starts one that is expected to give up by itself. Returns its exit status and what it wrote."""
        done = subprocess.run(
            [BIN / "bus-operator"],
            env=self._environment | settings, capture_output=True, text=True, timeout=_START, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
