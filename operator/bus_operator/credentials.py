"""Passwords of channel logins and the SCRAM verifiers that PostgreSQL gets instead of them.

A clear password exists in the binding only. The server is given the verifier, computed here, so that no statement text,
log or statistics view ever holds the password (RFC 5802, RFC 7677; PostgreSQL's `SCRAM-SHA-256$...` format).
"""

import base64
import hashlib
import hmac
import secrets

_ITERATIONS = 16
"""Iterations make guessing a password slow. Ours has 256 random bits and cannot be guessed, so that they would only
slow logins: PostgreSQL's default of 4096 takes asyncpg, which counts them in Python, some 10 ms of every connection."""


def new_password() -> str:
    """256 random bits as 43 URL-safe ASCII characters, which SASLprep leaves as they are."""
    return secrets.token_urlsafe(32)


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = _ITERATIONS) -> str:
    """The SCRAM-SHA-256 verifier of an ASCII password."""
    salt = salt if salt is not None else secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return "SCRAM-SHA-256${}:{}${}:{}".format(
        iterations, *(base64.b64encode(part).decode("ascii") for part in (salt, stored_key, server_key))
    )


def matches(password: str, verifier: str) -> bool:
    """Whether `verifier` was computed from `password`; False for anything malformed."""
    try:
        count, encoded = verifier.split("$")[1].split(":")
        salt, iterations = base64.b64decode(encoded, validate=True), int(count)
        expected = scram_verifier(password, salt=salt, iterations=iterations)
        return hmac.compare_digest(expected.encode(), verifier.encode())
    except (IndexError, ValueError):
        return False
