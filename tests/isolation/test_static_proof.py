"""What the catalog says about who owns what and who may do what: exactly this, and nothing else, on every version."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import asyncpg
import postgres
import pytest
from proof import QUERIES, find_violations
from violations import VIOLATIONS

from bus_operator import provision
from bus_operator.database import AdminConnection


@dataclass
class Sound:
    """A database with two channels, and the names of what is in it."""

    database: postgres.Database
    names: dict[str, str]


async def build(server: postgres.Server, administrator: str) -> Sound:
    """On a server of its own, since roles of other databases would be found."""
    name = "bus"
    superuser = await server.connect()
    if administrator != postgres.SUPERUSER:
        await superuser.execute(f"create role {administrator} login createrole password 'administers'")
    await superuser.execute(f"create database {name} owner {administrator} template template0")
    await superuser.close()
    password = None if administrator == postgres.SUPERUSER else "administers"
    made = Installed(server, name, administrator, password)
    async with made.session() as session:
        await provision.install(session)
    channel, other = await made.create_channel("one"), await made.create_channel("two")
    token, other_token = (login.split("_")[2] for login in (channel.username, other.username))
    return Sound(
        postgres.Database(server, name),
        {
            "database": name,
            "login": channel.username,
            "token": token,
            "role": f"bus_channel_{token}",
            "other_role": f"bus_channel_{other_token}",
        },
    )


@dataclass(frozen=True)
class Installed(postgres.Database):
    """As somebody installs it."""

    administrator: str
    password: str | None = field(repr=False)

    @property
    def admin(self) -> AdminConnection:
        return self.server.admin(self.name, self.administrator, self.password)


@pytest.fixture(scope="module", params=postgres.SUPPORTED, ids=lambda version: f"pg{version}")
def sound(request: pytest.FixtureRequest) -> Iterator[Sound]:
    """Installed by an administrator who is no superuser, as in production."""
    server = postgres.start_server(request.param)
    try:
        yield asyncio.run(build(server, "administrator"))
    finally:
        server.remove()


@pytest.fixture
async def admin(sound: Sound) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's session: others do not see all that is looked at."""
    session = await sound.database.server.connect(sound.database.name)
    yield session
    session.terminate()


async def test_a_database_with_channels_is_sound(admin: asyncpg.Connection):
    assert await find_violations(admin) == {}


@pytest.mark.parametrize("version", [15, 18], ids=lambda version: f"pg{version}")
async def test_one_that_a_superuser_installed_is_sound(version: int):
    server = await asyncio.to_thread(postgres.start_server, version)
    try:
        database = (await build(server, postgres.SUPERUSER)).database
        session = await server.connect(database.name)
        assert await find_violations(session) == {}
        await session.close()
    finally:
        server.remove()


async def test_every_violation_is_found(sound: Sound, admin: asyncpg.Connection):
    """Each alone, and taken back. No query of the proof is there for nothing."""
    names = sound.names
    await admin.execute("create role other; create schema strange; create table strange.things (a integer)")
    missed, silent = {}, set(QUERIES)
    for statement, sentence in VIOLATIONS:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(statement.format(**names))
        found = await find_violations(admin)
        await transaction.rollback()
        silent -= found.keys()
        expected = sentence.format(**names)
        if not any(expected in one for sentences in found.values() for one in sentences):
            missed[statement] = found
    assert missed == {}
    assert silent == set()
    assert await find_violations(admin) == {}
    await admin.execute("drop schema strange cascade; drop role other")
