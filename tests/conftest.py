"""Fixtures that several kinds of tests share. What needs PostgreSQL gets real ones, the oldest and the newest."""

from collections.abc import AsyncIterator, Iterator

import postgres
import pytest

POSTGRES_VERSIONS = (15, 18)


@pytest.fixture(scope="session", params=POSTGRES_VERSIONS, ids=lambda version: f"pg{version}")
def server(request: pytest.FixtureRequest) -> Iterator[postgres.Server]:
    """A PostgreSQL server, once per version and session."""
    running = postgres.start_server(request.param)
    try:
        postgres.create_template(running)
        yield running
    finally:
        running.remove()


@pytest.fixture
async def database(server: postgres.Server) -> AsyncIterator[postgres.Database]:
    """A fresh database with the schema installed."""
    created = await postgres.create_database(server)
    yield created
    await postgres.drop_database(created)
