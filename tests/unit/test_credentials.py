"""SCRAM verifiers, against the RFC's own numbers and a driver's client."""

import base64
import hashlib
import hmac
import re

import pytest

from bus_operator import credentials


def test_the_example_of_rfc_7677():
    """The client proof and server signature of section 3, checked with the keys of our verifier."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = credentials.scram_verifier("pencil", salt=salt, iterations=4096)
    iterations, _, keys = verifier.removeprefix("SCRAM-SHA-256$").replace("$", ":").split(":", 2)
    stored_key, server_key = (base64.b64decode(key) for key in keys.split(":"))
    assert iterations == "4096"
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    server_signature = hmac.digest(server_key, message, "sha256")
    assert base64.b64encode(server_signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_verifier_has_the_servers_format_and_a_salt_of_its_own():
    first, second = credentials.scram_verifier("secret"), credentials.scram_verifier("secret")
    pattern = r"SCRAM-SHA-256\$16:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}="
    assert re.fullmatch(pattern, first)
    assert first != second
    assert "secret" not in first


def test_passwords_are_long_random_and_need_no_escaping():
    passwords = {credentials.new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", password) for password in passwords)


def test_a_password_matches_its_own_verifier_only():
    password = credentials.new_password()
    verifier = credentials.scram_verifier(password)
    assert credentials.matches(password, verifier)
    assert not credentials.matches(password + "x", verifier)
    assert not credentials.matches("", verifier)


@pytest.mark.parametrize(
    "verifier",
    [
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:!!$a:b",
        "SCRAM-SHA-256$4096",
        "SCRAM-SHA-256$4096:AAAA$" + "ü" * 44 + ":b",
        "$:$",
    ],
)
def test_what_is_no_verifier_matches_nothing(verifier):
    assert credentials.matches("secret", verifier) is False


def test_a_verifier_says_how_often_it_was_hashed():
    verifier = credentials.scram_verifier("secret", iterations=4096)
    assert credentials.matches("secret", verifier)
    assert credentials.matches("secret", verifier.replace("$4096:", "$16:")) is False


@pytest.mark.parametrize("password", ["pässword", "\ud800", "\0"])
def test_an_odd_password_matches_nothing(password):
    assert credentials.matches(password, credentials.scram_verifier("secret")) is False
