"""A plain HTTP proxy before the API server: swallows the events of watches, or counts what is written."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3
from chaos.steps import Step, Steps
from control_plane import KubeClient

_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "content-encoding", "accept-encoding"}


class ApiProxy:
    """`swallows` is the plural of the resource whose watches deliver bookmarks and nothing else; empty: all deliver.

    Args:
        kube: The API server.
        steps: Counts what is written, Leases excepted, which are renewed all the time.
    """

    def __init__(self, kube: KubeClient, steps: Steps | None = None) -> None:
        (cluster,) = (item["cluster"] for item in kube.kubeconfig["clusters"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.target: str = cluster["server"]
        self.pool = urllib3.PoolManager(ca_cert_data=authority, retries=False, maxsize=20, timeout=60)
        self.steps = steps or Steps()
        self.swallows = ""
        self.swallowed = 0
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def lets_through(self, path: str, line: bytes) -> bool:
        if not self.swallows or f"/{self.swallows}?" not in path or json.loads(line)["type"] == "BOOKMARK":
            return True
        self.swallowed += 1
        return False

    def lets_write(self, method: str, path: str, life: int) -> bool:
        resource = re.sub(r"^/apis?/|/namespaces/[^/]+|[?].*", "", path)
        if method == "GET" or "/leases" in resource:
            return True
        return self.steps.take(Step(f"{method} {resource}", lasts=True), life)


class _Handler(BaseHTTPRequestHandler):
    proxy: ApiProxy

    def setup(self) -> None:
        super().setup()
        # A connection carries one request.
        self._life = self.proxy.steps.life

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        if not self.proxy.lets_write(self.command, self.path, self._life):
            return
        answer = self.proxy.pool.request(
            self.command,
            self.proxy.target + self.path,
            body=body,
            headers={name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP},
            preload_content=False,
            timeout=urllib3.Timeout(connect=10, read=400),
        )
        try:
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError, urllib3.exceptions.HTTPError):
                self._pass_on(answer)
        finally:
            answer.close()

    def _pass_on(self, answer: Any) -> None:
        if "watch=true" not in self.path:
            self.wfile.write(answer.read())
            return
        # A line at a time, as it comes: events must not wait for each other.
        rest = b""
        while data := answer.read1():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if self.proxy.lets_through(self.path, line):
                    self.wfile.write(line + b"\n")
                    self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _forward  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api_proxy(kube: KubeClient, steps: Steps | None = None) -> Iterator[ApiProxy]:
    """Runs in a thread of its own."""
    proxy = ApiProxy(kube, steps)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        thread.join(10)
        proxy.server.socket.close()
        proxy.pool.clear()
