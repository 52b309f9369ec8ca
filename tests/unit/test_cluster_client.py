"""busctl's client of the API server, against one of a few lines: pages, refusals, who is let in."""

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bus_operator import cluster_channels
from bus_operator.cluster_client import ClusterClient
from bus_operator.errors import NotFoundError, SpecError, TransientError
from bus_operator.kubeconfig import ClusterAccess, Credential


class Handler(BaseHTTPRequestHandler):
    """Answers by path: a list of three pages, refusals by number, and who asked."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/list":
            page = int(parse_qs(url.query).get("continue", ["1"])[0])
            following = {"continue": str(page + 1)} if page < 3 else {}
            self._answer(200, {"items": [{"page": page, "query": url.query}], "metadata": following})
        elif url.path.strip("/").isdecimal():
            self._answer(int(url.path.strip("/")), {"message": "because"})
        elif url.path == "/whoami":
            peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
            self._answer(200, {"authorization": self.headers.get("Authorization"), "peer": str(peer)})
        else:
            self._answer(404, {"message": "the server could not find the requested resource"})

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def client(server: ThreadingHTTPServer, *, scheme: str = "http", **options: Any) -> ClusterClient:
    options = {"credential": Credential(token="t")} | options
    return ClusterClient(ClusterAccess("the cluster", f"{scheme}://127.0.0.1:{server.server_port}", "shop", **options))


def test_a_list_is_read_page_by_page(server: ThreadingHTTPServer) -> None:
    items = list(client(server).items("/list", label_selector="team=shop"))
    assert [item["page"] for item in items] == [1, 2, 3]
    assert all("labelSelector=team%3Dshop" in item["query"] for item in items)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, SpecError, "ApiRefused"), (401, SpecError, "Unauthorized"), (403, SpecError, "Forbidden"),
        (404, NotFoundError, "NotFound"), (429, TransientError, "ApiUnavailable"),
        (503, TransientError, "ApiUnavailable"),
    ],
)  # fmt: skip
def test_refusals(server: ThreadingHTTPServer, status: int, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match="because") as caught:
        client(server).get(f"/{status}")
    assert getattr(caught.value, "reason", None) == reason


def test_a_cluster_without_the_definitions(server: ThreadingHTTPServer) -> None:
    with pytest.raises(SpecError, match="the cluster knows no BusChannels: install the operator's chart") as caught:
        cluster_channels.list_channels(client(server), None)
    assert caught.value.reason == "NotInstalled"


def test_who_asks(server: ThreadingHTTPServer) -> None:
    assert client(server).get("/whoami")["authorization"] == "Bearer t"
    basic = client(server, credential=Credential(basic=("u", "p")))
    assert basic.get("/whoami")["authorization"] == "Basic dTpw"


def issue(name: str, signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None) -> Any:
    """A certificate with its key; signed by itself where there is no signer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(signer[1] if signer else key, hashes.SHA256()), key


def pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return certificate.public_bytes(serialization.Encoding.PEM), encoded


def test_client_certificates_and_names(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    """As kind and kubeadm make kubeconfigs."""
    authority = issue("authority")
    (tmp_path / "server.pem").write_bytes(b"".join(pem(*issue("api.example", authority))))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=pem(*authority)[0].decode())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    certificate, key = pem(*issue("jane", authority))
    options: dict[str, Any] = {
        "scheme": "https",
        "credential": Credential(certificate=certificate, key=key),
        "authority": pem(*authority)[0],
    }
    assert "jane" in client(server, server_name="api.example", **options).get("/whoami")["peer"]
    assert "jane" in client(server, insecure=True, **options).get("/whoami")["peer"]
    with pytest.raises(TransientError, match="certificate verify failed"):
        client(server, **options).get("/whoami")
    with pytest.raises(TransientError):
        client(server, server_name="api.example", **(options | {"credential": Credential(token="t")})).get("/whoami")
    with pytest.raises(SpecError, match="the certificates of the cluster cannot be used") as caught:
        client(server, **(options | {"authority": b"nonsense"}))
    assert caught.value.reason == "KubeconfigInvalid"
