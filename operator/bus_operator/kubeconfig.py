"""Which cluster busctl talks to and as whom, found as kubectl finds it: a kubeconfig, or a pod's service account.

The official client does this too, but importing it takes longer than a command may.
"""

import base64
import binascii
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bus_operator.errors import SpecError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod is given: `token`, `ca.crt` and `namespace`."""

_PROGRAM_TIMEOUT = 60.0
"""Seconds for the program that gets a credential: somebody may have to log in."""


class KubeconfigError(SpecError):
    """There is no kubeconfig, or it does not say how to reach a cluster."""

    reason = "KubeconfigInvalid"


@dataclass(frozen=True)
class Credential:
    """As whom: a token, a client certificate, or a user's password. Kept out of `repr`."""

    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ClusterAccess:
    """How to reach an API server."""

    title: str
    """What users call it: `cluster prod (context admin@prod)`."""
    server: str
    namespace: str
    """The one that is meant where none is named."""
    credential: Credential
    authority: bytes | None = None
    """The certificates, in PEM, that its own is signed by; None: those that the system trusts."""
    insecure: bool = False
    """Whether its certificate is not looked at."""
    server_name: str | None = None
    """What its certificate is issued to, where that is not the host of its URL."""
    proxy: str | None = None
    """Where requests go through; None: as the environment says."""
    is_pod: bool = False
    """Whether it is the cluster that this process runs in."""


def find(path: str | None = None, context: str | None = None) -> ClusterAccess:
    """The cluster of a kubeconfig's context; where there is no kubeconfig, the one that this pod runs in.

    Args:
        path: The kubeconfig. None: those that KUBECONFIG names, else ~/.kube/config.
        context: None: the current one.

    Raises:
        KubeconfigError: When there is none, or it is of no use.
    """
    files = [Path(path)] if path else _default_files()
    found = [(file, _load(file)) for file in files if path or file.exists()]
    if found:
        return _Merged(found).access(context)
    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    looked_at = " or ".join(map(str, files)) or "~/.kube/config"
    raise KubeconfigError(
        f"there is no kubeconfig at {looked_at}, and this is no pod with a service account: name one with --kubeconfig,"
        " or a database with --database"
    )


def _default_files() -> list[Path]:
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if named:
        return [Path(part) for part in named]
    try:
        return [Path.home() / ".kube" / "config"]
    except RuntimeError:
        # As in a container whose user is a number only.
        return []


def _in_cluster() -> ClusterAccess:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return ClusterAccess(
        title="the cluster of this pod (service account)",
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=(SERVICE_ACCOUNT / "namespace").read_text().strip(),
        credential=Credential(token=(SERVICE_ACCOUNT / "token").read_text().strip()),
        authority=(SERVICE_ACCOUNT / "ca.crt").read_bytes(),
        is_pod=True,
    )


def _load(file: Path) -> Mapping[str, Any]:
    try:
        # The C parser, where there is one: a kubeconfig of many clusters is long.
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        loaded = yaml.load(file.read_text(), loader)  # noqa: S506 - both are safe loaders
    except (OSError, UnicodeDecodeError) as exc:
        raise KubeconfigError(f"kubeconfig {file} cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise KubeconfigError(f"kubeconfig {file} is not valid YAML: {exc}") from exc
    if loaded is not None and not isinstance(loaded, dict):
        raise KubeconfigError(f"kubeconfig {file} is not a mapping")
    return loaded or {}


class _Merged:
    """Several kubeconfigs as one: what the first says counts. Paths in each are relative to its directory."""

    def __init__(self, files: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
        self._named: dict[str, dict[str, tuple[Path, Mapping[str, Any]]]] = {}
        self.current: str | None = None
        for file, content in files:
            self._file = file
            self.current = self.current or content.get("current-context")
            for section, key in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
                for item in content.get(section) or ():
                    self._named.setdefault(section, {}).setdefault(item["name"], (file, item.get(key) or {}))

    def _find(self, section: str, name: str) -> tuple[Path, Mapping[str, Any]]:
        found = self._named.get(section, {})
        if name not in found:
            there = ", ".join(found) or "none"
            raise KubeconfigError(f"the kubeconfig has no {section[:-1]} {name!r}; there are: {there}")
        return found[name]

    def access(self, context: str | None) -> ClusterAccess:
        name = context or self.current
        if not name:
            raise KubeconfigError(
                f"kubeconfig {self._file} has no current context: name one with --context, or run kubectl config"
                " use-context"
            )
        _, chosen = self._find("contexts", name)
        cluster_name, user_name = chosen.get("cluster", ""), chosen.get("user", "")
        file, cluster = self._find("clusters", cluster_name)
        if not cluster.get("server"):
            raise KubeconfigError(f"cluster {cluster_name!r} of the kubeconfig has no server")
        user_file, user = self._find("users", user_name) if user_name else (file, {})
        return ClusterAccess(
            title=f"cluster {cluster_name} (context {name})",
            server=cluster["server"].rstrip("/"),
            namespace=chosen.get("namespace") or "default",
            credential=_credential(user_file, user_name, user, cluster),
            authority=_bytes(file, cluster, "certificate-authority"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            server_name=cluster.get("tls-server-name"),
            proxy=cluster.get("proxy-url"),
        )


def _bytes(file: Path, section: Mapping[str, Any], key: str) -> bytes | None:
    """What is in the kubeconfig itself, else in a file that it names."""
    try:
        if data := section.get(f"{key}-data"):
            return base64.b64decode(data, validate=True)
        if path := section.get(key):
            return file.parent.joinpath(str(path)).read_bytes()
    except (OSError, binascii.Error, ValueError) as exc:
        raise KubeconfigError(f"{key} of kubeconfig {file} cannot be read: {exc}") from exc
    return None


def _credential(file: Path, name: str, user: Mapping[str, Any], cluster: Mapping[str, Any]) -> Credential:
    certificate, key = _bytes(file, user, "client-certificate"), _bytes(file, user, "client-key")
    token = user.get("token")
    if path := user.get("tokenFile"):
        token = _token_of(file.parent / path)
    if program := user.get("exec"):
        return _ask_program(file, name, program, cluster)
    if "auth-provider" in user and not token:
        raise KubeconfigError(
            f"user {name!r} of the kubeconfig has an auth-provider, which kubectl has given up as well: use exec"
        )
    basic = (user["username"], user.get("password", "")) if user.get("username") else None
    return Credential(token, certificate, key, basic)


def _token_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as exc:
        raise KubeconfigError(f"tokenFile {path} of the kubeconfig cannot be read: {exc}") from exc


def _ask_program(file: Path, name: str, program: Mapping[str, Any], cluster: Mapping[str, Any]) -> Credential:
    """Runs a credential plugin (client-go's exec), as managed clusters have it."""
    version = program.get("apiVersion", "client.authentication.k8s.io/v1")
    spec: dict[str, Any] = {"interactive": sys.stdin.isatty() and program.get("interactiveMode") != "Never"}
    if program.get("provideClusterInfo"):
        spec["cluster"] = {key: value for key, value in cluster.items() if isinstance(value, str | bool)}
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    environment = {item["name"]: item["value"] for item in program.get("env") or ()}
    command = program.get("command", "")
    if os.sep in command:
        # As kubectl reads it: relative to the kubeconfig.
        command = str(file.parent / command)
    try:
        done = subprocess.run(  # noqa: S603 - the user's own kubeconfig names it, and kubectl would run it too
            [command, *(program.get("args") or ())],
            env=os.environ | environment | {"KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=None if spec["interactive"] else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=_PROGRAM_TIMEOUT,
        )
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError as exc:
        hint = program.get("installHint") or "install it, or use another context"
        raise KubeconfigError(f"user {name!r} of the kubeconfig needs the program {command}: {hint}") from exc
    except (OSError, subprocess.SubprocessError) as exc:
        # Without its output: that may hold the credential.
        raise KubeconfigError(f"{command}, which gets the credential of user {name!r}, failed: {_how(exc)}") from exc
    except (ValueError, KeyError, TypeError):
        raise KubeconfigError(f"{command} did not answer with a credential for user {name!r}") from None
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    return Credential(
        token=status.get("token"),
        certificate=certificate.encode() if certificate else None,
        key=key.encode() if key else None,
    )


def _how(error: Exception) -> str:
    match error:
        case subprocess.CalledProcessError(returncode=status):
            return f"exit status {status}"
        case subprocess.TimeoutExpired():
            return f"no answer within {_PROGRAM_TIMEOUT:.0f} seconds"
    return str(error)
