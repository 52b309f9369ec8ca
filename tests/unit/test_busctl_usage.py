"""What busctl says to wrong input, before it does anything. In this process: starting the program takes a second."""

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bus_operator import cli

PASSWORD = "hunter2-in-the-clear"


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Busctl = Callable[..., Result]


def manifest(name: str = "orders", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusChannel",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


@pytest.fixture
def busctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Busctl:
    """Runs it in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, uri: str | None = None) -> Result:
        if uri is not None:
            monkeypatch.setenv("BUSCTL_DATABASE", uri)
        monkeypatch.setattr(sys, "argv", ["busctl", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        else:
            status = 0
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes manifests, or a text, into a file; returns its name."""

    def to_file(document: Any, name: str = "channels.yaml") -> str:
        (tmp_path / name).write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return name

    return to_file


def database(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pgmqbus.dev/v1alpha1",
        "kind": "BusDatabase",
        "metadata": {"name": name},
        "spec": {"connectionSecretRef": {"name": "admin"}, **spec},
    }


NAME_RULE = "lower-case letters, digits, '-' and '.', at most 63, each part beginning and ending with a letter or digit"
NAMESPACE_RULE = "lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("kind: [", "channels.yaml: not valid YAML: ", id="no YAML"),
        pytest.param(
            "just text", "channels.yaml: a manifest is a mapping with apiVersion, kind and metadata", id="text",
        ),
        pytest.param("", "there is no BusChannel in what was given", id="empty"),
        pytest.param(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}},
            "there is no BusChannel in what was given", id="no BusChannel",
        ),
        pytest.param(
            manifest() | {"apiVersion": "pgmqbus.dev/v1"},
            "channels.yaml: BusChannel has apiVersion 'pgmqbus.dev/v1': write pgmqbus.dev/v1alpha1", id="apiVersion",
        ),
        pytest.param(
            manifest() | {"metadata": {}}, "channels.yaml: a BusChannel needs metadata.name", id="no name",
        ),
        pytest.param(
            manifest() | {"metadata": ["orders"]}, "channels.yaml: a BusChannel needs metadata.name", id="metadata",
        ),
        pytest.param(
            manifest("../../etc"), f"channels.yaml: metadata.name '../../etc' must be {NAME_RULE}", id="path as name",
        ),
        pytest.param(
            manifest() | {"metadata": {"name": "orders", "namespace": "Shop"}},
            f"channels.yaml: metadata.namespace 'Shop' must be {NAMESPACE_RULE}", id="namespace",
        ),
        pytest.param(
            manifest(durabilty="Sync"), "channels.yaml: BusChannel orders: spec.durabilty: unknown field", id="unknown",
        ),
        pytest.param(
            manifest(limits={"maxPeers": 0, "maxpeers": 2}),
            "channels.yaml: BusChannel orders: spec.limits.maxPeers: Input should be greater than or equal to 1;"
            " spec.limits.maxpeers: unknown field", id="two mistakes",
        ),
        pytest.param(
            manifest(peerTimeout="10 minutes"),
            "channels.yaml: BusChannel orders: spec.peerTimeout: '10 minutes' is not a duration: write hours, minutes"
            " and seconds, such as 90s, 10m or 1h30m", id="duration",
        ),
        pytest.param(
            manifest(peerTimeout="1s"),
            "channels.yaml: BusChannel orders: spec.peerTimeout: peerTimeout must be between 10s and 720h",
            id="duration out of range",
        ),
        pytest.param(
            manifest() | {"spec": ["Sync"]}, "channels.yaml: BusChannel orders: spec: must be a mapping", id="spec",
        ),
        pytest.param(
            yaml.safe_dump_all([manifest(), manifest()]), "BusChannel shop/orders is there twice: keep one", id="twice",
        ),
        pytest.param(
            yaml.safe_dump_all([manifest(), manifest() | {"metadata": {"name": "orders"}}]),
            "BusChannel orders is in several namespaces: a binding directory holds one, apply them apart",
            id="one directory for two",
        ),
        pytest.param(
            yaml.safe_dump_all([manifest(channel="same"), manifest("other", channel="same")]),
            "BusChannel shop/other has the channel 'same' of BusChannel shop/orders: choose another spec.channel",
            id="one channel for two",
        ),
        pytest.param(
            yaml.safe_dump_all([manifest(), database("main"), database("other", shards=2)]),
            "BusDatabase/main in channels.yaml and BusDatabase/other in channels.yaml have different spec.shards: apply"
            " them apart", id="two kinds of shards",
        ),
        pytest.param(
            database("main", shards=65),
            "channels.yaml: BusDatabase main: spec.shards: Input should be less than or equal to 64", id="shards",
        ),
        pytest.param(
            manifest(retention={"maxAge": "0s"}),
            "channels.yaml: BusChannel orders: spec.retention.maxAge: maxAge must be between 1s and 8760h",
            id="retention",
        ),
    ],
)  # fmt: skip
def test_bad_manifests(busctl: Busctl, write: Callable[..., str], tmp_path: Path, text: Any, message: str) -> None:
    """Found before anything is done: the database of this URI does not even exist."""
    file = write(text)
    done = busctl("apply", "-f", file, "--bindings", "b", uri=f"postgresql://u:{PASSWORD}@127.0.0.1:1/d")
    assert done.returncode == 1
    assert done.stdout == ""
    where, _, said = done.stderr.partition("\n")
    assert where == "on database d on 127.0.0.1:1"
    error = said.splitlines()[-1] if "YAML" not in message else said
    assert error.startswith(f"error: {message}")
    assert error.rstrip() == f"error: {message} [InvalidSpec]" or message.endswith(" ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"postgresql://u:{PASSWORD}@127.0.0.1:1/d", "127.0.0.1:1/d cannot be reached: "),
        (f"postgresql://u:{PASSWORD}@no-such-host.invalid/d", "no-such-host.invalid:5432/d cannot be reached: "),
        (f"postgresql://u:{PASSWORD}/x@h/d", "the connection URI cannot be parsed: its port is not a number, or a "),
        (f"mysql://u:{PASSWORD}@h/d", "the connection URI must look like postgresql://user:password@host:5432/dbname"),
        (f"postgresql://u:{PASSWORD}@h", "the connection URI names no database name: write postgresql://"),
        (f"postgresql://u:{PASSWORD}@h/d?sslmode=maybe", "its sslmode must be one of disable, allow, prefer, "),
    ],
    ids=["nobody listens", "no such host", "unescaped", "scheme", "no database", "sslmode"],
)
def test_bad_uris(busctl: Busctl, write: Callable[..., str], uri: str, message: str) -> None:
    done = busctl("apply", "-f", write(manifest()), uri=uri)
    assert done.returncode == 1
    *where, error = done.stderr.splitlines()
    assert error.startswith(f"error: {message}")
    # Said first, if it can be made out.
    assert len(where) == (" cannot be reached: " in message)
    assert all(line.startswith("on database d on ") for line in where)
    assert PASSWORD not in done.stdout + done.stderr


def test_wrong_usage(busctl: Busctl) -> None:
    for arguments, message in (
        (("apply", "-f", "missing.yaml", "--database", "x"), "'missing.yaml': No such file or directory"),
        (("apply", "--database", "x"), "Missing option '-f' / '--filename'"),
        (("aply",), "No such command 'aply'"),
    ):
        done = busctl(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_help_has_examples_that_name_real_options(busctl: Busctl) -> None:
    shown = busctl("apply", "--help")
    assert shown.returncode == 0
    assert "busctl apply -f channels.yaml --database postgresql://" in shown.stdout
    assert "SERVICE_BINDING_ROOT=./bindings python worker.py" in shown.stdout
    assert "[env var: BUSCTL_DATABASE; required]" in " ".join(shown.stdout.split())
    examples = [line.split() for line in shown.stdout.splitlines() if line.strip().startswith("busctl apply -f")]
    assert len(examples) == 2
    for example in examples:
        refused = busctl(*example[1 : example.index("|") if "|" in example else None])
        assert "No such option" not in refused.stderr
        assert "'channels.yaml': No such file or directory" in refused.stderr
    assert busctl("--version").stdout.startswith("busctl, version ")


@contextmanager
def refusing_server(message: bytes) -> Iterator[str]:
    """A server of somebody else's: what it says of every login. Gives its URI."""
    fields = b"SFATAL\0VFATAL\0C28P01\0M" + message + b"\0\0"

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    if connection.recv(8)[4:] == struct.pack("!I", 80877103):
                        # No TLS here.
                        connection.sendall(b"N")
                        connection.recv(1024)
                    connection.sendall(b"E" + struct.pack("!I", 4 + len(fields)) + fields)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"postgresql://admin:secret@127.0.0.1:{listener.getsockname()[1]}/app"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_what_is_in_a_file_commands_no_terminal(busctl: Busctl, write: Callable[..., str]) -> None:
    name = write(f'kind: "\\e[2J"\n---\n{yaml.safe_dump(manifest())}')
    with refusing_server(b"no") as uri:
        result = busctl("apply", "-f", name, uri=uri)
    assert "skipped \ufffd[2J/? in channels.yaml" in result.stderr


def test_of_what_a_server_says_only_so_much_is_told(busctl: Busctl) -> None:
    with refusing_server(b"\x1b" * 1_000_000) as uri:
        result = busctl("status", uri=uri)
    assert result.returncode == 1
    assert len(result.stderr) < 5000


@pytest.mark.parametrize("command", ["status", "peers", "apply"])
def test_what_a_server_says_commands_no_terminal(busctl: Busctl, tmp_path: Path, command: str) -> None:
    (tmp_path / "bus.yaml").write_text(yaml.safe_dump(manifest()))
    arguments = ("-f", "bus.yaml") if command == "apply" else ()
    with refusing_server(b"\x1b]52;c;cm0gLXJm\x07 no \xc2\x9b2J") as uri:
        result = busctl(command, *arguments, uri=uri)
    assert result.returncode == 1
    assert "\ufffd]52;c;cm0gLXJm\ufffd no \ufffd2J" in result.stderr
    assert result.stderr.replace("\n", "").isprintable()
