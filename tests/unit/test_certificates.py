"""Authority and certificate over simulated time, judged by an independent RFC 5280 verifier (cryptography's)."""

import base64
import dataclasses
import random
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from bus_operator.certificates import (
    CA_LIFETIME,
    LEAF_LIFETIME,
    SETTLE,
    CertificateBundle,
    plan_certificates,
    service_names,
)

NAMES = service_names("pgmq-bus", "bus-system")
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def plan(current: CertificateBundle | None, now: datetime) -> CertificateBundle:
    return plan_certificates(current, NAMES, now)


def leaf_of(bundle: CertificateBundle) -> x509.Certificate:
    return x509.load_pem_x509_certificate(bundle.certificate)


def authorities_of(bundle: CertificateBundle) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(bundle.ca_certificates)


def trusts(bundle: CertificateBundle, served: CertificateBundle, now: datetime, name: str = NAMES[0]) -> bool:
    """Whether a client with `bundle`'s authorities accepts, at `now`, what a server with `served` shows."""
    verifier = PolicyBuilder().store(Store(authorities_of(bundle))).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf_of(served), [])
    except VerificationError:
        return False
    return True


def assert_complete(bundle: CertificateBundle, now: datetime) -> None:
    """The keys are the certificates', and every name of the Service is trusted."""
    for certificate, pem in ((authorities_of(bundle)[0], bundle.ca_key), (leaf_of(bundle), bundle.key)):
        key = serialization.load_pem_private_key(pem, None)
        assert key.public_key() == certificate.public_key()
    assert all(trusts(bundle, bundle, now, name) for name in NAMES)


@pytest.fixture
def fresh() -> CertificateBundle:
    return plan(None, START)


def test_a_fresh_bundle(fresh: CertificateBundle) -> None:
    assert_complete(fresh, START)
    assert not trusts(fresh, fresh, START, "kubernetes.default.svc")
    (authority,) = authorities_of(fresh)
    leaf = leaf_of(fresh)
    assert authority.not_valid_after_utc - START == CA_LIFETIME == timedelta(days=3650)
    assert leaf.not_valid_after_utc - START == LEAF_LIFETIME == timedelta(days=90)
    for certificate in (authority, leaf):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert len(authority.subject.rfc4514_string()) <= len("CN=") + 64, "the longest common name (RFC 5280)"


def test_names() -> None:
    assert set(NAMES) == {
        "pgmq-bus",
        "pgmq-bus.bus-system",
        "pgmq-bus.bus-system.svc",
        "pgmq-bus.bus-system.svc.cluster.local",
    }


def test_long_names_of_services_fit() -> None:
    names = service_names("s" * 63, "n" * 63)
    bundle = plan_certificates(None, names, START)
    assert trusts(bundle, bundle, START, names[0])


def test_keys_are_not_in_a_traceback_or_log(fresh: CertificateBundle) -> None:
    assert "PRIVATE" not in repr(fresh)
    assert "PRIVATE" not in str(fresh)


def test_the_secret_round_trip(fresh: CertificateBundle) -> None:
    data = fresh.to_secret()
    assert set(data) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert CertificateBundle.from_secret(data) == fresh
    assert CertificateBundle.from_secret({**data, "other": b"x"}) == fresh


def test_nothing_is_to_do_until_two_thirds_of_its_life(fresh: CertificateBundle) -> None:
    for elapsed in (0 * HOUR, HOUR, 30 * DAY, 60 * DAY - HOUR):
        assert plan(fresh, START + elapsed) is fresh
    renewed = plan(fresh, START + 60 * DAY)
    assert renewed.certificate != fresh.certificate
    assert renewed.key != fresh.key
    assert (renewed.ca_certificates, renewed.ca_key) == (fresh.ca_certificates, fresh.ca_key)
    assert leaf_of(renewed).not_valid_after_utc == START + 150 * DAY
    assert plan(renewed, START + 60 * DAY) is renewed


def test_twenty_five_years() -> None:
    """At each step, each recent state (as an API server or a replica may still know it) trusts each other one's."""
    now = START
    state = plan(None, now)
    recent = [(now, state)]
    changes: list[tuple[datetime, str]] = []
    while now < START + timedelta(days=25 * 365):
        # Slower than the hourly look when nothing happens, to save time.
        now += timedelta(hours=8) if now - recent[-1][0] < 3 * DAY else timedelta(days=2)
        before, state = state, plan(state, now)
        if state is before:
            continue
        replaced_leaf = state.certificate != before.certificate
        assert not (replaced_leaf and state.ca_key != before.ca_key)
        changes.append((now, "leaf" if replaced_leaf else f"{len(authorities_of(state))} authorities"))

        recent = [(end, known) for end, known in recent if now - end < SETTLE] + [(now, state)]
        for _, known in [*recent, (now, before)]:
            assert trusts(known, state, now)
            assert trusts(state, known, now)
        assert leaf_of(before).not_valid_after_utc - now > 25 * DAY, "renewed long before its end"
        assert leaf_of(state).not_valid_after_utc <= authorities_of(state)[0].not_valid_after_utc
        assert plan(state, now) is state

    authority_changes = [(at, what) for at, what in changes if what != "leaf"]
    assert [what for _, what in authority_changes] == ["2 authorities", "1 authorities"] * 3
    for number, (at, _) in enumerate(authority_changes[::2], start=1):
        assert abs(at - START - number * 0.8 * CA_LIFETIME) < timedelta(days=10)
    for (added, _), (dropped, _) in zip(authority_changes[::2], authority_changes[1::2], strict=True):
        assert SETTLE < dropped - added < timedelta(days=70)
    assert 140 < len(changes) - len(authority_changes) < 160, "a certificate every 60 days"


def test_after_a_long_sleep_what_cannot_wait_comes_first(fresh: CertificateBundle) -> None:
    now = START + 0.9 * CA_LIFETIME
    first = plan(fresh, now)
    assert (first.ca_certificates, first.ca_key) == (fresh.ca_certificates, fresh.ca_key)
    assert_complete(first, now)
    second = plan(first, now + HOUR)
    assert second.certificate == first.certificate
    assert len(authorities_of(second)) == 2
    assert trusts(second, first, now + HOUR)


def test_when_the_authority_has_ended_everything_is_new(fresh: CertificateBundle) -> None:
    now = START + CA_LIFETIME
    renewed = plan(fresh, now)
    assert_complete(renewed, now)
    assert len(authorities_of(renewed)) == 1
    assert renewed.ca_key != fresh.ca_key


def test_a_certificate_does_not_outlive_its_authority(fresh: CertificateBundle) -> None:
    now = START + CA_LIFETIME - 10 * DAY
    assert leaf_of(plan(fresh, now)).not_valid_after_utc == START + CA_LIFETIME


def test_a_renamed_service_gets_a_certificate_of_the_same_authority(fresh: CertificateBundle) -> None:
    renamed = plan_certificates(fresh, service_names("bus", "elsewhere"), START + HOUR)
    assert renamed.ca_certificates == fresh.ca_certificates
    assert trusts(fresh, renamed, START + HOUR, "bus.elsewhere.svc")


def test_a_clock_that_was_ahead_is_recovered_from() -> None:
    ahead = plan(None, START + 400 * DAY)
    assert_complete(plan(ahead, START), START)


def test_a_certificate_is_valid_for_clocks_that_are_behind(fresh: CertificateBundle) -> None:
    assert trusts(fresh, fresh, START - timedelta(minutes=59))


def foreign(curve: ec.EllipticCurve | None = None) -> CertificateBundle:
    """What another tool may have put there: valid, but not the operator's."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=somebody else")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(START - DAY)
        .not_valid_after(START + 900 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return CertificateBundle(pem, key_pem, pem, key_pem)


def rsa_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypted_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: CertificateBundle(b"", b"", b"", b""),
        lambda b: CertificateBundle(b"\x00", b"\xff", b"not PEM", b"-----BEGIN PRIVATE KEY-----"),
        lambda b: foreign(),
        lambda b: foreign(ec.SECP384R1()),
        lambda b: plan_certificates(None, ["other.svc"], START),
        lambda b: dataclasses.replace(b, ca_certificates=b""),
        lambda b: dataclasses.replace(b, ca_certificates=b.ca_certificates[:-40]),
        lambda b: dataclasses.replace(b, ca_certificates=b.certificate),
        lambda b: dataclasses.replace(b, ca_certificates=foreign().ca_certificates),
        lambda b: dataclasses.replace(b, ca_key=b""),
        lambda b: dataclasses.replace(b, ca_key=b.key),
        lambda b: dataclasses.replace(b, ca_key=rsa_key()),
        lambda b: dataclasses.replace(b, ca_key=encrypted_key()),
        lambda b: dataclasses.replace(b, certificate=b""),
        lambda b: dataclasses.replace(b, certificate=b.ca_certificates),
        lambda b: dataclasses.replace(b, certificate=plan(None, START).certificate),
        lambda b: dataclasses.replace(b, key=b""),
        lambda b: dataclasses.replace(b, key=b.ca_key),
        lambda b: dataclasses.replace(b, key=rsa_key()),
    ],
)
def test_what_does_not_belong_together_is_replaced(
    fresh: CertificateBundle, damage: Callable[[CertificateBundle], CertificateBundle]
) -> None:
    repaired = plan(damage(fresh), START + HOUR)
    assert_complete(repaired, START + HOUR)
    assert plan(repaired, START + HOUR) is repaired


def test_a_lost_authority_key_does_not_disturb_what_is_served(fresh: CertificateBundle) -> None:
    now = START + HOUR
    repaired = plan(dataclasses.replace(fresh, ca_key=b"lost"), now)
    assert repaired.certificate == fresh.certificate
    assert len(authorities_of(repaired)) == 2
    assert trusts(fresh, repaired, now)
    # The new authority signs when the certificate is due, and then the old one goes.
    renewed = plan(repaired, now + 60 * DAY)
    assert trusts(repaired, renewed, now + 60 * DAY)
    assert trusts(renewed, repaired, now + 60 * DAY)
    assert len(authorities_of(plan(renewed, now + 62 * DAY))) == 1


def test_a_new_authority_signs_nothing_before_everyone_knows_it(fresh: CertificateBundle) -> None:
    added = START + 60 * DAY - HOUR
    state = plan(dataclasses.replace(fresh, ca_key=b"lost"), added)
    assert plan(state, START + 60 * DAY) is state, "the certificate is due, and waits"
    assert plan(state, added + SETTLE - HOUR) is state
    assert plan(state, added + SETTLE).certificate != fresh.certificate


def test_strangers_leave_the_bundle(fresh: CertificateBundle) -> None:
    joined = dataclasses.replace(fresh, ca_certificates=fresh.ca_certificates + foreign().ca_certificates)
    assert plan(joined, START + 2 * DAY).ca_certificates == fresh.ca_certificates


def test_changed_bytes_are_never_an_error(fresh: CertificateBundle) -> None:
    random_bytes = random.Random(20260101)  # fixed: a failure can be repeated
    for _ in range(400):
        field = random_bytes.choice(["ca_certificates", "ca_key", "certificate", "key"])
        lines = getattr(fresh, field).splitlines()
        der = bytearray(base64.b64decode(b"".join(lines[1:-1])))
        der[random_bytes.randrange(len(der))] ^= random_bytes.randrange(1, 256)
        damaged = dataclasses.replace(
            fresh, **{field: b"\n".join([lines[0], base64.encodebytes(bytes(der)), lines[-1]])}
        )
        with warnings.catch_warnings():
            # A serial number that became negative; the certificate is then refused for its signature.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            repaired = plan(damaged, START + HOUR)
        assert_complete(repaired, START + HOUR)
