"""Sources of the serving certificate: replicas that race for one Secret, and files that change."""

import asyncio
import contextlib
import logging
import ssl
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from bus_operator.certificates import CertificateBundle, plan_certificates, service_names
from bus_operator.serving_certificates import (
    CertificateError,
    CertificateManager,
    FileCertificates,
    StoreConflictError,
    load_key_pair,
    new_server_context,
)

NAMES = service_names("pgmq-bus", "bus-system")
NOW = datetime.now(UTC).replace(microsecond=0)  # handshakes are judged by the real time


class MemoryStore:
    """A SecretStore with the API server's rules. `gate`, once set, makes that many readers wait for each other."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] | None = None
        self.version = 0
        self.writes = 0
        self.gate: asyncio.Barrier | None = None

    async def read(self) -> tuple[Mapping[str, bytes], str] | None:
        found = None if self.data is None else (dict(self.data), str(self.version))
        if self.gate is not None:
            gate = self.gate
            await gate.wait()
            self.gate = None
        return found

    async def create(self, data: Mapping[str, bytes]) -> None:
        if self.data is not None:
            raise StoreConflictError("exists already")
        self._write(data)

    async def replace(self, data: Mapping[str, bytes], resource_version: str) -> None:
        if self.data is None or resource_version != str(self.version):
            raise StoreConflictError("changed")
        self._write(data)

    def _write(self, data: Mapping[str, bytes]) -> None:
        self.data = {**(self.data or {}), **data}
        self.version += 1
        self.writes += 1


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def manager(store: MemoryStore, clock: Clock) -> CertificateManager:
    return CertificateManager(store, service="pgmq-bus", namespace="bus-system", clock=clock)


def handshake(server: ssl.SSLContext, ca_bundle: bytes | None) -> bytes:
    """The certificate (DER) that a client that trusts `ca_bundle` is shown and accepts."""
    assert ca_bundle is not None
    client = ssl.create_default_context(cadata=ca_bundle.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    return shown(server, client)


def loaded_certificate(server: ssl.SSLContext) -> bytes:
    """The certificate (DER) that a client is shown that accepts any, also one of another time."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return shown(server, client)


def shown(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname=NAMES[0])
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (client_side, server_side) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate = client_side.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def shown_by(bundle: CertificateBundle) -> bytes:
    return ssl.PEM_cert_to_DER_cert(bundle.certificate.decode())


async def test_the_first_call_creates_the_secret_and_serves(store: MemoryStore, clock: Clock) -> None:
    first = manager(store, clock)
    assert first.ca_bundle is None
    assert await first.ensure()
    assert store.data is not None
    assert set(store.data) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert first.ca_bundle == store.data["ca.crt"]
    assert handshake(first.ssl_context, first.ca_bundle)
    assert not await first.ensure(), "nothing changes"
    assert store.writes == 1


async def test_a_restart_serves_the_same_certificate(store: MemoryStore, clock: Clock) -> None:
    before, after = manager(store, clock), manager(store, clock)
    await before.ensure()
    assert await after.ensure(), "it serves something that it did not before"
    assert handshake(before.ssl_context, after.ca_bundle) == handshake(after.ssl_context, before.ca_bundle)
    assert store.writes == 1


async def test_an_empty_secret_is_filled_and_other_keys_stay(store: MemoryStore, clock: Clock) -> None:
    store.data = {"note": b"made by the chart"}
    replica = manager(store, clock)
    await replica.ensure()
    assert set(store.data) == {"ca.crt", "ca.key", "tls.crt", "tls.key", "note"}
    assert handshake(replica.ssl_context, replica.ca_bundle)


@pytest.mark.parametrize("replicas", [2, 5])
async def test_replicas_that_race_to_create_end_with_one_certificate(
    store: MemoryStore, clock: Clock, replicas: int
) -> None:
    store.gate = asyncio.Barrier(replicas)
    managers = [manager(store, clock) for _ in range(replicas)]
    await asyncio.gather(*(each.ensure() for each in managers))
    assert store.writes == 1
    assert len({each.ca_bundle for each in managers}) == 1
    assert len({handshake(each.ssl_context, managers[0].ca_bundle) for each in managers}) == 1


async def test_replicas_that_race_to_renew_end_with_one_certificate(store: MemoryStore, clock: Clock) -> None:
    managers = [manager(store, clock) for _ in range(3)]
    for each in managers:
        await each.ensure()
    assert store.data is not None
    before = CertificateBundle.from_secret(store.data)
    clock.now += timedelta(days=61)
    store.gate = asyncio.Barrier(3)
    assert await asyncio.gather(*(each.ensure() for each in managers)) == [True] * 3
    assert store.writes == 2
    served = CertificateBundle.from_secret(store.data)
    assert served.certificate != before.certificate
    for each in managers:
        assert each.ca_bundle == served.ca_certificates
        assert loaded_certificate(each.ssl_context) == shown_by(served)


async def test_a_changed_bundle_is_reported_though_the_certificate_stays(store: MemoryStore, clock: Clock) -> None:
    replica = manager(store, clock)
    await replica.ensure()
    certificate = loaded_certificate(replica.ssl_context)
    assert store.data is not None
    store.data["ca.key"] = b"lost"
    assert await replica.ensure()
    assert (replica.ca_bundle or b"").count(b"BEGIN CERTIFICATE") == 2
    assert handshake(replica.ssl_context, replica.ca_bundle) == certificate


async def test_a_deleted_secret_is_created_again(store: MemoryStore, clock: Clock) -> None:
    replica = manager(store, clock)
    await replica.ensure()
    store.data = None
    assert await replica.ensure()
    assert handshake(replica.ssl_context, replica.ca_bundle)


async def test_losing_every_race_is_an_error_that_says_so(clock: Clock) -> None:
    class Contended(MemoryStore):
        async def create(self, data: Mapping[str, bytes]) -> None:
            raise StoreConflictError("exists already")

    with pytest.raises(StoreConflictError, match=r"of pgmq-bus\.bus-system\.svc changed 5 times meanwhile"):
        await manager(Contended(), clock).ensure()


async def test_a_store_that_fails_leaves_what_is_served(store: MemoryStore, clock: Clock) -> None:
    replica = manager(store, clock)
    await replica.ensure()
    served = handshake(replica.ssl_context, replica.ca_bundle)

    async def fail() -> None:
        raise ConnectionError("no API server")

    store.read = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await replica.ensure()
    assert handshake(replica.ssl_context, replica.ca_bundle) == served


def new_bundle() -> CertificateBundle:
    return plan_certificates(None, NAMES, NOW)


def test_the_key_is_on_disk_for_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bundle = new_bundle()
    context = new_server_context()
    seen: list[tuple[int, int]] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, path: Path, **options: str) -> None:
        seen.append((path.parent.stat().st_mode & 0o777, len(list(tmp_path.iterdir()))))
        load(self, path, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    load_key_pair(context, bundle.certificate, bundle.key)
    assert set(seen) == {(0o700, 1)}
    assert list(tmp_path.iterdir()) == []
    assert handshake(context, bundle.ca_certificates)


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


@pytest.mark.parametrize("wrong", ["another key", "no key", "no certificate", "garbage", "encrypted"])
def test_a_pair_that_cannot_be_served_leaves_the_old_one(wrong: str) -> None:
    old, new = new_bundle(), new_bundle()
    context = new_server_context()
    load_key_pair(context, old.certificate, old.key)
    certificate, key = {
        "another key": (new.certificate, old.key),
        "no key": (new.certificate, b""),
        "no certificate": (b"", new.key),
        "garbage": (b"\x00", b"\xff"),
        "encrypted": (new.certificate, encrypted(new.key)),
    }[wrong]
    with pytest.raises(CertificateError, match=r"tls\.crt and tls\.key are no certificate with its unencrypted key"):
        load_key_pair(context, certificate, key)
    assert handshake(context, old.ca_certificates) == shown_by(old)


class MountedSecret:
    """A Secret volume as the kubelet writes it: files are links through `..data`, which is switched at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.generation = 0

    def write(self, certificate: bytes, key: bytes) -> None:
        self.generation += 1
        data = self.directory / f"..{self.generation}"
        data.mkdir()
        (data / "tls.crt").write_bytes(certificate)
        (data / "tls.key").write_bytes(key)
        switch = self.directory / "..data_tmp"
        switch.symlink_to(data.name)
        switch.rename(self.directory / "..data")
        for name in ("tls.crt", "tls.key"):
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")


async def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    mounted, old, new = MountedSecret(tmp_path), new_bundle(), new_bundle()
    mounted.write(old.certificate, old.key)
    source = FileCertificates(tmp_path)
    assert await source.ensure()
    assert source.ca_bundle is None
    assert handshake(source.ssl_context, old.ca_certificates) == shown_by(old)
    assert not await source.ensure()

    mounted.write(new.certificate, new.key)
    assert await source.ensure()
    assert handshake(source.ssl_context, new.ca_certificates) == shown_by(new)


async def test_files_that_do_not_fit_are_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted, old, new = MountedSecret(tmp_path), new_bundle(), new_bundle()
    mounted.write(old.certificate, old.key)
    source = FileCertificates(tmp_path)
    await source.ensure()

    mounted.write(new.certificate, old.key)
    with caplog.at_level(logging.WARNING):
        assert not await source.ensure()
    assert "goes on with the certificate loaded before" in caplog.text
    assert handshake(source.ssl_context, old.ca_certificates) == shown_by(old)

    mounted.write(new.certificate, new.key)
    assert await source.ensure()
    assert handshake(source.ssl_context, new.ca_certificates) == shown_by(new)


async def test_files_that_are_missing_or_do_not_fit_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"cannot read .*tls\.crt: No such file or directory; is cert-manager's"):
        await FileCertificates(tmp_path).ensure()
    MountedSecret(tmp_path).write(new_bundle().certificate, new_bundle().key)
    with pytest.raises(CertificateError, match="are no certificate with its unencrypted key"):
        await FileCertificates(tmp_path).ensure()
