"""What is read of a Secret."""

import base64

from bus_operator.secret_entries import entries


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def test_what_is_no_text_is_somebody_elses() -> None:
    data = {
        "uri": encoded(b"postgresql://h/d"),
        "owner": encoded("Zoë".encode()),
        "keystore.p12": encoded(b"\xff\xfe\x00"),
    }
    assert entries({"data": data}) == {"uri": "postgresql://h/d", "owner": "Zoë"}


def test_a_single_entry() -> None:
    data = {"ca.crt": encoded(b"certificate"), "ca.key": encoded(b"hush")}
    assert entries({"data": data}, "ca.crt") == {"ca.crt": "certificate"}
    assert entries({"data": data}, "tls.crt") == {}


def test_a_secret_may_hold_nothing() -> None:
    assert entries({}) == entries({"data": None}) == {}
