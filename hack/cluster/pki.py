"""Who is who in a cluster: a certificate authority, the API server's certificates, and a token for each client."""

from __future__ import annotations

import secrets
import shutil
from base64 import b64encode
from pathlib import Path

from .commands import run
from .files import write
from .layout import API_SERVICE_ADDRESS, CLUSTER_DOMAIN, LOOPBACK, NODE_ADDRESS

VALID_DAYS = "3650"
NODE_NAME = "pgmq-bus"
# client -> (user, group) by which RBAC and the Node authorizer know it
CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "coredns": ("system:coredns", ""),
}


def ensure(directory: Path) -> None:
    """Make all keys, certificates and tokens below `directory` unless they are there; whole or not at all."""
    if directory.exists():
        return
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    _authority(unfinished)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += [f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost"]
    alternatives = [f"DNS:{name}" for name in names]
    alternatives += [f"IP:{address}" for address in (LOOPBACK, NODE_ADDRESS, API_SERVICE_ADDRESS)]
    _certificate(unfinished, "apiserver", "/CN=kube-apiserver", "serverAuth", alternatives)
    # The kubelet knows the API server, which asks it for logs, by this certificate alone.
    _certificate(unfinished, "apiserver-kubelet", "/O=system:masters/CN=kube-apiserver", "clientAuth")
    signing = unfinished / "service-account.key"
    _key(signing)
    run(["openssl", "pkey", "-in", str(signing), "-pubout", "-out", str(signing.with_suffix(".pub"))])
    lines = []
    for client, (user, group) in CLIENTS.items():
        token = secrets.token_urlsafe(32)
        (unfinished / f"{client}.token").write_text(token)
        lines.append(f'{token},{user},{user},"{group}"\n')
    (unfinished / "tokens.csv").write_text("".join(lines))
    unfinished.replace(directory)


def write_kubeconfig(path: Path, pki: Path, client: str, server: str, cluster: str) -> None:
    """Write the file by which a client of `CLIENTS` reaches the API server at `server` (a URL)."""
    authority = b64encode((pki / "ca.crt").read_bytes()).decode()
    token = (pki / f"{client}.token").read_text()
    text = f"""\
apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {client}
  user:
    token: {token}
contexts:
- name: {cluster}
  context:
    cluster: {cluster}
    user: {client}
current-context: {cluster}
"""
    write(path, text)


def _key(path: Path) -> None:
    # umask of the directory's owner is not to be relied upon: create the file closed, then fill it.
    path.touch(mode=0o600)
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)])


def _authority(directory: Path) -> None:
    key, certificate, config = (directory / f"ca.{suffix}" for suffix in ("key", "crt", "cnf"))
    _key(key)
    config.write_text(
        "[req]\ndistinguished_name = name\nx509_extensions = authority\nprompt = no\n"
        "[name]\nCN = pgmq-bus local cluster\n"
        "[authority]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\n"
        "subjectKeyIdentifier = hash\n"
    )
    options = ["-config", str(config), "-key", str(key), "-days", VALID_DAYS, "-out", str(certificate)]
    run(["openssl", "req", "-x509", "-new", *options])


def _certificate(directory: Path, name: str, subject: str, usage: str, alternatives: list[str] | None = None) -> None:
    key, request, extensions, certificate = (directory / f"{name}.{suffix}" for suffix in ("key", "csr", "cnf", "crt"))
    _key(key)
    lines = ["keyUsage = critical, digitalSignature", f"extendedKeyUsage = {usage}"]
    lines += [f"subjectAltName = {','.join(alternatives)}"] if alternatives else []
    extensions.write_text("\n".join(lines) + "\n")
    run(["openssl", "req", "-new", "-key", str(key), "-subj", subject, "-out", str(request)])
    authority = ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key"), "-CAcreateserial"]
    options = ["-in", str(request), "-out", str(certificate), "-days", VALID_DAYS, "-extfile", str(extensions)]
    run(["openssl", "x509", "-req", *options, *authority])
