"""Which cluster a kubeconfig means, as kubectl reads it."""

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_operator import kubeconfig
from bus_operator.kubeconfig import KubeconfigError


def configuration(name: str = "prod", user: Any = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": name,
        "clusters": [{"name": f"{name}-cluster", "cluster": {"server": f"https://{name}:6443/"} | cluster}],
        "users": [{"name": "me", "user": user if user is not None else {"token": f"{name}-token"}}],
        "contexts": [{"name": name, "context": {"cluster": f"{name}-cluster", "user": "me", "namespace": "shop"}}],
    }


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No home, no pod, unless a test says otherwise."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path / "serviceaccount")


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_home_then_environment_then_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / ".kube" / "config", configuration("home"))
    found = kubeconfig.find()
    assert (found.title, found.server, found.namespace) == (
        "cluster home-cluster (context home)", "https://home:6443", "shop",
    )  # fmt: skip
    first, second = write(tmp_path / "1", configuration("first")), write(tmp_path / "2", configuration("second"))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{first}:{second}")
    assert kubeconfig.find().server == "https://first:6443"
    # Both have a user `me`: the first one's counts, also for a context of the second.
    assert kubeconfig.find(context="second").server == "https://second:6443"
    assert kubeconfig.find(context="second").credential.token == "first-token"
    assert kubeconfig.find(str(second)).credential.token == "second-token"


def test_a_pod_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "t\n"), ("namespace", "bus"), ("ca.crt", "PEM")):
        write(tmp_path / "serviceaccount" / name, text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    found = kubeconfig.find()
    assert (found.server, found.namespace, found.credential.token) == ("https://[fd00::1]:443", "bus", "t")
    with pytest.raises(KubeconfigError, match="there is no kubeconfig"):
        kubeconfig.find(context="prod")
    with monkeypatch.context() as homeless:
        homeless.setattr(Path, "home", _nowhere)
        assert kubeconfig.find().namespace == "bus"
    write(tmp_path / ".kube" / "config", configuration("home"))
    assert kubeconfig.find().server == "https://home:6443"


def _nowhere() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "ca.pem", "AUTHORITY")
    write(tmp_path / "etc" / "token", "from a file\n")
    path = write(
        tmp_path / "etc" / "config",
        configuration(user={"tokenFile": "token"}, **{"certificate-authority": "ca.pem", "tls-server-name": "db"}),
    )
    found = kubeconfig.find(str(path))
    assert (found.authority, found.credential.token, found.server_name) == (b"AUTHORITY", "from a file", "db")


def test_certificates_and_passwords(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = write(tmp_path / "c", configuration(user={"client-certificate-data": data, "client-key-data": data}))
    assert kubeconfig.find(str(path)).credential == kubeconfig.Credential(certificate=b"PEM", key=b"PEM")
    path = write(tmp_path / "c", configuration(user={"username": "u", "password": "hunter2"}))
    found = kubeconfig.find(str(path))
    assert found.credential.basic == ("u", "hunter2")
    assert "hunter2" not in repr(found)


PLUGIN = """
import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
token = f"{asked['spec'].get('cluster', {}).get('server')} {os.environ['REGION']} {sys.argv[1]}"
print(json.dumps({"status": {"token": token}}))
"""


def plugin(script: Path, **options: Any) -> dict[str, Any]:
    environment = [{"name": "REGION", "value": "eu"}]
    return {"exec": {"command": sys.executable, "args": [str(script), "x"], "env": environment} | options}


def test_a_credential_plugin(tmp_path: Path) -> None:
    script = write(tmp_path / "plugin.py", PLUGIN)
    path = write(tmp_path / "c", configuration(user=plugin(script, provideClusterInfo=True)))
    assert kubeconfig.find(str(path)).credential.token == "https://prod:6443/ eu x"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"exec": {"command": "no-such-plugin", "installHint": "brew install it"}}, "no-such-plugin: brew install it"),
        ({"exec": {"command": "false"}}, "false, which gets the credential of user 'me', failed: exit status 1"),
        ({"exec": {"command": "echo", "args": ["hunter2"]}}, "echo did not answer with a credential for user 'me'"),
        ({"auth-provider": {"name": "oidc"}}, "has an auth-provider, which kubectl has given up as well: use exec"),
        ({"tokenFile": "missing"}, "tokenFile .*missing of the kubeconfig cannot be read"),
        ({"client-certificate-data": "%"}, "client-certificate of kubeconfig .* cannot be read"),
    ],
)
def test_credentials_that_cannot_be_had(tmp_path: Path, user: Any, message: str) -> None:
    path = write(tmp_path / "c", configuration(user=user))
    with pytest.raises(KubeconfigError, match=message) as caught:
        kubeconfig.find(str(path))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "context", "message"),
    [
        ("a: [", None, "is not valid YAML"),
        ("- a", None, "is not a mapping"),
        ({}, None, "has no current context: name one with --context"),
        (configuration(), "test", "has no context 'test'; there are: prod"),
        (configuration() | {"clusters": []}, None, "has no cluster 'prod-cluster'; there are: none"),
        (configuration(server=""), None, "cluster 'prod-cluster' of the kubeconfig has no server"),
    ],
)
def test_kubeconfigs_of_no_use(tmp_path: Path, content: Any, context: str | None, message: str) -> None:
    path = write(tmp_path / "c", content)
    with pytest.raises(KubeconfigError, match=message):
        kubeconfig.find(str(path), context)
    with pytest.raises(KubeconfigError, match=r"there is no kubeconfig at .*/\.kube/config, and this is no pod"):
        kubeconfig.find()
