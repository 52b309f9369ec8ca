"""A bus that verifies the server by the authority in its binding, and what is said where that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import authorities
import postgres
import pytest
from authorities import Authority, show
from postgres import Channel, Server

from bus_runtime import UnavailableError, find_binding
from bus_runtime.connection import Database
from bus_runtime.doctor import examine


@pytest.fixture(scope="module")
def tls_server(running_servers: Callable[[int], Server]) -> Iterator[Server]:
    server = running_servers(authorities.VERSION)
    yield server
    asyncio.run(authorities.show_none(server))


@pytest.fixture
async def channel(tls_server: Server) -> AsyncIterator[Channel]:
    """Under `verify-full`."""
    database = await postgres.create_database(tls_server)
    created = await database.create_channel("shop.orders")
    yield replace(created, endpoint=replace(created.endpoint, ssl_mode="verify-full"))
    await postgres.drop_database(database)


@pytest.fixture
async def authority(tls_server: Server) -> Authority:
    made = Authority()
    await show(tls_server, made)
    return made


def bound(channel: Channel, root: Path, authority: str | None) -> Database:
    trusting = replace(channel, endpoint=replace(channel.endpoint, authority=authority))
    return Database(binding=find_binding(root=trusting.binding_dir(root)))


ENCRYPTED = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


async def test_verified_by_the_binding_alone(channel: Channel, authority: Authority, tmp_path: Path) -> None:
    own = bound(channel, tmp_path, authority.pem)
    assert (await own.fetch(ENCRYPTED))[0][0]
    await own.close()


async def test_the_next_connection_goes_by_the_file_as_it_is_then(
    channel: Channel, authority: Authority, tmp_path: Path, tls_server: Server
) -> None:
    own, successor = bound(channel, tmp_path, authority.pem), Authority()
    await own.fetch("select 1")
    await show(tls_server, successor)
    with pytest.raises(UnavailableError):
        async with own.connection():
            pass
    (tmp_path / "orders" / "ca.crt").write_text(successor.pem)
    async with own.connection() as connection:
        assert await connection.fetchval(ENCRYPTED)
    await own.close()


async def test_a_server_of_another_authority(channel: Channel, authority: Authority, tmp_path: Path) -> None:
    assert authority
    own = bound(channel, tmp_path, Authority().pem)
    with pytest.raises(UnavailableError, match="shows a certificate that is not trusted: unable to get local") as told:
        await own.fetch("select 1")
    assert told.value.code == "ServerCertificateRefused"
    await own.close()
    (step,) = [step for step in await examine(root=tmp_path) if step.state == "failed"]
    assert (step.title, step.code) == ("login", "ServerCertificateRefused")


async def test_a_file_that_somebody_spoiled(channel: Channel, authority: Authority, tmp_path: Path) -> None:
    own = bound(channel, tmp_path, authority.pem[:200])
    with pytest.raises(UnavailableError, match=r"ca\.crt of binding 'orders' holds no certificates") as told:
        await own.fetch("select 1")
    assert told.value.code == "BindingInvalid"
    await own.close()


async def test_verification_that_nobody_has_provided_for(
    channel: Channel, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the file all is as libpq has it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    own = bound(channel, tmp_path / "bindings", None)
    with pytest.raises(UnavailableError, match=r"spec\.caSecretRef of the BusDatabase does, or PGSSLROOTCERT"):
        await own.fetch("select 1")
    (tmp_path / "ca.pem").write_text(authority.pem)
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "ca.pem"))
    assert (await own.fetch(ENCRYPTED))[0][0]
    # It is the same, whichever finds that it is another's.
    (tmp_path / "ca.pem").write_text(Authority().pem)
    with pytest.raises(UnavailableError, match="not trusted") as told:
        async with own.connection():
            pass
    assert told.value.code == "ServerCertificateRefused"
    await own.close()
