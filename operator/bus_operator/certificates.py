"""The webhook's own certificate authority and serving certificate: what there is and the time in, what should be out.

Replicas of the operator and API servers (which watch the webhook configuration's caBundle) each learn of a change at a
time of their own. So two states that follow each other always trust each other's certificate: a new authority is at
first only added to the bundle and signs no certificate for SETTLE; the old one leaves the bundle SETTLE after the last
certificate that it signed was replaced. The exception is what cannot wait: nothing valid to serve.

The extensions are those that strict verifiers want (RFC 5280; Python's VERIFY_X509_STRICT, Go's crypto/x509).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
CA_RENEWAL = 0.8
"""Part of its life after which an authority gets a successor."""

LEAF_LIFETIME = timedelta(days=90)
LEAF_RENEWAL = 2 / 3
"""Part of its life after which a serving certificate is replaced: 30 days are left for whatever keeps it from it."""

SETTLE = timedelta(days=1)
"""Time in which every replica (they look hourly) and every API server has learned of a change."""

BACKDATE = timedelta(hours=1)
"""Validity begins this much in the past, for verifiers whose clock is behind."""

# cryptography reads the parts of a certificate when they are asked for, and fails in as many ways.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_CA_NAME = "pgmq-bus webhook CA"
_KEYS = ("ca.crt", "ca.key", "tls.crt", "tls.key")


@dataclass(frozen=True, repr=False)
class CertificateBundle:
    """The content of the Secret, in PEM.

    `ca_certificates` holds one or more authorities, first the one that signs; it is the webhook configuration's
    caBundle. `ca_key` is that one's key; `certificate` and `key` are what the webhook serves.
    """

    ca_certificates: bytes
    ca_key: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Self:
        """From a Secret's decoded data; a key that is absent is empty, which `plan_certificates` repairs."""
        return cls(*(data.get(key, b"") for key in _KEYS))

    def to_secret(self) -> dict[str, bytes]:
        """The Secret's data, not encoded yet."""
        values = (self.ca_certificates, self.ca_key, self.certificate, self.key)
        return dict(zip(_KEYS, values, strict=True))


def expiry(pem: bytes) -> datetime:
    """Until when a certificate chain is in force, by its first certificate."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """The DNS names of a Service; the API server asks for the first one."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
        service,
    )


def plan_certificates(current: CertificateBundle | None, names: Sequence[str], now: datetime) -> CertificateBundle:
    """What the Secret should hold at `now` (aware) for a server called `names`; `current` itself if nothing is to do.

    Authority and certificate never change in the same call, unless there is nothing valid to serve: call again (hourly)
    for what comes next. What cannot be read or does not belong together is replaced, and never an error.
    """
    if current is None:
        return _issue_all(names, now)
    authorities = _read_authorities(current.ca_certificates, now)
    ca_key = _read_key(current.ca_key)
    leaf = _read_leaf(current, authorities, names, now)

    if not authorities or ca_key is None or authorities[0].public_key() != ca_key.public_key():
        # Foreign or broken. What is served stays trusted until a new authority may sign its successor.
        return _issue_all(names, now) if leaf is None else _with_new_authority(current, leaf.issuers, now)
    signer = authorities[0]
    if leaf is None:
        return _with_new_leaf(current, authorities, ca_key, names, now)
    if now >= _part_of_life(signer, CA_RENEWAL):
        return _with_new_authority(current, authorities, now)
    if now >= _part_of_life(leaf.certificate, LEAF_RENEWAL) and now >= _issued_at(signer) + SETTLE:
        return _with_new_leaf(current, authorities, ca_key, names, now)
    settled = signer in leaf.issuers and now >= _issued_at(leaf.certificate) + SETTLE
    trusted = _pem(authorities[:1] if settled else authorities)
    return current if trusted == current.ca_certificates else replace(current, ca_certificates=trusted)


@dataclass(frozen=True)
class _Leaf:
    """A serving certificate that can be served, and the authorities that it may have been issued by."""

    certificate: x509.Certificate
    issuers: Sequence[x509.Certificate]


def _read_authorities(pem: bytes, now: datetime) -> list[x509.Certificate]:
    """The operator's own authorities that are in force; none when there is anything but certificates."""
    try:
        return [certificate for certificate in x509.load_pem_x509_certificates(pem) if _is_authority(certificate, now)]
    except _UNREADABLE:
        return []


def _is_authority(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it was issued here and is in force. Another's may lack what verifiers want of one that signs."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        issued_here = certificate.subject.rfc4514_string().startswith(f"CN={_CA_NAME} ")
        signed_by_itself = _is_issued_by(certificate, certificate)
        return constraints.ca and issued_here and signed_by_itself and _is_in_force(certificate, now)
    except _UNREADABLE:
        return False


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    """The key in `pem`; None for what is not an unencrypted key of the kind that is issued here."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _UNREADABLE:
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _read_leaf(
    bundle: CertificateBundle, authorities: Sequence[x509.Certificate], names: Sequence[str], now: datetime
) -> _Leaf | None:
    """What is served; None unless it is in force, for these names, the key's and issued by one of the authorities."""
    key = _read_key(bundle.key)
    try:
        certificate = x509.load_pem_x509_certificate(bundle.certificate)
        issuers = [authority for authority in authorities if _is_issued_by(certificate, authority)]
        if not issuers or key is None or certificate.public_key() != key.public_key():
            return None
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except _UNREADABLE:
        return None
    if set(covered.get_values_for_type(x509.DNSName)) != set(names) or ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        return None
    return _Leaf(certificate, issuers) if _is_in_force(certificate, now) else None


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except _UNREADABLE:
        return False
    return True


def _issue_all(names: Sequence[str], now: datetime) -> CertificateBundle:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    authority = _new_authority(ca_key, now)
    key, certificate = _new_leaf(authority, ca_key, names, now)
    return CertificateBundle(_pem([authority]), _pem_key(ca_key), _pem([certificate]), _pem_key(key))


def _with_new_authority(
    current: CertificateBundle, kept: Sequence[x509.Certificate], now: datetime
) -> CertificateBundle:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    trusted = _pem([_new_authority(ca_key, now), *kept])
    return CertificateBundle(trusted, _pem_key(ca_key), current.certificate, current.key)


def _with_new_leaf(
    current: CertificateBundle,
    authorities: Sequence[x509.Certificate],
    ca_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    now: datetime,
) -> CertificateBundle:
    key, certificate = _new_leaf(authorities[0], ca_key, names, now)
    return CertificateBundle(_pem(authorities), current.ca_key, _pem([certificate]), _pem_key(key))


def _new_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    serial = x509.random_serial_number()
    # A subject of its own: verifiers look issuers up by subject, and the bundle may hold two.
    name = _name(f"{_CA_NAME} {serial:x}"[:64])
    return (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _new_leaf(
    authority: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, names: Sequence[str], now: datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        x509.CertificateBuilder(
            authority.subject, _name("pgmq-bus webhook"), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + LEAF_LIFETIME, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return key, certificate


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_in_force(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _issued_at(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + BACKDATE


def _part_of_life(certificate: x509.Certificate, part: float) -> datetime:
    issued = _issued_at(certificate)
    return issued + part * (certificate.not_valid_after_utc - issued)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
