"""By which authority a server is judged, and in which modes; and what of a Secret is taken for that."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from authorities import Authority

from bus_operator import tls
from bus_operator.binding import binding_data, is_current
from bus_operator.database import AdminConnection, Endpoint
from bus_operator.errors import SecretError
from bus_operator.model import ChannelSpec, ClientEndpoint
from bus_operator.roles import IssuedCredential
from bus_runtime import Binding, BindingError
from bus_runtime.tls import context_of

FIRST, SECOND = Authority(), Authority()
CREDENTIAL = IssuedCredential("login", "hush", 1)
WORDS = ["disable", "allow", "prefer"]


def test_the_certificates_of_a_secret_and_nothing_else() -> None:
    """Whoever keeps key and certificates in one file does not hand the key to every pod."""
    bundle = f"subject=CN = Zoë\n{FIRST.pem}{FIRST.key_pem}\r\n{SECOND.pem}"
    assert tls.authority({"ca.crt": bundle, "ca.key": FIRST.key_pem}, "ca.crt") == f"{FIRST.pem}{SECOND.pem}"
    assert tls.authority({"bundle.pem": FIRST.pem.replace("\n", "\r\n")}, "bundle.pem").count("BEGIN") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "it has no certificate under the key 'ca.crt': put the authority's there, in PEM"),
        ({"ca.crt": ""}, "it has no certificate under the key 'ca.crt'"),
        ({"ca.crt": FIRST.key_pem}, "it has no certificate under the key 'ca.crt'"),
        ({"tls.crt": FIRST.pem}, "it has no certificate under the key 'ca.crt'"),
        ({"ca.crt": FIRST.pem.replace("-----END", "-----ENDE")}, "it has no certificate under the key 'ca.crt'"),
        # As it is when somebody copies only a part.
        ({"ca.crt": FIRST.pem + SECOND.pem.replace("\nMII", "\n")}, "a certificate under its key 'ca.crt' cannot be"),
        ({"ca.crt": FIRST.pem.replace("MII", "MIÏ")}, "a certificate under its key 'ca.crt' cannot be read"),
    ],
)
def test_a_secret_without_certificates(data: dict[str, str], message: str) -> None:
    with pytest.raises(SecretError) as caught:
        tls.authority(data, "ca.crt")
    assert message in str(caught.value)
    assert caught.value.reason == "SecretInvalid"
    assert "MI" not in str(caught.value)


@pytest.mark.parametrize("mode", WORDS)
def test_modes_that_do_not_verify_stay_what_they_are(mode: str) -> None:
    assert tls.for_driver(mode, FIRST.pem) == mode
    assert context_of(binding(mode, FIRST.pem)) is None


@pytest.mark.parametrize("mode", [*WORDS, "require", "verify-ca", "verify-full"])
def test_without_an_authority_the_driver_looks_for_one_itself(mode: str) -> None:
    assert tls.for_driver(mode, None) == mode
    assert context_of(binding(mode, None)) is None
    # As an editor of the Secret may leave it.
    assert context_of(binding(mode, "")) is None


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_modes_that_verify(mode: str) -> None:
    for context in (tls.for_driver(mode, FIRST.pem), context_of(binding(mode, FIRST.pem))):
        assert isinstance(context, ssl.SSLContext)
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname == (mode == "verify-full")
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        # Neither the system's authorities nor anybody else's.
        assert [item["subject"] for item in context.get_ca_certs()] == [subject(FIRST)]


def subject(authority: Authority) -> object:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.pem)
    return context.get_ca_certs()[0]["subject"]


def binding(mode: str, authority: str | None) -> Binding:
    uri = Endpoint("db", 5432, "bus", mode).uri("login", "hush")
    return Binding("orders", Path(), "shop.orders", uri, authority=authority)


def test_a_binding_that_names_no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was written by hand: the driver heeds the environment, and so must this."""
    found = Binding("orders", Path(), "shop.orders", "postgresql://login:hush@db/bus", authority=FIRST.pem)
    assert context_of(found) is None
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert context_of(found) is not None


def test_a_binding_whose_authority_cannot_be_read() -> None:
    with pytest.raises(BindingError, match=r"ca\.crt of binding 'orders' holds no certificates that can be read"):
        context_of(binding("verify-full", "-----BEGIN"))


def test_who_names_an_authority_wants_it_asked() -> None:
    """As libpq has it with sslrootcert=system; CloudNativePG's URIs name no mode."""
    parts = {"host": "db", "dbname": "bus", "username": "u", "password": "p"}
    for data in ({"uri": "postgresql://u:p@db/bus"}, parts):
        assert AdminConnection.from_secret(data, "uri").endpoint.ssl_mode == "prefer"
        endpoint = AdminConnection.from_secret(data, "uri", FIRST.pem).endpoint
        assert (endpoint.ssl_mode, endpoint.authority) == ("verify-full", FIRST.pem)
    for data in ({"uri": "postgresql://u:p@db/bus?sslmode=disable"}, parts | {"sslmode": "disable"}):
        assert AdminConnection.from_secret(data, "uri", FIRST.pem).endpoint.ssl_mode == "disable"


def test_the_authority_goes_wherever_the_address_goes() -> None:
    admin = AdminConnection.from_uri("postgresql://u:p@db/bus", FIRST.pem)
    assert admin.for_database("bus_bus_1").endpoint.authority == FIRST.pem
    clients = admin.endpoint.for_clients(ClientEndpoint(host="pooler", ssl_mode="verify-ca"))
    assert (clients.host, clients.ssl_mode, clients.authority) == ("pooler", "verify-ca", FIRST.pem)
    # Sessions that were opened by another authority are others, and so are bindings.
    assert admin != AdminConnection.from_uri("postgresql://u:p@db/bus", SECOND.pem)
    assert "CERTIFICATE" not in repr(admin)


def test_a_binding_has_the_authority_if_there_is_one() -> None:
    endpoint = Endpoint("db", 5432, "bus", "verify-full")
    before = binding_data(endpoint, "shop.orders", ChannelSpec(), CREDENTIAL)
    assert "ca.crt" not in before
    after = binding_data(replace(endpoint, authority=FIRST.pem), "shop.orders", ChannelSpec(), CREDENTIAL)
    assert after == before | {"ca.crt": FIRST.pem}
    assert not is_current(before, after)
    # One that is not named any more would stop pods at the next renewal.
    assert not is_current(after, {"ca.crt": None} | before)
    assert is_current(before | {"keystore.p12": "somebody's"}, {"ca.crt": None} | before)
