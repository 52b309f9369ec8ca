"""Private authorities, and servers that show what one has issued. Of those here, Debian's PostgreSQL 15 has TLS."""

import asyncio
import os
import pwd
import secrets
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from postgres import Server

VERSION = 15

_LIFE = timedelta(hours=1)


class Authority:
    """One that signs with a key of its own."""

    def __init__(self, name: str = "private authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {secrets.token_hex(4)}")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self.pem = _pem(certificate.sign(self._key, hashes.SHA256()))
        self.key_pem = _pem_of_key(self._key)

    def issue(self, address: str = "127.0.0.1") -> tuple[str, str]:
        """A certificate for a server at this IP address, and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        certificate = self._builder(name, key).add_extension(names, critical=False)
        return _pem(certificate.sign(self._key, hashes.SHA256())), _pem_of_key(key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now - _LIFE).not_valid_after(now + _LIFE)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    no_password = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password).decode()


async def show(server: Server, authority: Authority, address: str = "127.0.0.1") -> None:
    """Has a server show a certificate of this authority's, without a restart; sessions that are open stay."""
    certificate, key = authority.issue(address)
    session = await server.connect()
    try:
        for setting, text in (("ssl_cert_file", certificate), ("ssl_key_file", key)):
            path = server.directory / f"{setting}-{secrets.token_hex(4)}"
            path.touch(mode=0o600)
            path.write_text(text)
            _give(path, server)
            await session.execute(f"ALTER SYSTEM SET {setting} = '{path}'")
        await session.execute("ALTER SYSTEM SET ssl = on")
        await session.execute("SELECT pg_reload_conf()")
    finally:
        await session.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.pem)
    async with asyncio.timeout(10):
        while not await _shows(server, context):
            await asyncio.sleep(0.02)


async def show_none(server: Server) -> None:
    """Leaves the server as it was."""
    session = await server.connect()
    try:
        for setting in ("ssl", "ssl_cert_file", "ssl_key_file"):
            await session.execute(f"ALTER SYSTEM RESET {setting}")
        await session.execute("SELECT pg_reload_conf()")
    finally:
        await session.close()


def _give(path: Path, server: Server) -> None:
    if os.geteuid() == 0:
        owner = (server.directory / "data").stat().st_uid
        assert owner != pwd.getpwnam("root").pw_uid
        os.chown(path, owner, -1)


async def _shows(server: Server, context: ssl.SSLContext) -> bool:
    try:
        session = await asyncpg.connect(server.uri(), ssl=context)
    except (OSError, asyncpg.PostgresError):
        return False
    await session.close()
    return True
