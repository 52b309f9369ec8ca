"""The certificate that the webhook serves right now, and where it comes from: the operator's own authority or files.

Both sources keep one SSL context for their whole life and load a renewed certificate into it: new connections get the
new one, open ones go on. The caller, in every replica, calls `ensure()` at the start and every hour.
"""

import logging
import ssl
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bus_operator.certificates import CertificateBundle, expiry, plan_certificates, service_names
from bus_operator.errors import TransientError

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
"""Rounds of reading and writing the Secret before giving up: each lost race means that another replica won one."""


class StoreConflictError(TransientError):
    """Somebody else created or changed the Secret since it was read."""

    reason = "Conflict"


class CertificateError(TransientError):
    """There is no certificate to serve, or the certificate and the key do not belong together."""

    reason = "CertificateInvalid"


class SecretStore(Protocol):
    """The one Secret that replicas share."""

    async def read(self) -> tuple[Mapping[str, bytes], str] | None:
        """The decoded data and the resourceVersion; None when there is no Secret."""

    async def create(self, data: Mapping[str, bytes]) -> None:
        """Raises StoreConflictError when there is one already."""

    async def replace(self, data: Mapping[str, bytes], resource_version: str) -> None:
        """Raises StoreConflictError when the Secret is not at `resource_version` any more."""


class ServingCertificate(Protocol):
    """What main needs to know of a source of certificates."""

    async def ensure(self) -> bool:
        """Renews or re-reads what is due and loads it into `ssl_context`; whether anything changed.

        The first call must have succeeded before the server starts. When a later one raises, the server goes on with
        what it has: log it and call again.
        """

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """For WebhookServer.start(); always the same object."""

    @property
    def ca_bundle(self) -> bytes | None:
        """PEM for the webhook configuration after ensure(); None when somebody else looks after that."""

    @property
    def expires(self) -> datetime | None:
        """Until when clients accept what is served; None while nothing is."""


class CertificateManager:
    """A certificate of the operator's own authority, both kept in a Secret that all replicas share.

    After each `ensure()`, changed or not, pass `ca_bundle` to `certificate_store.ensure_ca_bundle()`: an upgrade of the
    chart may have emptied the field.
    """

    def __init__(
        self,
        store: SecretStore,
        *,
        service: str,
        namespace: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._names = service_names(service, namespace)
        self._clock = clock
        self._context = new_server_context()
        self._served: CertificateBundle | None = None

    async def ensure(self) -> bool:
        """Creates, repairs or renews what the Secret holds and serves it.

        Raises StoreConflictError when other writers win five times in a row, and what the store raises.
        """
        for _ in range(_ATTEMPTS):
            stored = await self._store.read()
            current = CertificateBundle.from_secret(stored[0]) if stored is not None else None
            planned = plan_certificates(current, self._names, self._clock())
            try:
                if stored is None:
                    await self._store.create(planned.to_secret())
                elif planned is not current:
                    await self._store.replace(planned.to_secret(), stored[1])
            except StoreConflictError:
                continue
            if planned is not current:
                logger.info("wrote the webhook's authority and certificate for %s", self._names[0])
            return self._serve(planned)
        raise StoreConflictError(f"the certificate Secret of {self._names[0]} changed {_ATTEMPTS} times meanwhile")

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """For WebhookServer.start(); always the same object."""
        return self._context

    @property
    def ca_bundle(self) -> bytes | None:
        """The authorities to trust, in PEM; None before the first `ensure()`."""
        return self._served.ca_certificates if self._served is not None else None

    @property
    def expires(self) -> datetime | None:
        """Until when clients accept what is served; None while nothing is."""
        return expiry(self._served.certificate) if self._served is not None else None

    def _serve(self, bundle: CertificateBundle) -> bool:
        before, self._served = self._served, bundle
        if before is None or (before.certificate, before.key) != (bundle.certificate, bundle.key):
            load_key_pair(self._context, bundle.certificate, bundle.key)
            return True
        return before.ca_certificates != bundle.ca_certificates


class FileCertificates:
    """`tls.crt` and `tls.key` in a directory, as a mounted Secret of cert-manager; its injector sets the caBundle."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context = new_server_context()
        self._served: tuple[bytes, bytes] | None = None

    async def ensure(self) -> bool:
        """Serves what the files hold now.

        Raises CertificateError when a file is missing or they do not belong together, and nothing is served yet.
        Afterwards that is a warning: the files may be in the middle of a change.
        """
        try:
            found = self._read()
            if found == self._served:
                return False
            load_key_pair(self._context, *found)
        except CertificateError as error:
            if self._served is None:
                raise
            logger.warning("goes on with the certificate loaded before: %s", error)
            return False
        self._served = found
        return True

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """For WebhookServer.start(); always the same object."""
        return self._context

    @property
    def ca_bundle(self) -> None:
        """None: cert-manager's injector looks after the webhook configuration."""
        return

    @property
    def expires(self) -> datetime | None:
        """Until when clients accept what is served; None while nothing is."""
        return expiry(self._served[0]) if self._served is not None else None

    def _read(self) -> tuple[bytes, bytes]:
        try:
            return (self._directory / "tls.crt").read_bytes(), (self._directory / "tls.key").read_bytes()
        except OSError as error:
            raise CertificateError(
                f"cannot read {error.filename}: {error.strerror}; is cert-manager's Certificate ready?"
            ) from error


def new_server_context() -> ssl.SSLContext:
    """A context for a TLS 1.2+ server that asks for no client certificate; it holds no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_key_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Makes a live context use this pair for new connections. Raises CertificateError, and leaves the old pair.

    The module ssl loads from files only: the key is in a private temporary directory (mode 0700) for a moment.
    """
    with tempfile.TemporaryDirectory(prefix="pgmq-bus-") as directory:
        path = Path(directory) / "tls.pem"
        path.write_bytes(certificate + b"\n" + key)
        try:
            # First elsewhere: a failed load would leave the live context with the new certificate and the old key.
            # The password keeps OpenSSL from asking the terminal for one.
            new_server_context().load_cert_chain(path, password="")
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(
                f"tls.crt and tls.key are no certificate with its unencrypted key: {error}"
            ) from error
        context.load_cert_chain(path, password="")
